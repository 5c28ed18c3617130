// SPDX-License-Identifier: Apache-2.0

package handbook

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Source is what the project's Go files say in strings.
type Source struct {
	Literals []string            // of all files that are no tests
	Codes    map[string][]string // a code that a person may meet: the files that have it
}

var (
	snake  = regexp.MustCompile(`^[a-z]+(_[a-z0-9]+)+$`)
	single = regexp.MustCompile(`^[a-z]+$`)
)

// ReadSource reads the Go files below a folder. Codes are taken from the folders named:
// strings like "mailbox_full" that are no names of numbers, fields or log attributes,
// and whatever is declared as a reason or as an event.
func ReadSource(root string, folders []string) (*Source, error) {
	s := &Source{Codes: make(map[string][]string)}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		switch {
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || name != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		s.literals(f)
		if slices.Contains(folders, filepath.Dir(name)) {
			s.codes(f, name)
		}
		return nil
	})
	return s, err
}

func (s *Source) literals(f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		if text, ok := literal(n); ok {
			s.Literals = append(s.Literals, text)
		}
		return true
	})
}

func literal(n ast.Node) (string, bool) {
	lit, ok := n.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// codes collects the codes of a file.
func (s *Source) codes(f *ast.File, name string) {
	add := func(code string) {
		if !slices.Contains(s.Codes[code], name) {
			s.Codes[code] = append(s.Codes[code], name)
		}
	}
	var stack []ast.Node
	ast.Inspect(f, func(n ast.Node) bool {
		if n == nil {
			stack = stack[:len(stack)-1]
			return true
		}
		if v, ok := n.(*ast.ValueSpec); ok {
			for _, code := range declared(v) {
				add(code)
			}
		}
		if text, ok := literal(n); ok && snake.MatchString(text) && !named(stack, n) {
			add(text)
		}
		stack = append(stack, n)
		return true
	})
}

// declared gives the constants that are called or typed a reason or an event.
func declared(v *ast.ValueSpec) (codes []string) {
	kind := ""
	switch t := v.Type.(type) {
	case *ast.Ident:
		kind = t.Name
	case *ast.SelectorExpr:
		kind = t.Sel.Name
	}
	for i, name := range v.Names {
		if i >= len(v.Values) {
			break
		}
		what := strings.ToLower(name.Name)
		text, ok := literal(v.Values[i])
		reason := kind == "Reason" || strings.HasPrefix(what, "reason")
		if ok && (snake.MatchString(text) || reason && single.MatchString(text)) && (reason || strings.HasPrefix(what, "event")) {
			codes = append(codes, text)
		}
	}
	return codes
}

// written are the packages and methods whose strings name something else: log lines,
// their attributes, and what is measured.
var written = []string{"slog", "prometheus", "Info", "Warn", "Error", "Debug", "Log", "With", "gauge", "counter", "NewDesc", "Attr"}

// named: the string is the name of an attribute, a metric, a field or a column.
func named(stack []ast.Node, n ast.Node) bool {
	for i := len(stack) - 1; i >= 0; i-- {
		switch p := stack[i].(type) {
		case *ast.Field:
			return true // a tag
		case *ast.CallExpr:
			words := called(p)
			return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(written, w) })
		case *ast.FuncLit, *ast.BlockStmt:
			return false
		}
	}
	return false
}

func called(c *ast.CallExpr) (words []string) {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return []string{f.Name}
	case *ast.SelectorExpr:
		words = append(words, f.Sel.Name)
		if x, ok := f.X.(*ast.Ident); ok {
			words = append(words, x.Name)
		}
	}
	return words
}

// Says reports whether some string of the programs holds the parts of a message, in
// their order; an ellipsis stands between them.
func (s *Source) Says(message string) bool {
	parts := strings.Split(message, ellipsis)
	return slices.ContainsFunc(s.Literals, func(text string) bool {
		for _, part := range parts {
			_, after, found := strings.Cut(text, strings.TrimSpace(part))
			if !found {
				return false
			}
			text = after
		}
		return true
	})
}
