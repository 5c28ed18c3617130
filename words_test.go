// SPDX-License-Identifier: Apache-2.0

package valise_test

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// forbidden lists what must stand in no file of the project, and why. The
// words are put together here, so that this file does not hold them itself.
var forbidden = []struct{ pattern, why string }{
	{`/wor` + `k/\w`, "a path of one machine"},
	{`/tmp/val` + `ise\b`, "a path of one machine"},
	{`/ro` + `ot/\w`, "a path of one machine"},
	{`/ho` + `me/\w`, "a path of one machine"},
	{`\bfar` + `m-\w`, "a tool of one workplace"},
	{`\biss` + `ues (show|new|list|close|note)\b`, "a tool of one workplace"},
	{`\bproxy\.gol` + `ang\.org|\bsum\.gol` + `ang\.org|\bregistry\.np` + `mjs\.org|\bpy` + `pi\.org|\bcrates` + `\.io\b|\bdeb\.deb` + `ian\.org`, "a registry's host, which differs from place to place"},
	{`\bTO` + `DO\b|\bFIX` + `ME\b|\bXX` + `X\b`, "unfinished work"},
	{`(?i)\bst` + `ub(s|bed)?\b`, "unfinished work"},
	{`(?i)\bfor n` + `ow\b`, "unfinished work"},
	{`(?i)\bsimpl` + `ified\b`, "unfinished work"},
	{`(?i)\bunimple` + `mented\b|\bnot (yet )?imple` + `mented\b`, "unfinished work"},
}

var wordRules = []rule{{
	"words", checkWords,
	map[string]string{"a.md": "Two fuzzers FuzzXxx and a worker; issues are shown; t.TempDir() it is.\n", "LICENSE": "for n" + "ow\n"},
	[]sabotage{
		{map[string]string{"a.sh": "cd /wor" + "k/main\n"}, "a.sh:1: a path of one machine"},
		{map[string]string{"a.go": "package a\n// see /tmp/val" + "ise/x\n"}, "a.go:2: a path of one machine"},
		{map[string]string{"a.md": "\n\nTO" + "DO: all\n"}, "a.md:3: unfinished work"},
		{map[string]string{"a.md": "This is a St" + "ub.\n"}, "unfinished work"},
		{map[string]string{"Makefile": "GOPROXY=https://proxy.gol" + "ang.org\n"}, "a registry's host"},
		{map[string]string{"a.patch": "+iss" + "ues show 2\n"}, "a tool of one workplace"},
	},
}}

func checkWords(p project) (complaints []string) {
	var all []*regexp.Regexp
	for _, f := range forbidden {
		all = append(all, regexp.MustCompile(f.pattern))
	}
	for name, data := range p.text {
		if name == "LICENSE" || strings.Contains(name, "testdata/fuzz/") || path.Ext(name) == ".sum" {
			continue // not our words
		}
		for i, re := range all {
			for _, at := range re.FindAllIndex(data, -1) {
				line := 1 + bytes.Count(data[:at[0]], []byte("\n"))
				complaints = append(complaints, fmt.Sprintf("%s:%d: %s: %q", name, line, forbidden[i].why, data[at[0]:at[1]]))
			}
		}
	}
	return complaints
}
