// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"valise/internal/testenv"
)

// Folders that differ in anything that matters are told apart.
func TestCompare(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		s := stage{dir: dir}
		if err := s.write(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, side := range []string{"a", "b"} {
		write(side+"/same", "same", 0o644)
		write(side+"/in/same", strings.Repeat("x", 1<<21), 0o755)
	}
	if differ, err := compare(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil || len(differ) > 0 {
		t.Fatalf("%q, %v", differ, err)
	}
	write("a/longer", "ab", 0o644)
	write("b/longer", "a", 0o644)
	write("a/byte", "ab", 0o644)
	write("b/byte", "aB", 0o644)
	write("a/mode", "", 0o755)
	write("b/mode", "", 0o644)
	write("a/only here", "", 0o644)
	write("b/only there", "", 0o644)
	differ, err := compare(filepath.Join(dir, "a"), filepath.Join(dir, "b"))
	if want := []string{"byte", "longer", "mode", "only here", "only there"}; err != nil || !slices.Equal(differ, want) {
		t.Errorf("%q, %v, want %q", differ, err, want)
	}
	if _, err := compare(filepath.Join(dir, "none"), filepath.Join(dir, "b")); err == nil {
		t.Error("nothing was compared, and it passes")
	}
}

// little is a module with the programs that build.sh builds, in C and Go, of which each
// says in its binary where it was built unless that is prevented.
func little(t *testing.T, dir, script string) string {
	t.Helper()
	s := stage{dir: dir}
	err := s.write("go.mod", []byte("module little\n\ngo 1.26\n"), 0o644)
	for _, p := range programs {
		text := "package main\n\nfunc main() { panic(1) }\n"
		if p.name == "valise" {
			text = "package main\n\n// static const char *where(void) { return __FILE__; }\nimport \"C\"\n\nfunc main() { println(C.where()) }\n"
		}
		err = errors.Join(err, s.write("cmd/"+p.name+"/main.go", []byte(text), 0o644))
	}
	if err = errors.Join(err, s.write("build.sh", []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if _, err := output(t.Context(), dir, nil, filepath.Join(dir, "build.sh"), dir, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// What build.sh builds in two places is the same, bit by bit; without the settings that
// see to it, it is not.
func TestBuildScript(t *testing.T) {
	testenv.Need(t, "gcc", "gcc")
	script, err := os.ReadFile(filepath.Join(testenv.Root(t), "packaging", "build.sh"))
	if err != nil {
		t.Fatal(err)
	}
	twice := func(script string) []string {
		t.Helper()
		differ, err := compare(little(t, filepath.Join(t.TempDir(), "a"), script), little(t, filepath.Join(t.TempDir(), "another", "place"), script))
		if err != nil {
			t.Fatal(err)
		}
		return differ
	}
	if differ := twice(string(script)); len(differ) > 0 {
		t.Errorf("built in two places, these differ: %q", differ)
	}
	loose := strings.ReplaceAll(string(script), "-trimpath ", "")
	if loose == string(script) {
		t.Fatal("build.sh has no -trimpath")
	}
	if differ := twice(loose); len(differ) != len(programs) {
		t.Errorf("with paths in the programs, these differ: %q", differ)
	}
}
