// SPDX-License-Identifier: Apache-2.0

package valise_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// A project is the files that a checker looks at: this one, or an invented
// one that a test feeds to the checker to see it complain.
type project struct {
	fsys  fs.FS
	files []string
}

// A checker returns a complaint for each place that breaks its rule.
type checker func(p project) []string

// A case is one rule: this project must keep it, each of the bad projects
// must be told off with the words given, and the good one must not.
type rule struct {
	name  string
	check checker
	good  map[string]string
	bad   []sabotage
}

type sabotage struct {
	files map[string]string // laid over the good project
	want  string            // part of the complaint
}

// TestHouse holds the project to its rules, and each rule to its purpose.
func TestHouse(t *testing.T) {
	p := ours(t)
	rules := slices.Concat(importRules, packageRules, wordRules, documentRules, promiseRules, keyRules, fuzzRules)
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, complaint := range r.check(p) {
				t.Error(complaint)
			}
		})
		t.Run(r.name+" (sabotaged)", func(t *testing.T) {
			if got := r.check(invented(r.good, nil)); len(got) > 0 {
				t.Errorf("the good example is refused: %q", got)
			}
			if len(r.bad) == 0 {
				t.Error("no bad example")
			}
			for _, s := range r.bad {
				got := r.check(invented(r.good, s.files))
				if !slices.ContainsFunc(got, func(c string) bool { return strings.Contains(c, s.want) }) {
					t.Errorf("no complaint with %q about %q, only %q", s.want, s.files, got)
				}
			}
		})
	}
}

// ours lists what git tracks or would track; without git, everything but bin/.
func ours(t *testing.T) project {
	t.Helper()
	p := project{fsys: os.DirFS(".")}
	out, err := exec.Command("git", "ls-files", "-z", "-co", "--exclude-standard").Output()
	if err == nil && len(out) > 0 {
		for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
			if info, err := os.Lstat(name); err == nil && info.Mode().IsRegular() {
				p.files = append(p.files, name)
			}
		}
	} else {
		err := fs.WalkDir(p.fsys, ".", func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && (name == "bin" || name == ".git") {
				return fs.SkipDir
			}
			if err == nil && d.Type().IsRegular() {
				p.files = append(p.files, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(p.files) < 20 {
		t.Fatalf("only %d files found: the rules would be checked against nothing", len(p.files))
	}
	slices.Sort(p.files)
	return p
}

func invented(layers ...map[string]string) project {
	fsys := make(fstest.MapFS)
	for _, layer := range layers {
		for name, text := range layer {
			fsys[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	p := project{fsys: fsys}
	for name := range fsys {
		p.files = append(p.files, name)
	}
	slices.Sort(p.files)
	return p
}

func (p project) read(name string) []byte {
	data, err := fs.ReadFile(p.fsys, name)
	if err != nil {
		panic(fmt.Sprintf("%s is listed and cannot be read: %v", name, err))
	}
	return data
}

// text yields the files that are text.
func (p project) text(yield func(name string, data []byte) bool) {
	for _, name := range p.files {
		data := p.read(name)
		if bytes.IndexByte(data[:min(len(data), 8000)], 0) >= 0 {
			continue
		}
		if !yield(name, data) {
			return
		}
	}
}

// A goFile is one parsed file with the folder of its package ("." at the root).
type goFile struct {
	name, dir string
	test      bool
	fset      *token.FileSet
	*ast.File
}

func (f goFile) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.name, f.fset.Position(n.Pos()).Line)
}

// goFiles yields every Go file whatever its build constraints, except what the
// go command ignores: testdata and names that begin with "_" or ".".
func (p project) goFiles(yield func(goFile) bool) {
	for _, name := range p.files {
		if path.Ext(name) != ".go" || ignored(name) {
			continue
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, name, p.read(name), parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			panic(err)
		}
		f := goFile{name: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), fset: fset, File: parsed}
		if !yield(f) {
			return
		}
	}
}

func ignored(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == "testdata" || part[0] == '_' || part[0] == '.' {
			return true
		}
	}
	return false
}
