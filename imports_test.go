// SPDX-License-Identifier: Apache-2.0

package valise_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport is the import table of DESIGN.md, Section 3. A key that ends in
// "/..." covers the package and everything below it; the longest key wins.
// What stands here is allowed beside a package's own subpackages. Tests may
// import everything.
var mayImport = map[string][]string{
	".":             {},
	"wire/...":      {},
	"transport/...": {"wire"},
	"hsm":           {},
	"mls/...":       {},
	"attest/...":    {},
	"identity/...":  {},

	"statement/...": {"identity", "internal/jws"},
	"ledger/...":    {"identity"},
	"manifest/...":  {"identity", "internal/jws"},
	"bulletin/...":  {"identity", "statement", "manifest", "internal/jws"},
	"record/...":    {"identity", "statement", "ledger", "manifest", "attest"},
	"policy/...":    {"identity", "statement"},
	"policy/rules":  {"identity", "policy"},
	"policy/bundle": {"identity", "statement", "policy", "policy/spif", "policy/rules"},

	"enroll/...": {"attest", "identity", "statement", "manifest", "bulletin", "bulletin/stream", "ledger", "record", "policy", "internal/callers", "internal/store/authority"},
	// The CA decides from the record of this process, and records through it.
	"enroll/ca":    {"attest", "identity", "statement", "manifest", "bulletin", "bulletin/stream", "ledger", "record", "policy", "internal/callers", "internal/store/authority", "enroll/book"},
	"enroll/feed":  {"attest", "identity", "statement", "manifest", "bulletin", "bulletin/stream", "ledger", "record", "policy", "internal/callers", "internal/store/authority", "enroll/book"},
	"gateway/...":  {"wire", "transport", "mls", "identity", "statement", "manifest", "bulletin", "ledger", "policy", "policy/bundle", "policy/rules"},
	"gateway/feed": {"identity", "statement", "manifest", "bulletin", "bulletin/stream", "ledger", "internal/store"},
	// A commit's step and its fan-out, and a file's record, are submissions of
	// the mailbox store.
	"gateway/group":  {"wire", "transport", "mls", "identity", "statement", "bulletin", "ledger", "policy", "gateway/mailbox"},
	"gateway/bucket": {"gateway/blob"},
	"gateway/blob":   {"wire", "transport", "mls", "identity", "statement", "bulletin", "ledger", "policy", "gateway/mailbox"},
	"client/...":     {"wire", "transport", "mls", "attest", "identity", "statement", "manifest", "bulletin", "ledger", "policy", "policy/bundle", "policy/rules", "policy/spif"},
	"client/vault": {
		"wire", "mls", "attest", "identity", "statement", "manifest", "bulletin", "ledger", "policy", "internal/store",
	},

	"hsm/piv":    {"hsm"},
	"hsm/pkcs11": {"hsm"},
	"hsm/tpm":    {"hsm"},

	"internal/store/relay/journal": {},

	"internal/store":           {},
	"internal/store/relay":     {"internal/store", "gateway/mailbox"},
	"internal/store/authority": {"internal/store", "identity", "statement", "ledger"},
	"internal/jws":             {},
	"policies":                 {},
	"internal/keys":            {"hsm", "hsm/..."},
	"internal/p11relay":        {},
	"internal/memory":          {},
	"internal/callers":         {},
	"internal/daemon":          {"internal/callers", "internal/syslog"},
	"internal/syslog":          {},
	"internal/leak":            {},
	"internal/check":           {"hsm", "internal/daemon", "internal/store", "internal/syslog"},
	"internal/testcard":        {},
	"internal/disk":            {},
	"internal/postgres":        {},
	"internal/patroni":         {"internal/freeport", "internal/postgres"},
	"internal/wan":             {},
	"internal/warp":            {},
	"internal/freeport":        {},
	"internal/oldversion":      {},
	"internal/handbook":        {},
	"internal/handbook/land":   {"internal/handbook", "internal/stage"},
	"internal/testcard/reader": {"internal/testcard"},
	"internal/figure":          {},
	"internal/benches":         {"internal/figure"},
	"internal/mutants":         {},
	"internal/testsum":         {},
	"internal/mlsvectors":      {},
	"interop":                  {},
	"endtoend":                 {},

	// Programs and what starts real parts for tests: everything.
	"cmd/...":              {"..."},
	"demo/...":             {"..."},
	"judges/...":           {"..."},
	"soak":                 {"..."},
	"soak/check-soak":      {},
	"bench/...":            {"..."},
	"internal/testenv/...": {"..."},
	"internal/stage/...":   {"..."},
	"enroll/enrolltest":    {"..."},
	"packaging":            {},
	"packaging/manual":     {},
	"packaging/sbom":       {},
	"packaging/release":    {"..."},
}

// hardware holds the packages with cgo, cgoMay those that may reach it through
// what they import, cgoModules the modules that bring it and where they belong.
var (
	hardware   = []string{"hsm/piv", "hsm/pkcs11"}
	cgoMay     = []string{"hsm/piv", "hsm/pkcs11", "internal/keys", "cmd/...", "demo/...", "judges/...", "bench/...", "soak", "internal/testenv/...", "internal/stage/...", "enroll/enrolltest", "packaging/release"}
	cgoModules = map[string]string{
		"github.com/go-piv/piv-go/v2/piv": "hsm/piv",
		"github.com/miekg/pkcs11":         "hsm/pkcs11",
	}
)

var importRules = []rule{
	{
		"import table", checkImports,
		map[string]string{
			"identity/a.go":      "package identity\n",
			"hsm/a.go":           "package hsm\n",
			"hsm/piv/a.go":       "package piv\nimport _ \"valise/hsm\"\n",
			"enroll/a.go":        "package enroll\nimport (\n_ \"valise/identity\"\n_ \"valise/enroll/ca\"\n)\n",
			"enroll/ca/a.go":     "package ca\nimport _ \"fmt\"\n",
			"enroll/a_test.go":   "package enroll\nimport _ \"valise/hsm/piv\"\n",
			"cmd/valise/main.go": "package main\nimport _ \"valise/internal/keys\"\n",
			"internal/keys/a.go": "package keys\nimport _ \"valise/hsm/piv\"\n",
		},
		[]sabotage{
			{map[string]string{"identity/a.go": "package identity\nimport _ \"valise/hsm\"\n"}, "identity/a.go:2: identity may not import hsm"},
			{map[string]string{"enroll/a.go": "package enroll\nimport _ \"valise/hsm/piv\"\n"}, "may not import hsm/piv"},
			{map[string]string{"enroll/ca/a.go": "package ca\nimport _ \"valise/enroll\"\n"}, "may not import enroll"},
			{map[string]string{"enroll/ca/a.go": "package ca\nimport _ \"valise/enroll/acme\"\n"}, "may not import enroll/acme"},
			{map[string]string{"gateway/a.go": "package gateway\nimport _ \"valise/enroll\"\n"}, "may not import enroll"},
			{map[string]string{"client/a.go": "package client\nimport _ \"valise/internal/store\"\n"}, "may not import internal/store"},
			{map[string]string{"hsm/a.go": "package hsm\nimport _ \"valise/hsm/piv\"\n", "hsm/b.go": "package hsm\nimport _ \"valise/mls\"\n"}, "may not import mls"},
			{map[string]string{"internal/new/a.go": "package new\n"}, "no row in the import table"},
		},
	},
	{
		"cgo stays with the hardware", checkCgo,
		map[string]string{
			"hsm/pkcs11/a.go": "package pkcs11\nimport _ \"github.com/miekg/pkcs11\"\n",
			"hsm/piv/a.go":    "package piv\nimport \"C\"\n",
			"mls/a_test.go":   "package mls\nimport _ \"github.com/miekg/pkcs11\"\n",
		},
		[]sabotage{
			{map[string]string{"mls/a.go": "package mls\nimport \"C\"\n"}, "cgo belongs into hsm/piv and hsm/pkcs11 alone"},
			{map[string]string{"hsm/piv/a.go": "package piv\nimport _ \"github.com/miekg/pkcs11\"\n"}, "belongs into hsm/pkcs11"},
			{map[string]string{"client/a.go": "package client\nimport _ \"github.com/go-piv/piv-go/v2/piv\"\n"}, "belongs into hsm/piv"},
		},
	},
}

// row finds the longest key of the table that covers a folder.
func row(dir string) (allowed []string, ok bool) {
	if allowed, ok := mayImport[dir]; ok {
		return allowed, true
	}
	for up := dir; up != "."; up = path.Dir(up) {
		if allowed, ok := mayImport[up+"/..."]; ok {
			return allowed, true
		}
	}
	return nil, false
}

func covers(list []string, dir string) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		above, tree := strings.CutSuffix(entry, "...")
		above = strings.TrimSuffix(above, "/")
		return entry == dir || tree && (above == "" || dir == above || strings.HasPrefix(dir, above+"/"))
	})
}

func checkImports(p project) (complaints []string) {
	for f := range p.goFiles {
		if f.test {
			continue
		}
		allowed, ok := row(f.dir)
		if !ok {
			complaints = append(complaints, fmt.Sprintf("%s: %s has no row in the import table: give it one here and in DESIGN.md", f.name, f.dir))
			continue
		}
		for _, spec := range f.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			dir, own := strings.CutPrefix(imported, "valise/")
			if !own || strings.HasPrefix(dir, f.dir+"/") || covers(allowed, dir) {
				continue
			}
			complaints = append(complaints, fmt.Sprintf("%s: %s may not import %s", f.at(spec), f.dir, dir))
		}
	}
	return complaints
}

func checkCgo(p project) (complaints []string) {
	for f := range p.goFiles {
		for _, spec := range f.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			if imported == "C" && !slices.Contains(hardware, f.dir) {
				complaints = append(complaints, fmt.Sprintf("%s: cgo belongs into %s alone", f.at(spec), strings.Join(hardware, " and ")))
			}
			if home, ok := cgoModules[imported]; ok && !f.test && f.dir != home && !covers([]string{"judges/...", "bench/..."}, f.dir) {
				complaints = append(complaints, fmt.Sprintf("%s: %s belongs into %s alone", f.at(spec), imported, home))
			}
		}
	}
	return complaints
}

// A listed is what go list tells of a package.
type listed struct {
	ImportPath string
	Standard   bool
	CgoFiles   []string
	Deps       []string
}

func checkReach(packages []listed) (complaints []string) {
	cgo := make(map[string]bool)
	for _, pkg := range packages {
		cgo[pkg.ImportPath] = !pkg.Standard && len(pkg.CgoFiles) > 0
	}
	for _, pkg := range packages {
		dir, own := strings.CutPrefix(pkg.ImportPath, "valise/")
		if !own || covers(cgoMay, dir) {
			continue
		}
		for _, dep := range pkg.Deps {
			if cgo[dep] {
				complaints = append(complaints, fmt.Sprintf("%s reaches cgo through %s", dir, dep))
			}
		}
	}
	return complaints
}

// Everything but the hardware's own packages and the programs builds without
// cgo, through whatever it imports.
func TestCgoReach(t *testing.T) {
	cmd := exec.Command("go", "list", "-e", "-deps", "-json=ImportPath,Standard,CgoFiles,Deps", "./...")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []listed
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var pkg listed
		err := decoder.Decode(&pkg)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, pkg)
	}
	for _, complaint := range checkReach(packages) {
		t.Error(complaint)
	}
	// The same list, with one package moved out of its place, must be refused.
	for i := range packages {
		if packages[i].ImportPath == "valise/hsm/piv" {
			packages[i].ImportPath = "valise/client"
		}
	}
	if len(checkReach(packages)) == 0 {
		t.Error("a client that reaches cgo goes unnoticed")
	}
}

// An official's command builds for Windows, where there is no cgo for it.
func TestWindowsBuild(t *testing.T) {
	cmd := exec.Command("go", "build", "-o", t.TempDir(), "./cmd/valise")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOOS=windows", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
