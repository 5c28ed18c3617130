// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func line(text string) string { return marked(text, "") }

func marked(text, marking string) string {
	b, _ := json.Marshal(map[string]string{"text": text, "marking": marking})
	return string(b) + "\n"
}

// Each sabotage must be seen, and seen as what it is; the honest control not.
func TestCheckerIsNotBlind(t *testing.T) {
	for name, c := range map[string]struct {
		texts string
		files map[string]string
		want  result
	}{
		"honest":             {line("one") + line("two"), map[string]string{"a": "AAAA"}, result{messages: 2, files: 1}},
		"a message lost":     {line("one"), map[string]string{"a": "AAAA"}, result{messages: 1, files: 1, lost: 1}},
		"a message twice":    {line("one") + line("two") + line("two"), map[string]string{"a": "AAAA"}, result{messages: 2, files: 1, duplicated: 1}},
		"a message altered":  {line("one") + line("twx"), map[string]string{"a": "AAAA"}, result{messages: 1, files: 1, lost: 1, altered: 1}},
		"a file lost":        {line("one") + line("two"), nil, result{messages: 2, lost: 1}},
		"a file twice":       {line("one") + line("two"), map[string]string{"a": "AAAA", "b": "AAAA"}, result{messages: 2, files: 1, duplicated: 1}},
		"a file altered":     {line("one") + line("two"), map[string]string{"a": "AAAB"}, result{messages: 2, lost: 1, altered: 1}},
		"nothing at all":     {"", nil, result{lost: 3}},
		"a marking too much": {line("one") + marked("two", "SECRET"), map[string]string{"a": "AAAA"}, result{messages: 2, files: 1, mislabelled: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			sent, received := t.TempDir(), t.TempDir()
			write(t, filepath.Join(sent, "bob/text/1"), "one")
			write(t, filepath.Join(sent, "bob/text/2"), "two")
			write(t, filepath.Join(sent, "bob/files/a"), "AAAA")
			write(t, filepath.Join(received, "bob/messages.jsonl"), c.texts)
			for file, content := range c.files {
				write(t, filepath.Join(received, "bob/files", file), content)
			}
			got, err := compare(sent, received)
			if err != nil || got != c.want {
				t.Errorf("got %v (%v), want %v", got, err, c.want)
			}
		})
	}
}

// A marking that differs from the one that was given is seen, and so is one that is
// missing.
func TestCheckerReadsMarkings(t *testing.T) {
	for have, want := range map[string]result{
		marked("burn this", "SECRET"):                                   {messages: 1},
		marked("burn this", "OPEN"):                                     {messages: 1, mislabelled: 1},
		marked("burn this", ""):                                         {messages: 1, mislabelled: 1},
		marked("burn this", "SECRET") + marked("burn this", "OPEN"):     {messages: 1, duplicated: 1, mislabelled: 1},
		marked("burn this", "SECRET") + marked("never written", "OPEN"): {messages: 1, altered: 1, mislabelled: 1},
	} {
		sent, received := t.TempDir(), t.TempDir()
		write(t, filepath.Join(sent, "bob/text/1"), "burn this")
		write(t, filepath.Join(sent, "bob/marked/1"), "SECRET\nburn this")
		write(t, filepath.Join(sent, "audit"), "classification\n")
		write(t, filepath.Join(received, "bob/messages.jsonl"), have)
		if got, err := compare(sent, received); err != nil || got != want {
			t.Errorf("%s: got %v (%v), want %v", have, got, err, want)
		}
	}
}

// A refusal without its reason in the audit stream is seen.
func TestCheckerReadsTheAuditStream(t *testing.T) {
	dir := t.TempDir()
	list, audit := filepath.Join(dir, "audit"), filepath.Join(dir, "audit.jsonl")
	write(t, list, "classification\nlabel_altered\nclassification\n")
	reason := func(r string) string { return `{"event":"x","reason":"` + r + `"}` + "\n" }
	for have, want := range map[string]int{
		reason("classification") + reason("label_altered") + reason("classification"): 0,
		reason("classification") + reason("label_altered"):                            1,
		reason("classification") + reason("other") + reason("classification"):         1,
		"": 3,
	} {
		write(t, audit, have)
		if got, err := missing(list, audit); err != nil || got != want {
			t.Errorf("%s: %d (%v), want %d", have, got, err, want)
		}
	}
	if _, err := missing(filepath.Join(dir, "none"), audit); err == nil {
		t.Error("without a list everything is accounted for")
	}
}

func TestUnreadableIsAnError(t *testing.T) {
	sent, received := t.TempDir(), t.TempDir()
	write(t, filepath.Join(sent, "bob/text/1"), "one")
	write(t, filepath.Join(received, "bob/messages.jsonl"), "{not json\n")
	if _, err := compare(sent, received); err == nil {
		t.Error("a damaged record passed")
	}
}
