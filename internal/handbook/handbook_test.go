// SPDX-License-Identifier: Apache-2.0

package handbook

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var table = Table{"DIGEST": false, "DATE": true}

const document = "# One\n\ntext with `valise lock` in it\n\n```console\nalice$ valise send bob@interieur.example \\\n  --file x\n" +
	"sent …\nalice# reboot\n```\n\n## Two\n\n<!-- not run: no machine burns here -->\n```console\nbob$ burn\n```\n\n" +
	"```toml bob:/etc/x.toml\na = 1\n```\n\n```console alice\nand more\n```\n"

func TestSteps(t *testing.T) {
	blocks, err := Parse("a.md", []byte(document))
	if err != nil {
		t.Fatal(err)
	}
	steps, err := Steps(blocks)
	if err != nil {
		t.Fatal(err)
	}
	want := []Step{
		{At: "a.md:6", Section: "a.md:1", Machine: "alice", Command: "valise send bob@interieur.example --file x", Expect: []string{"sent …"}},
		{At: "a.md:9", Section: "a.md:1", Machine: "alice", Command: "reboot", Admin: true, Stays: true},
		{At: "a.md:16", Section: "a.md:12", Machine: "bob", Command: "burn", NotRun: "no machine burns here"},
		{At: "a.md:20", Section: "a.md:12", Machine: "bob", Path: "/etc/x.toml", Contents: "a = 1\n"},
		{At: "a.md:24", Section: "a.md:12", Machine: "alice", Expect: []string{"and more"}},
	}
	if len(steps) != len(want) {
		t.Fatalf("%d steps", len(steps))
	}
	for i, s := range steps {
		if !slices.Equal(s.Expect, want[i].Expect) {
			t.Errorf("%s: expects %q", s.At, s.Expect)
		}
		s.Expect, want[i].Expect = nil, nil
		if got, wanted := *s, want[i]; !same(got, wanted) {
			t.Errorf("%+v, want %+v", got, wanted)
		}
	}
}

func same(a, b Step) bool {
	return a.At == b.At && a.Section == b.Section && a.NotRun == b.NotRun && a.Machine == b.Machine && a.Command == b.Command &&
		a.Admin == b.Admin && a.Stays == b.Stays && a.Path == b.Path && a.Contents == b.Contents
}

// Documents that nobody could follow, and commands that nothing would run.
func TestRefusedDocuments(t *testing.T) {
	for text, want := range map[string]string{
		"```console\nalice$ ls\n":                          "does not end",
		"```console\nls\n```\n":                            "without a prompt",
		"```console alice\nls\n```\n":                      "nothing runs on the machine",
		"```sh\nvalise lock\n```\n":                        "language console",
		"```toml bob:x\n```\n":                             "want MACHINE:/PATH",
		"<!-- not run: why -->\nText.\n":                   "belongs to no block",
		"<!-- not run: why -->\n<!-- not run: twice -->\n": "belongs to no block",
		"```text\nvalise lock now\n```\n":                  "no transcript",
		"```console alice bob\nalice$ ls\n```\n":           "not understood",
	} {
		blocks, err := Parse("a.md", []byte(text))
		if err == nil {
			_, err = Steps(blocks)
		}
		complaint := strings.Join(Stray(blocks), "\n")
		if err != nil {
			complaint += err.Error()
		}
		if !strings.Contains(complaint, want) {
			t.Errorf("%q: %q, want %q", text, complaint, want)
		}
	}
	blocks, err := Parse("a.md", []byte(document))
	if complaints := Stray(blocks); err != nil || len(complaints) > 0 {
		t.Errorf("the good document: %v, %q", err, complaints)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		want, got string
		ok        bool
	}{
		{"", "", true},
		{"", "more", false},
		{"done", "", false},
		{"done", "done", true},
		{"done", "undone", false},
		{"done …", "done at noon", true},
		{"…", "", true},
		{"…", "a\nb", true},
		{"…\nb", "a\na\nb", true},
		{"…\nb", "a\nb\nc", false},
		{"a\n…\nc", "a\nc", true},
		{"run DIGEST\n…\nDIGEST", "run 12ab\nx\n12ab", true},
		{"run DIGEST\n…\nDIGEST", "run 12ab\nx\n34cd", false},
		{"DIGEST and DIGEST", "1 and 1", true},
		{"DIGEST and DIGEST", "1 and 2", false},
		{"DATE", "2026-11-22", true},
		{"DATE", "2026-11-23", false},
		{"SECRET", "SECRET", true},
		{"SECRET", "other", false},
		{"DIGESTS", "12", false},
	} {
		lines := func(text string) []string {
			if text == "" {
				return nil
			}
			return strings.Split(text, "\n")
		}
		if err := table.Match(lines(c.want), lines(c.got), Values{"DATE": "2026-11-22"}); (err == nil) != c.ok {
			t.Errorf("%q against %q: %v", c.want, c.got, err)
		}
	}
}

func TestValues(t *testing.T) {
	values := Values{"DATE": "2026-11-22"}
	if _, err := table.Fill("valise officer approve DIGEST", values); err == nil {
		t.Error("a value that nothing has shown was filled in")
	}
	if err := table.Match([]string{"DIGEST"}, []string{"ab"}, values); err != nil {
		t.Fatal(err)
	}
	if text, err := table.Fill("approve DIGEST on DATE, DIGESTS", values); err != nil || text != "approve ab on 2026-11-22, DIGESTS" {
		t.Errorf("%q, %v", text, err)
	}
	table.Forget(values)
	if len(values) != 1 || values["DATE"] == "" {
		t.Errorf("after the section: %v", values)
	}
	if got, err := ReadTable([]byte("| `DIGEST` | it | a section |\n| `DATE` | today | everywhere |\n| `NO` | x |\n")); err != nil || len(got) != 2 || !got["DATE"] || got["DIGEST"] {
		t.Errorf("%v, %v", got, err)
	}
}

func TestMentioned(t *testing.T) {
	commands, lines := Mentioned([]byte(document + "and `valise-gatewayd serve --config FILE &`, but not `valise` or `ls`\n"))
	if len(commands) != 2 || strings.Join(commands[0], " ") != "valise lock" || lines[0] != 3 || strings.Join(commands[1], " ") != "valise-gatewayd serve --config FILE" {
		t.Errorf("%q at %v", commands, lines)
	}
}

func TestBroken(t *testing.T) {
	if lines := Broken([]byte("`a`\n```console\na ` b\n```\n`valise\nlock`\n")); !slices.Equal(lines, []int{5, 6}) {
		t.Errorf("broken lines: %v", lines)
	}
}

func TestCodes(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "gate"), 0o700); err != nil {
		t.Fatal(err)
	}
	const text = `package gate
type Reason string
const (
	ReasonSlot Reason = "slot"
	word              = "word"
)
type row struct{ A int ` + "`json:\"not_this\"`" + ` }
func f() { refuse("mailbox_full"); slog.String("not_that", "x"); log.Error("x", "nor_this", 1); errors.New("no %s in slot %d") }
`
	if err := os.WriteFile(filepath.Join(root, "gate", "a.go"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := ReadSource(root, []string{"gate"})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Codes) != 2 || s.Codes["slot"] == nil || s.Codes["mailbox_full"] == nil {
		t.Errorf("codes: %v", s.Codes)
	}
	for message, want := range map[string]bool{"no … in slot": true, "in slot … no": false, "no such": false} {
		if s.Says(message) != want {
			t.Errorf("%q is said: %v", message, !want)
		}
	}
	if s, err := ReadSource(root, nil); err != nil || len(s.Codes) != 0 {
		t.Errorf("codes of other folders: %v, %v", s.Codes, err)
	}
}

func TestUpdate(t *testing.T) {
	page := filepath.Join(t.TempDir(), "a.md")
	if err := os.WriteFile(page, []byte("x\n<!-- p -->\nold\n<!-- end of p -->\ny\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Update(page, "p", "new\n", false); err == nil {
		t.Error("a part that is behind was taken")
	}
	if err := Update(page, "q", "new\n", true); err == nil {
		t.Error("a part that is not there was written")
	}
	if err := Update(page, "p", "new\n", true); err != nil {
		t.Error(err)
	}
	if err := Update(page, "p", "new\n", false); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(page); err != nil || string(data) != "x\n<!-- p -->\nnew\n<!-- end of p -->\ny\n" {
		t.Errorf("%q, %v", data, err)
	}
}
