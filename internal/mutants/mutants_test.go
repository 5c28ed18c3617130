// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const code = `package gate

// Open lets in who has a pass.
func Open(pass bool) string {
	if !pass {
		return "refused"
	}
	return "welcome"
}
`

const tests = `package gate

import "testing"

func TestRefuses(t *testing.T) {
	if Open(false) != "refused" {
		t.Error("no pass, and in")
	}
}

func TestWelcomes(t *testing.T) {
	if Open(true) != "welcome" {
		t.Error("a pass, and out")
	}
}

func TestSkips(t *testing.T) {
	if Open(false) != "refused" {
		t.Skip("not today")
	}
}

func TestRed(t *testing.T) { t.Error("always") }
`

const diff = `diff --git a/gate/gate.go b/gate/gate.go
--- a/gate/gate.go
+++ b/gate/gate.go
@@ -2,7 +2,7 @@

 // Open lets in who has a pass.
 func Open(pass bool) string {
-	if !pass {
+	if !pass && CONDITION {
 		return "refused"
 	}
 	return "welcome"
`

// project writes a small module and says where it is. Copies go to a cache of
// the test's own; what Go built before stays usable.
func project(t *testing.T, patches map[string]string) string {
	t.Helper()
	gocache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOCACHE", strings.TrimSpace(string(gocache)))
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	root := t.TempDir()
	files := map[string]string{"go.mod": "module m\n\ngo 1.26\n", "gate/gate.go": code, "gate/gate_test.go": tests}
	for name, text := range patches {
		files["mutants/"+name+".patch"] = text
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
	return root
}

func patch(test, condition string) string {
	return "test: " + test + "\nremoves: the check\n\n" + strings.ReplaceAll(diff, "CONDITION", condition)
}

func TestHunt(t *testing.T) {
	root := project(t, map[string]string{
		"killed":    patch("./gate -run ^TestRefuses$", "false"),
		"quoted":    patch("./gate -run '^Test(Refuses)$'", "false"),
		"survivor":  patch("./gate -run ^TestWelcomes$", "false"),
		"skipping":  patch("./gate -run ^TestSkips$", "false"),
		"nonsense":  patch("./gate -run ^TestRefuses$", "nonsense"),
		"elsewhere": strings.ReplaceAll(patch("./gate -run ^TestRefuses$", "false"), "if !pass", "if !ticket"),
	})
	mutants, err := load(filepath.Join(root, "mutants"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	r, err := newRunner(root, 2, time.Minute, &out)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if _, err := newRunner(root, 1, time.Minute, &out); err == nil {
		t.Error("a second run works in the same copies")
	}
	if err := r.baseline(t.Context(), mutants); err != nil {
		t.Fatal(err)
	}
	if err := r.run(t.Context(), mutants); err == nil {
		t.Error("survivors are no error")
	}
	for _, want := range []string{
		"killed    killed", "killed    quoted",
		"SURVIVED  survivor", "is still green",
		"SURVIVED  skipping", "TestSkips skipped",
		"SURVIVED  nonsense", "does not build",
		"SURVIVED  elsewhere", "does not apply",
		"mutants: 2 killed, 4 survived\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	// Whatever happened, both copies are as they were.
	for range 2 {
		tree := <-r.trees
		if got, err := os.ReadFile(filepath.Join(tree.dir, "gate/gate.go")); err != nil || string(got) != code {
			t.Errorf("%s: left changed: %v", tree.dir, err)
		}
	}
	if t.Failed() {
		t.Logf("output:\n%s", out.String())
	}
}

// A test that is red, absent or skipped without any patch proves nothing.
func TestBaselineRefuses(t *testing.T) {
	for test, want := range map[string]string{
		"./gate -run ^TestRed$":     "fails: TestRed",
		"./gate -run ^TestAbsent$":  "no such test",
		"./gate -run ^TestAbsent/x": "no such test",
		"./nowhere -run ^TestRed$":  "unpatched",
	} {
		root := project(t, map[string]string{"one": patch(test, "false"), "two": patch("./gate -run ^TestRefuses$", "false")})
		mutants, err := load(filepath.Join(root, "mutants"), nil)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		r, err := newRunner(root, 1, time.Minute, &out)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.baseline(t.Context(), mutants); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", test, err, want)
		}
		r.close()
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no test":        "removes: x\n" + diff,
		"no reason":      "test: ./gate -run ^TestRefuses$\n" + diff,
		"no package":     "test: gate -run ^TestRefuses$\nremoves: x\n" + diff,
		"more arguments": "test: ./gate -run ^TestRefuses$ -short\nremoves: x\n" + diff,
		"below the diff": diff + "test: ./gate -run ^TestRefuses$\nremoves: x\n",
	} {
		root := project(t, map[string]string{"bad": text})
		if _, err := load(filepath.Join(root, "mutants"), nil); err == nil {
			t.Errorf("%s: was accepted", name)
		}
	}
	if _, err := load(filepath.Join(project(t, nil), "mutants"), nil); err == nil {
		t.Error("an empty folder was accepted")
	}
	root := project(t, map[string]string{"one": patch("./gate -run ^TestRefuses$", "false")})
	if _, err := load(filepath.Join(root, "mutants"), []string{"two"}); err == nil {
		t.Error("a patch that is not there was found")
	}
}

// What changes in the project reaches the copies of the next run, and what
// disappeared from it disappears from them.
func TestTreeFollows(t *testing.T) {
	root := project(t, map[string]string{"one": patch("./gate -run ^TestRefuses$", "false")})
	var out strings.Builder
	for step := range 2 {
		r, err := newRunner(root, 1, time.Minute, &out)
		if err != nil {
			t.Fatal(err)
		}
		tree := <-r.trees
		got, err := os.ReadFile(filepath.Join(tree.dir, "gate/gate.go"))
		if _, gone := os.Stat(filepath.Join(tree.dir, "gate/gate_test.go")); err != nil || step == 1 && (gone == nil || string(got) != "package gate\n") {
			t.Errorf("step %d: %q, %v, %v", step, got, err, gone)
		}
		r.close()
		if err := os.WriteFile(filepath.Join(root, "gate/gate.go"), []byte("package gate\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(root, "gate/gate_test.go")); err != nil && step == 0 {
			t.Fatal(err)
		}
	}
}
