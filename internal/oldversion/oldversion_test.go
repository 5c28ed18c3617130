// SPDX-License-Identifier: Apache-2.0

package oldversion_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"valise/internal/oldversion"
	"valise/internal/testenv"
)

// repository makes one with a program that says "one" in its first commit and "two" in
// its tree, and returns the name of that commit.
func repository(t *testing.T) (root, first string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		testenv.Need(t, "git", "git")
	}
	root = t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	write(t, root, "go.mod", "module example.org/program\n\ngo 1.26\n")
	write(t, root, "cmd/program/main.go", "package main\n\nfunc main() { print(word) }\n")
	write(t, root, "cmd/program/word.go", "package main\n\nconst word = \"one\"\n")
	git("init", "-q")
	git("add", ".")
	git("-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "-q", "-m", "one")
	write(t, root, "cmd/program/word.go", "package main\n\nconst word = \"two\"\n")
	return root, git("rev-parse", "HEAD")
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func says(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(dir, "program")).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// The program of an earlier commit is built from that commit, once, whatever the tree
// says now; and a version that does not exist yet from the tree and what is laid over it.
func TestBuild(t *testing.T) {
	root, first := repository(t)
	// From any folder of the repository, as tests have their package's.
	cfg := oldversion.Config{Commit: first, Root: filepath.Join(root, "cmd"), Cache: t.TempDir(), Log: t.Output()}
	var dirs [2]string
	var wg sync.WaitGroup
	for i := range dirs {
		wg.Go(func() {
			var err error
			if dirs[i], err = oldversion.Build(t.Context(), cfg); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if dirs[0] != dirs[1] || says(t, dirs[0]) != "one" {
		t.Errorf("%v say %q", dirs, says(t, dirs[0]))
	}
	next := cfg
	next.Commit, next.Overlay = "", map[string][]byte{
		"cmd/program/word.go": []byte("package main\n\nconst word = \"three\" + more\n"),
		"cmd/program/more.go": []byte("package main\n\nconst more = \"!\"\n"),
	}
	dir, err := oldversion.Build(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	if got := says(t, dir); got != "three!" {
		t.Errorf("the next version says %q", got)
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.Cache, "part-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestNoHistory(t *testing.T) {
	root, _ := repository(t)
	cfg := oldversion.Config{Commit: strings.Repeat("a", 40), Root: root, Cache: t.TempDir()}
	if _, err := oldversion.Build(context.Background(), cfg); !errors.Is(err, oldversion.ErrNoHistory) {
		t.Errorf("got %v", err)
	}
	cfg.Commit = ""
	if _, err := oldversion.Build(t.Context(), cfg); err == nil {
		t.Error("built without being told what")
	}
	cfg.Overlay = map[string][]byte{"../outside.go": nil}
	if _, err := oldversion.Build(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "not in the module") {
		t.Errorf("got %v", err)
	}
}
