// SPDX-License-Identifier: Apache-2.0

package valise_test

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var documentRules = []rule{
	{
		"links", checkLinks,
		map[string]string{
			"a.md":   "# One title\n[x](b/c.md), [y](#one-title), [z](https://example.org), [w](b/c.md#11-codes-and-more)\n```\n[no](link)\n```\n",
			"b/c.md": "## 1.1. `Codes` and more\n[up](../a.md) [folder](../b/)\n",
		},
		[]sabotage{
			{map[string]string{"a.md": "[x](missing.md)\n"}, "a.md: no missing.md"},
			{map[string]string{"a.md": "[x](b/c.md#nowhere)\n"}, "a.md: no heading for b/c.md#nowhere"},
			{map[string]string{"b/c.md": "[x](../../up.md)\n"}, "no ../../up.md"},
			{map[string]string{"b/c.md": "[x](a.md)\n"}, "b/c.md: no a.md"},
		},
	},
	{
		"sections of spec/", checkSections,
		map[string]string{"spec/wire.md": "# Wire\n## 1. One\n### 1.1. Sub\n### 1.2 Sub\n## 2. Two\n### 2.1. Sub\n```\n## not a heading\n```\n"},
		[]sabotage{
			{map[string]string{"spec/wire.md": "## One\n"}, "has no number"},
			{map[string]string{"spec/wire.md": "## 1. One\n## 3. Three\n"}, "comes after 1"},
			{map[string]string{"spec/wire.md": "## 1. One\n### 1.1. A\n### 1.3. B\n"}, "comes after 1.1"},
			{map[string]string{"spec/wire.md": "## 1. One\n### 2.1. A\n"}, "comes after 1"},
		},
	},
	{
		"citations of spec/", checkCitations,
		map[string]string{
			"spec/wire.md": "## 1. One\n### 1.1. Sub\n", "wire/a.go": "package wire\n// See spec/wire.md, Section 1.1.\n// See spec/wire.md,\n// Section 1.\n",
		},
		[]sabotage{
			{map[string]string{"wire/a.go": "package wire\n// spec/wire.md, Section 1.2\n"}, "no Section 1.2 in spec/wire.md"},
			{map[string]string{"wire/a.go": "package wire\n// (spec/wire.md, section 4)\n"}, "no Section 4 in spec/wire.md"},
			{map[string]string{"wire/a.go": "package wire\n// spec/other.md says\n"}, "no spec/other.md"},
		},
	},
	{
		"a reason for every dependency", checkDependencies,
		map[string]string{
			"go.mod":    "module m\n\nrequire (\n\texample.org/a v1.0.0\n\texample.org/b v1.0.0 // indirect\n)\n",
			"DESIGN.md": "| x | example.org/a | because |\n",
		},
		[]sabotage{
			{map[string]string{"go.mod": "require example.org/c/v2 v2.0.0\n"}, "example.org/c/v2"},
			{map[string]string{"DESIGN.md": "example.org/a\n"}, "example.org/a"},
			{map[string]string{"DESIGN.md": "| x | example.org/a | |\n"}, "example.org/a"},
		},
	},
}

var (
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	fence   = regexp.MustCompile("(?ms)^[ \t]*```.*?^[ \t]*```[ \t]*$")
	heading = regexp.MustCompile(`(?m)^(#{1,6}) +(.+?) *#*$`)
	number  = regexp.MustCompile(`^(\d+(?:\.\d+)*)\.? `)
	cited   = regexp.MustCompile(`spec/([\w-]+\.md)(?:,?[\s/#*]+[Ss]ection\s+(\d+(?:\.\d+)*))?`)
	require = regexp.MustCompile(`(?m)^(?:require )?\t?([\w.-]+\.[\w.-]+/\S+) v\S+$`)
	notSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// markdown yields every Markdown file without its fenced code.
func (p project) markdown(yield func(name, text string) bool) {
	for name, data := range p.text {
		if path.Ext(name) == ".md" && !yield(name, fence.ReplaceAllString(string(data), "")) {
			return
		}
	}
}

func checkLinks(p project) (complaints []string) {
	slugs := make(map[string][]string)
	for name, text := range p.markdown {
		for _, h := range heading.FindAllStringSubmatch(text, -1) {
			slug := strings.ReplaceAll(strings.ToLower(notSlug.ReplaceAllString(h[2], "")), " ", "-")
			slugs[name] = append(slugs[name], slug)
		}
	}
	for name, text := range p.markdown {
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			target := match[1]
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			file, anchor, hasAnchor := strings.Cut(target, "#")
			to := path.Join(path.Dir(name), file)
			if file == "" {
				to = name
			}
			if !p.has(to) {
				complaints = append(complaints, fmt.Sprintf("%s: no %s", name, target))
			} else if hasAnchor && !slices.Contains(slugs[to], anchor) {
				complaints = append(complaints, fmt.Sprintf("%s: no heading for %s", name, target))
			}
		}
	}
	return complaints
}

// has says whether the project has the file, or files below the folder.
func (p project) has(name string) bool {
	return slices.ContainsFunc(p.files, func(f string) bool { return f == name || strings.HasPrefix(f, name+"/") })
}

// checkSections: below the title, headings of a specification are numbered
// from 1 without gaps, so that code can cite them.
func checkSections(p project) (complaints []string) {
	for name, text := range p.markdown {
		if path.Dir(name) != "spec" || path.Base(name) == "README.md" {
			continue
		}
		last := []int{0}
		for _, h := range heading.FindAllStringSubmatch(text, -1) {
			depth := len(h[1]) - 1
			if depth == 0 {
				continue
			}
			match := number.FindStringSubmatch(h[2] + " ")
			if match == nil {
				complaints = append(complaints, fmt.Sprintf("%s: heading %q has no number", name, h[2]))
				continue
			}
			got := parseNumber(match[1])
			if !follows(last, got) || len(got) != depth {
				complaints = append(complaints, fmt.Sprintf("%s: section %s comes after %s", name, match[1], formatNumber(last)))
			}
			last = got
		}
	}
	return complaints
}

// follows: the next one at some level that is open, or the first one below.
func follows(last, got []int) bool {
	if len(got) == len(last)+1 {
		return slices.Equal(got[:len(last)], last) && got[len(last)] == 1
	}
	if len(got) > len(last) {
		return false
	}
	top := len(got) - 1
	return slices.Equal(got[:top], last[:top]) && got[top] == last[top]+1
}

func parseNumber(text string) (n []int) {
	for part := range strings.SplitSeq(text, ".") {
		i, _ := strconv.Atoi(part)
		n = append(n, i)
	}
	return n
}

func formatNumber(n []int) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(n), "[]"), " ", ".")
}

func checkCitations(p project) (complaints []string) {
	sections := make(map[string][]string)
	for name, text := range p.markdown {
		if path.Dir(name) != "spec" {
			continue
		}
		sections[name] = []string{}
		for _, h := range heading.FindAllStringSubmatch(text, -1) {
			if match := number.FindStringSubmatch(h[2] + " "); match != nil {
				sections[name] = append(sections[name], match[1])
			}
		}
	}
	for name, data := range p.text {
		if path.Ext(name) != ".go" || strings.HasPrefix(name, "documents_test") {
			continue
		}
		for _, match := range cited.FindAllStringSubmatch(string(data), -1) {
			file, section := "spec/"+match[1], match[2]
			have, ok := sections[file]
			switch {
			case !ok:
				complaints = append(complaints, fmt.Sprintf("%s: no %s", name, file))
			case section != "" && !slices.Contains(have, section):
				complaints = append(complaints, fmt.Sprintf("%s: no Section %s in %s", name, section, file))
			}
		}
	}
	return complaints
}

// checkDependencies: every direct requirement has a row in DESIGN.md whose
// last column says why it beats the alternatives.
func checkDependencies(p project) (complaints []string) {
	rows := strings.Split(string(p.read("DESIGN.md")), "\n")
	for _, match := range require.FindAllStringSubmatch(string(p.read("go.mod")), -1) {
		reasoned := slices.ContainsFunc(rows, func(row string) bool {
			cells := strings.Split(strings.Trim(strings.TrimSpace(row), "|"), "|")
			return strings.HasPrefix(row, "|") && len(cells) >= 3 &&
				slices.Contains(strings.Fields(strings.NewReplacer("`", "", ",", " ").Replace(cells[1])), match[1]) &&
				strings.TrimSpace(cells[len(cells)-1]) != ""
		})
		if !reasoned {
			complaints = append(complaints, fmt.Sprintf("go.mod requires %s: DESIGN.md's table of dependencies does not say why", match[1]))
		}
	}
	return complaints
}
