// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// module writes a module of the files given into a fresh folder and goes there.
func module(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{"go.mod": "module m\n\ngo 1.26\n"}
	maps.Copy(all, files)
	for name, text := range all {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

// vetted is what goTest vets; go test -vet=off alone would not notice.
var vetted = []string{"./..."}

func goTest(t *testing.T, rules []skipRule, args ...string) (string, bool) {
	t.Helper()
	var out strings.Builder
	ok, err := run(t.Context(), &out, rules, vetted, append(args, "./..."))
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), ok
}

const head = "package p\n\nimport \"testing\"\n\n"

// Each case is a package run by the real go test, and what must come of it.
func TestRun(t *testing.T) {
	vectors := []skipRule{{prefix: "vectors:", condition: "vectors-missing", reason: "kept elsewhere", holds: true}}
	closed := []skipRule{{prefix: "vectors:", condition: "vectors-missing", reason: "kept elsewhere"}}
	for _, c := range []struct {
		name  string
		code  string
		rules []skipRule
		ok    bool
		want  []string
	}{
		{
			"passes", `func TestA(t *testing.T) {}`, nil, true,
			[]string{"tests: 1 passed, 0 failed, 0 skipped"},
		},
		{
			"subtests stand for their test", `func TestA(t *testing.T) { t.Run("x", func(t *testing.T) {}); t.Run("y", func(t *testing.T) {}) }`, nil, true,
			[]string{"tests: 2 passed, 0 failed, 0 skipped"},
		},
		{
			"fails", `func TestA(t *testing.T) { t.Error("the reason") }; func TestB(t *testing.T) {}`, nil, false,
			[]string{"the reason", "failed: m TestA\n", "tests: 1 passed, 1 failed, 0 skipped"},
		},
		{
			"a failed subtest counts once", `func TestA(t *testing.T) { t.Run("x", func(t *testing.T) { t.Fatal() }); t.Run("y", func(t *testing.T) {}) }`, nil, false,
			[]string{"failed: m TestA/x\n", "tests: 1 passed, 1 failed, 0 skipped"},
		},
		{
			"a test that fails beside good subtests", `func TestA(t *testing.T) { t.Run("y", func(t *testing.T) {}); t.Error("late") }`, nil, false,
			[]string{"failed: m TestA\n", "tests: 1 passed, 1 failed, 0 skipped"},
		},
		{
			"panics", `func TestA(t *testing.T) {}; func TestB(t *testing.T) { panic("boom") }`, nil, false,
			[]string{"boom", "failed: m TestB", "tests: 1 passed, 1 failed, 0 skipped"},
		},
		{
			"hangs", `func TestA(t *testing.T) { select {} }`, nil, false,
			[]string{"failed: m TestA", "0 passed, 1 failed, 0 skipped"},
		},
		{
			"exits well in the middle", `func TestA(t *testing.T) { os.Exit(0) }`, nil, false,
			[]string{"tests: 0 passed, 1 failed, 0 skipped"},
		},
		{
			"does not build", `func TestA(t *testing.T) { nonsense }`, nil, false,
			[]string{"undefined: nonsense", "failed: m (does not build)", "failed: go vet", "tests: 0 passed, 2 failed, 0 skipped"},
		},
		{
			"fails outside its tests", `func TestA(t *testing.T) {}; func TestMain(m *testing.M) { m.Run(); os.Exit(3) }`, nil, false,
			[]string{"failed: m (failed outside its tests)", "tests: 1 passed, 1 failed, 0 skipped"},
		},
		{
			"seeds are one test", `func FuzzA(f *testing.F) { f.Add(1); f.Add(2); f.Fuzz(func(t *testing.T, n int) {}) }`, nil, true,
			[]string{"tests: 1 passed, 0 failed, 0 skipped"},
		},
		{
			"a bad seed", `func FuzzA(f *testing.F) { f.Add(1); f.Add(2); f.Fuzz(func(t *testing.T, n int) { if n == 2 { t.Fatal("two") } }) }`, nil, false,
			[]string{"two", "failed: m FuzzA\n", "tests: 0 passed, 1 failed, 0 skipped"},
		},
		{
			"an allowed skip", `func TestA(t *testing.T) { t.Skip("vectors: none here") }; func TestB(t *testing.T) {}`, vectors, true,
			[]string{`skipped with leave: 1 × "vectors:"`, "tests: 1 passed, 0 failed, 1 skipped"},
		},
		{
			"the same skip where its condition does not hold", `func TestA(t *testing.T) { t.Skip("vectors: none here") }; func TestB(t *testing.T) {}`, closed, false,
			[]string{"skipped without leave: m TestA: vectors: none here", "tests: 1 passed, 0 failed, 1 skipped"},
		},
		{
			"another skip", `func TestA(t *testing.T) { t.Skip("no time for vectors:") }`, vectors, false,
			[]string{"skipped without leave: m TestA: no time for vectors:", "tests: 0 passed, 0 failed, 1 skipped"},
		},
		{
			"a skip without a word", `func TestA(t *testing.T) { t.SkipNow() }`, vectors, false,
			[]string{"skipped without leave: m TestA: no reason given"},
		},
		{
			"nothing", ``, nil, false,
			[]string{"no test ran", "tests: 0 passed, 0 failed, 0 skipped"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			imports := head
			if strings.Contains(c.code, "os.") {
				imports += "import \"os\"\n\n"
			}
			if c.code == "" {
				imports = "package p\n"
			}
			module(t, map[string]string{"a_test.go": imports + c.code + "\n"})
			out, ok := goTest(t, c.rules, "-vet=off", "-timeout", "3s")
			if ok != c.ok {
				t.Errorf("green: %v, want %v", ok, c.ok)
			}
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q is missing", want)
				}
			}
			if t.Failed() {
				t.Logf("output:\n%s", out)
			}
		})
	}
}

// One package that does not build hides none of the others, and a bad
// argument to go test is a failure though it yields no event.
func TestRunSeveral(t *testing.T) {
	module(t, map[string]string{
		"a/a_test.go": head + "func TestA(t *testing.T) {}\n",
		"b/b.go":      "package b\n\nvar x = y\n",
		"b/b_test.go": "package b\n\nimport \"testing\"\n\nfunc TestB(t *testing.T) {}\n",
		"c/c.go":      "package c\n",
	})
	out, ok := goTest(t, nil)
	if ok || !strings.Contains(out, "tests: 1 passed, 2 failed, 0 skipped") || !strings.Contains(out, "no tests") {
		t.Errorf("green: %v\n%s", ok, out)
	}
	out, ok = goTest(t, nil, "-timeout", "never")
	if ok || !strings.Contains(out, "go test itself") || !strings.Contains(out, "tests: 0 passed, 2 failed, 0 skipped") {
		t.Errorf("green: %v\n%s", ok, out)
	}
}

func TestParseSkips(t *testing.T) {
	holds := map[string]bool{"root": true}
	if rules, err := parseSkips(strings.NewReader("# c\n\na: | root | why\n"), holds); err != nil || len(rules) != 1 || !rules[0].holds {
		t.Errorf("%+v, %v", rules, err)
	}
	for _, bad := range []string{"a:", "a: | root", "| root | why", "a: | never | why", "a: | root |"} {
		if _, err := parseSkips(strings.NewReader(bad), holds); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// A stranger's clone has no vectors; .ci/run requires them all the same.
func TestConditions(t *testing.T) {
	t.Setenv("VALISE_VECTORS", filepath.Join(t.TempDir(), "none"))
	t.Setenv("VALISE_REQUIRE", "all")
	if !conditions()["vectors-missing"] {
		t.Error("missing vectors are not noticed")
	}
	t.Setenv("VALISE_REQUIRE", "all,vectors")
	if conditions()["vectors-missing"] {
		t.Error("required vectors may be missing")
	}
	t.Setenv("VALISE_REQUIRE", "all")
	t.Setenv("VALISE_VECTORS", t.TempDir())
	if conditions()["vectors-missing"] {
		t.Error("vectors that are there count as missing")
	}
}

// The project's own file parses.
func TestSkipsFile(t *testing.T) {
	f, err := os.Open("../../scripts/skips.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if rules, err := parseSkips(f, conditions()); err != nil || len(rules) == 0 {
		t.Errorf("%+v, %v", rules, err)
	}
}
