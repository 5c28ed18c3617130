// SPDX-License-Identifier: Apache-2.0

package valise_test

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

const promisesPage = "PROMISES.md"

var promiseRules = []rule{{
	"promises have tests", checkPromises,
	map[string]string{
		promisesPage:    "# Promises\n## 1. One\nMechanism: words.\n- something holds: `a.TestOne`, `a/b.FuzzTwo`\n## 2. Two\nMechanism: words.\n- so does this: `.TestRoot`\n",
		"a/a_test.go":   "package a\nimport \"testing\"\nfunc TestOne(t *testing.T) {}\n",
		"a/b/b_test.go": "package b\nimport \"testing\"\nfunc FuzzTwo(f *testing.F) {}\n",
		"root_test.go":  "package root\nimport \"testing\"\nfunc TestRoot(t *testing.T) {}\n",
	},
	[]sabotage{
		{map[string]string{"a/a_test.go": "package a\nimport \"testing\"\nfunc TestOther(t *testing.T) {}\n"}, "no test a.TestOne"},
		{map[string]string{"a/a_test.go": "package a\nimport \"testing\"\ntype s struct{}\nfunc (s) TestOne(t *testing.T) {}\n"}, "no test a.TestOne"},
		{map[string]string{promisesPage: "## 1. One\nMechanism: words.\n- nothing shows this\n"}, "names no test"},
		{map[string]string{promisesPage: "## 1. One\n- `a.TestOne`\n"}, "promise 1 has no line \"Mechanism:\""},
		{map[string]string{promisesPage: "## 1. One\nMechanism: words.\n"}, "promise 1 has no claim"},
		{map[string]string{promisesPage: "Nothing.\n"}, "no promise"},
	},
}}

var (
	promiseHead = regexp.MustCompile(`^## (\d+)\. `)
	testName    = regexp.MustCompile("`([a-z0-9/.-]*)\\.((?:Test|Fuzz)[A-Za-z0-9_]*)`")
)

// checkPromises holds the page of promises to its form: numbered promises,
// each with its mechanism and with claims, each claim with tests that exist.
func checkPromises(p project) (complaints []string) {
	if !slices.Contains(p.files, promisesPage) {
		return []string{"no " + promisesPage}
	}
	tests := testsOf(p)
	number, claims, mechanism := "", 0, false
	closeOne := func() {
		if number != "" && claims == 0 {
			complaints = append(complaints, fmt.Sprintf("%s: promise %s has no claim", promisesPage, number))
		}
		if number != "" && !mechanism {
			complaints = append(complaints, fmt.Sprintf("%s: promise %s has no line \"Mechanism:\"", promisesPage, number))
		}
	}
	for _, claim := range strings.Split(strings.ReplaceAll(string(p.read(promisesPage)), "\n  ", " "), "\n") {
		if m := promiseHead.FindStringSubmatch(claim); m != nil {
			closeOne()
			number, claims, mechanism = m[1], 0, false
		}
		mechanism = mechanism || strings.HasPrefix(claim, "Mechanism: ")
		if number == "" || !strings.HasPrefix(claim, "- ") {
			continue
		}
		claims++
		found := testName.FindAllStringSubmatch(claim, -1)
		if len(found) == 0 {
			complaints = append(complaints, fmt.Sprintf("%s: a claim names no test: %.60s", promisesPage, claim))
		}
		for _, m := range found {
			if !tests[m[1]+"."+m[2]] {
				complaints = append(complaints, fmt.Sprintf("%s: no test %s.%s", promisesPage, m[1], m[2]))
			}
		}
	}
	closeOne()
	if number == "" {
		complaints = append(complaints, promisesPage+": no promise")
	}
	return complaints
}

var testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]*)\(\w+ \*testing\.[TF]\)`)

// testsOf lists the tests and fuzz targets of all packages as "folder.TestName";
// the root's folder is empty.
func testsOf(p project) map[string]bool {
	tests := make(map[string]bool)
	for _, name := range p.files {
		if !strings.HasSuffix(name, "_test.go") {
			continue
		}
		dir := path.Dir(name)
		if dir == "." {
			dir = ""
		}
		for _, m := range testFunc.FindAllStringSubmatch(string(p.read(name)), -1) {
			tests[dir+"."+m[1]] = true
		}
	}
	return tests
}
