// SPDX-License-Identifier: Apache-2.0

package figure

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPrint(t *testing.T) {
	targets, err := ParseTargets(strings.NewReader("# a comment\n\nratio ratio >=0.9\nlatency ms <=5\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		value float64
		unit  string
		want  string
		fails bool
	}{
		{"free", 12345.678, "msg/s", "figure free 12345.7 msg/s\n", false},
		{"free", 0.000123456789, "s", "figure free 0.000123457 s\n", false},
		{"free", 2000000, "B", "figure free 2000000 B\n", false},
		{"free", 0, "lost", "figure free 0 lost\n", false},
		{"ratio", 0.9, "ratio", "figure ratio 0.9 ratio target >=0.9 ok\n", false},
		{"ratio", 0.8999, "ratio", "figure ratio 0.8999 ratio target >=0.9 short\n", false},
		// Prints like the target, and still misses it.
		{"ratio", 0.8999999999, "ratio", "figure ratio 0.9 ratio target >=0.9 short\n", false},
		{"ratio", math.NaN(), "ratio", "figure ratio NaN ratio target >=0.9 short\n", false},
		{"ratio", 95, "percent", "figure ratio 95 percent target >=0.9 short\n", true},
		{"latency", 4.9, "ms", "figure latency 4.9 ms target <=5 ok\n", false},
		{"latency", 5.1, "ms", "figure latency 5.1 ms target <=5 short\n", false},
		{"latency", math.NaN(), "ms", "figure latency NaN ms target <=5 short\n", false},
		{"two words", 1, "s", "", true},
		{"free", 1, "", "", true},
	} {
		var out strings.Builder
		err := targets.Print(&out, c.name, c.value, c.unit)
		if out.String() != c.want || (err != nil) != c.fails {
			t.Errorf("%s %v %s: got %q, %v; want %q", c.name, c.value, c.unit, out.String(), err, c.want)
		}
	}
}

func TestParseTargetsRefuses(t *testing.T) {
	for _, bad := range []string{
		"name ratio", "name ratio 0.9", "name ratio >0.9", "name ratio >=x", "name ratio >=NaN",
		"Name ratio >=1", "name ratio >=1 please", "a s >=1\na s >=2",
	} {
		if _, err := ParseTargets(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("VALISE_TARGETS", "")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module x\n")
	var out strings.Builder
	if err := Print(&out, "n", 1, "s"); !errors.Is(err, ErrNoTargets) {
		t.Errorf("without a file: %v", err)
	}
	if out.String() != "figure n 1 s\n" {
		t.Errorf("without a file: %q", out.String())
	}
	if err := os.MkdirAll("bench", 0o700); err != nil {
		t.Fatal(err)
	}
	write(TargetsFile, "n s <=2\n")
	if err := os.MkdirAll("deep/er", 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(dir, "deep", "er"))
	out.Reset()
	if err := Print(&out, "n", 1, "s"); err != nil || out.String() != "figure n 1 s target <=2 ok\n" {
		t.Errorf("from a folder below the root: %q, %v", out.String(), err)
	}
	write("mine.txt", "n s <=0.5\n")
	t.Setenv("VALISE_TARGETS", "mine.txt")
	out.Reset()
	if err := Print(&out, "n", 1, "s"); err != nil || out.String() != "figure n 1 s target <=0.5 short\n" {
		t.Errorf("with VALISE_TARGETS: %q, %v", out.String(), err)
	}
}

// The project's own file parses.
func TestTargetsFile(t *testing.T) {
	t.Setenv("VALISE_TARGETS", "")
	targets, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	if got := targets["hsm_pkcs11_sign_8_ratio"]; got.Text != ">=0.9" {
		t.Errorf("hsm_pkcs11_sign_8_ratio: %+v", got)
	}
}
