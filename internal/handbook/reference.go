// SPDX-License-Identifier: Apache-2.0

package handbook

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Update replaces the part of a page between <!-- NAME --> and <!-- end of NAME -->, if
// write is set; otherwise the part must be that text already.
func Update(page, name, text string, write bool) error {
	data, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	first, last := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->"
	before, rest, ok := strings.Cut(string(data), first)
	old, after, closed := strings.Cut(rest, last)
	switch {
	case !ok || !closed:
		return fmt.Errorf("%s has no part %q", page, name)
	case old == text:
		return nil
	case write:
		return os.WriteFile(page, []byte(before+first+text+last+after), 0o644)
	}
	return fmt.Errorf("%s is behind at %q: run this test again with VALISE_UPDATE=1, and read what it has changed", page, name)
}

// Commands describes a program's commands as a table, from what the program knows of
// itself.
func Commands(app *kong.Application) string {
	var b strings.Builder
	b.WriteString("| Command | Does | Options |\n|---|---|---|\n")
	for _, leaf := range app.Leaves(true) {
		var words []string
		for n := leaf; n.Type != kong.ApplicationNode; n = n.Parent {
			words = append([]string{n.Name}, words...)
		}
		for _, arg := range leaf.Positional {
			words = append(words, arg.Summary())
		}
		fmt.Fprintf(&b, "| `%s %s` | %s | %s |\n", app.Name, strings.Join(words, " "), cell(leaf.Help), options(leaf))
	}
	return b.String()
}

func options(n *kong.Node) string {
	var all []string
	for _, group := range n.AllFlags(true) {
		for _, f := range group {
			if slices.Contains([]string{"help", "home", "version"}, f.Name) {
				continue // of every command
			}
			text := "`--" + f.Name
			if !f.IsBool() {
				text += " " + f.FormatPlaceHolder()
			}
			text += "`"
			if f.Required {
				text += " (needed)"
			}
			all = append(all, text)
		}
	}
	return cell(strings.Join(all, " "))
}

func cell(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}

// Keys describes the keys of a configuration as a table, from the type that it is read
// into: each field's toml name and comment. Types of its fields are looked up in the
// files too.
func Keys(typeName string, files ...string) (string, error) {
	types := make(map[string]*ast.StructType)
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return "", err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					types[spec.Name.Name] = s
				}
			}
			return true
		})
	}
	if types[typeName] == nil {
		return "", fmt.Errorf("there is no type %s", typeName)
	}
	rows := keyRows(types, types[typeName], "")
	if len(rows) == 0 {
		return "", fmt.Errorf("the type %s has no keys", typeName)
	}
	return "| Key | Meaning |\n|---|---|\n" + strings.Join(rows, ""), nil
}

func keyRows(types map[string]*ast.StructType, s *ast.StructType, prefix string) (rows []string) {
	about, trailing := "", false
	for _, f := range s.Fields.List {
		if f.Tag == nil || len(f.Names) == 0 {
			continue
		}
		key := reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("toml")
		if key == "" || key == "-" {
			continue
		}
		// A comment above is about the keys below it too, as far as they have none.
		switch {
		case f.Doc != nil:
			about = cell(f.Doc.Text())
		case f.Comment != nil:
			about = cell(f.Comment.Text())
		case trailing:
			about = ""
		}
		trailing = f.Doc == nil && f.Comment != nil
		inner, list := typeOf(types, f.Type)
		if inner != nil {
			name := prefix + key + "."
			if list {
				name = prefix + key + "[]."
			}
			rows = append(rows, keyRows(types, inner, name)...)
			continue
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s |\n", prefix+key, about))
	}
	return rows
}

// typeOf finds the structure that a field holds, if it is one that is known.
func typeOf(types map[string]*ast.StructType, e ast.Expr) (s *ast.StructType, list bool) {
	switch t := e.(type) {
	case *ast.Ident:
		return types[t.Name], false
	case *ast.SelectorExpr:
		return types[t.Sel.Name], false
	case *ast.ArrayType:
		s, _ = typeOf(types, t.Elt)
		return s, s != nil
	}
	return nil, false
}
