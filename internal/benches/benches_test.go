// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"valise/internal/figure"
)

func TestRead(t *testing.T) {
	out := "goos: linux\n" +
		"BenchmarkSign8-2         \tfigure own_sign_ratio 0.5 ratio target >=0.9 short\n" +
		"BenchmarkSign8-2         \tfigure own_sign_ratio 0.95 ratio target >=0.9 ok\n" +
		"     100\t   12 ns/op\n" +
		"BenchmarkOpenP384/one-2 \t     120\t  9876.5 ns/op\t  104 MB/s\t   7.5 msg/s\n" +
		"figure plain 3 s\n" +
		"a figure of speech here\n" +
		"ok  \tvalise/own\t1.2s\n"
	var l figureList
	if !l.read("valise/own/deep", out) {
		t.Fatal("nothing found")
	}
	var got strings.Builder
	targets := figure.Targets{"own_deep_open_p384_one": {Unit: "ns/op", Op: "<=", Bound: 5000, Text: "<=5000"}, "absent": {}}
	if err := l.print(&got, targets); err != nil {
		t.Error(err)
	}
	want := "figure own_sign_ratio 0.95 ratio target >=0.9 ok\n" +
		"figure own_deep_open_p384_one 9876.5 ns/op target <=5000 short\n" +
		"figure own_deep_open_p384_one_mb_s 104 MB/s\n" +
		"figure own_deep_open_p384_one_msg_s 7.5 msg/s\n" +
		"figure plain 3 s\n"
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	if err := l.missing(targets); err == nil || !strings.Contains(err.Error(), "absent") || strings.Contains(err.Error(), "p384") {
		t.Errorf("missing: %v", err)
	}
}

// A whole run over a module with a benchmark, a program and a target.
func TestRun(t *testing.T) {
	root := t.TempDir()
	files := map[string]string{
		"go.mod":            "module m\n\ngo 1.26\n",
		"bench/targets.txt": "two msg/s >=10\n",
		"bench/two/main.go": "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"figure two 9 msg/s target >=10 short\") }\n",
		"one/one_test.go":   "package one\n\nimport \"testing\"\n\nfunc BenchmarkOne(b *testing.B) { for b.Loop() { } }\n",
		"cmd/x/main.go":     "package main\n\nfunc main() { panic(\"not a benchmark\") }\n",
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(root)
	t.Setenv("VALISE_TARGETS", "")
	if err := run(t.Context(), "results", "1x", nil); err != nil {
		t.Fatal(err)
	}
	kept, err := filepath.Glob("results/*.txt")
	if err != nil || len(kept) != 1 {
		t.Fatalf("%q, %v", kept, err)
	}
	text, err := os.ReadFile(kept[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# measured 20", "cores", "\nfigure one_one ", "\nfigure two 9 msg/s target >=10 short\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	// A target that nothing measures, and a program that fails, are errors.
	if err := os.WriteFile("bench/targets.txt", []byte("two msg/s >=10\nthree s <=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), "results", "1x", nil); err == nil || !strings.Contains(err.Error(), "three has a target") {
		t.Errorf("a target that nothing measures: %v", err)
	}
	if err := os.WriteFile("bench/two/main.go", []byte("package main\n\nfunc main() { panic(1) }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), "results", "1x", []string{"./bench/..."}); err == nil || !strings.Contains(err.Error(), "m/bench/two") {
		t.Errorf("a program that fails: %v", err)
	}
}
