// SPDX-License-Identifier: Apache-2.0

package valise_test

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
)

var fuzzRules = []rule{{
	"seeds of fuzz targets", checkSeeds,
	map[string]string{
		"a/a_test.go":               "package a\nfunc FuzzA(f *testing.F) { f.Add(1); f.Fuzz(g) }\nfunc FuzzB(f *testing.F) { seeds(f); f.Fuzz(g) }\nfunc FuzzC(f *testing.F) { f.Fuzz(g) }\n",
		"a/b_test.go":               "package a\nfunc seeds(f *testing.F) { f.Add(2) }\n",
		"a/testdata/fuzz/FuzzC/one": "go test fuzz v1\n",
		"c/a_test.go":               "package c\nfunc FuzzF(f *testing.F) { all(f) }\nfunc all(f *testing.F) { f.Add(1); f.Fuzz(g) }\n",
	},
	[]sabotage{
		{map[string]string{"b/a_test.go": "package b\nfunc FuzzD(f *testing.F) { f.Fuzz(g) }\n"}, "b/a_test.go:2: FuzzD has no seed"},
		{map[string]string{"a/b_test.go": "package a\nfunc seeds(f *testing.F) {}\n"}, "FuzzB has no seed"},
		{map[string]string{"a/c_test.go": "package a\nfunc FuzzE(f *testing.F) { f.Add(1) }\n"}, "FuzzE never calls Fuzz"},
	},
}}

// checkSeeds: a fuzz target starts from something and fuzzes it: by f.Add and
// f.Fuzz in it or in a function of its package that it hands f to, or from a
// corpus beside it.
func checkSeeds(p project) (complaints []string) {
	does := make(map[string]bool) // folder/function.method
	var targets []goFile
	for f := range p.goFiles {
		if !f.test {
			continue
		}
		targets = append(targets, f)
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			for _, name := range []string{"Add", "Fuzz"} {
				if calls(fn, func(call *ast.CallExpr) bool { return method(call, name) }) {
					does[f.dir+"/"+fn.Name.Name+"."+name] = true
				}
			}
		}
	}
	for _, f := range targets {
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Fuzz") || len(fn.Type.Params.List) != 1 || len(fn.Type.Params.List[0].Names) != 1 {
				continue
			}
			param := fn.Type.Params.List[0].Names[0].Name
			reaches := func(name string) bool {
				return does[f.dir+"/"+fn.Name.Name+"."+name] || calls(fn, func(call *ast.CallExpr) bool {
					callee, ok := call.Fun.(*ast.Ident)
					return ok && does[f.dir+"/"+callee.Name+"."+name] && slices.ContainsFunc(call.Args, func(arg ast.Expr) bool {
						ident, ok := arg.(*ast.Ident)
						return ok && ident.Name == param
					})
				})
			}
			if !reaches("Add") && !p.has(path.Join(f.dir, "testdata/fuzz", fn.Name.Name)) {
				complaints = append(complaints, fmt.Sprintf("%s: %s has no seed", f.at(fn), fn.Name.Name))
			}
			if !reaches("Fuzz") {
				complaints = append(complaints, fmt.Sprintf("%s: %s never calls Fuzz", f.at(fn), fn.Name.Name))
			}
		}
	}
	return complaints
}

func calls(fn *ast.FuncDecl, match func(*ast.CallExpr) bool) (found bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && match(call) {
			found = true
		}
		return !found
	})
	return found
}

func method(call *ast.CallExpr, name string) bool {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	return ok && selector.Sel.Name == name
}
