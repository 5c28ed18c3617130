// SPDX-License-Identifier: Apache-2.0

package valise_test

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

const (
	spdx = "SPDX-License-Identifier: Apache-2.0"

	// A file that is longer is two files.
	maxLines = 600

	// A package comment below this length names the package and teaches nothing.
	minComment = 160
)

const (
	taught = "// Package a says in its comment what it is for and what its first call is,\n" +
		"// then warns of what never to do with it, which takes more than one line of\n" +
		"// text, as this one shows by going on for a third.\n"
	header = "// " + spdx + "\n\n"
)

var packageRules = []rule{
	{
		"package comments", checkComments,
		map[string]string{"a/a.go": header + taught + "package a\n", "a/b.go": "package a\n", "a/a_test.go": "package a_test\n"},
		[]sabotage{
			{map[string]string{"a/a.go": "package a\n"}, "a has no package comment"},
			{map[string]string{"a/a.go": "// Package a is a package.\npackage a\n"}, "teaches nothing"},
			{map[string]string{"a/a.go": strings.Replace(taught, "Package a", "This", 1) + "package a\n"}, "does not begin with"},
			{map[string]string{"a/a.go": "package a\n", "a/a_test.go": taught + "package a\n"}, "a has no package comment"},
		},
	},
	{
		"package names", checkNames,
		map[string]string{"wire/a.go": "package wire\n"},
		[]sabotage{
			{map[string]string{"wire/util/a.go": "package util\n"}, "says nothing"},
			{map[string]string{"wire/b_test.go": "package helpers_test\n"}, "says nothing"},
		},
	},
	{
		"license headers", checkHeaders,
		map[string]string{
			"a/a.go": header + "package a\n", "s": "#!/bin/sh\n# " + spdx + "\n", "README": "nothing\n",
			"testdata/p.py": "#!/usr/bin/env python3\n",
		},
		[]sabotage{
			{map[string]string{"a/a.go": "package a\n"}, "a/a.go: first line"},
			{map[string]string{"a/a.go": "// " + spdx + "\npackage a\n"}, "a/a.go: first line"},
			{map[string]string{"a/testdata/a.go": "package a\n"}, "a/testdata/a.go: first line"},
			{map[string]string{"s": "#!/usr/bin/env bash\n"}, "s: second line"},
			{map[string]string{"x.sh": "true\n"}, "x.sh: second line"},
		},
	},
	{
		"file sizes", checkSizes,
		map[string]string{"a/a.go": "package a\n" + strings.Repeat("\n", maxLines-1)},
		[]sabotage{{map[string]string{"a/a.go": "package a\n" + strings.Repeat("\n", maxLines)}, "601 lines"}},
	},
}

func checkComments(p project) (complaints []string) {
	type pkg struct {
		name, comment string
	}
	packages := make(map[string]pkg)
	for f := range p.goFiles {
		if f.test {
			continue
		}
		have := packages[f.dir]
		have.name = f.Name.Name
		if f.Doc != nil && len(f.Doc.Text()) > len(have.comment) {
			have.comment = f.Doc.Text()
		}
		packages[f.dir] = have
	}
	for dir, pkg := range packages {
		begin := "Package " + pkg.name + " "
		if pkg.name == "main" {
			begin = path.Base(dir) + " "
		}
		switch {
		case pkg.comment == "":
			complaints = append(complaints, dir+" has no package comment")
		case !strings.HasPrefix(strings.ToLower(pkg.comment), strings.ToLower(begin)) && !strings.HasPrefix(pkg.comment, "Command "+begin):
			complaints = append(complaints, fmt.Sprintf("%s: the package comment does not begin with %q", dir, begin))
		case len(pkg.comment) < minComment:
			complaints = append(complaints, fmt.Sprintf("%s: a package comment of %d characters teaches nothing", dir, len(pkg.comment)))
		}
	}
	slices.Sort(complaints)
	return complaints
}

var emptyNames = []string{"util", "utils", "common", "types", "helper", "helpers", "core", "misc", "shared"}

func checkNames(p project) (complaints []string) {
	for f := range p.goFiles {
		if name := strings.TrimSuffix(f.Name.Name, "_test"); slices.Contains(emptyNames, name) {
			complaints = append(complaints, fmt.Sprintf("%s: package %s says nothing about what is in it", f.name, name))
		}
	}
	return complaints
}

var shell = regexp.MustCompile(`^#!.*\b(ba|da|)sh\b`)

func checkHeaders(p project) (complaints []string) {
	for name, data := range p.text {
		first, rest, _ := bytes.Cut(data, []byte("\n"))
		second, _, _ := bytes.Cut(rest, []byte("\n"))
		switch {
		case path.Ext(name) == ".go":
			if string(first) != "// "+spdx || len(second) != 0 {
				complaints = append(complaints, fmt.Sprintf("%s: first line is not %q, followed by an empty one", name, "// "+spdx))
			}
		case shell.Match(first) || path.Ext(name) == ".sh":
			if string(second) != "# "+spdx {
				complaints = append(complaints, fmt.Sprintf("%s: second line is not %q", name, "# "+spdx))
			}
		}
	}
	return complaints
}

func checkSizes(p project) (complaints []string) {
	for name, data := range p.text {
		if lines := bytes.Count(data, []byte("\n")); path.Ext(name) == ".go" && lines > maxLines {
			complaints = append(complaints, fmt.Sprintf("%s: %d lines, more than %d", name, lines, maxLines))
		}
	}
	return complaints
}
