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

func line(text string) string {
	b, _ := json.Marshal(map[string]string{"text": text})
	return string(b) + "\n"
}

// Each sabotage must be seen, and seen as what it is; the honest control not.
func TestCheckerIsNotBlind(t *testing.T) {
	for name, c := range map[string]struct {
		texts string
		files map[string]string
		want  result
	}{
		"honest":            {line("one") + line("two"), map[string]string{"a": "AAAA"}, result{messages: 2, files: 1}},
		"a message lost":    {line("one"), map[string]string{"a": "AAAA"}, result{messages: 1, files: 1, lost: 1}},
		"a message twice":   {line("one") + line("two") + line("two"), map[string]string{"a": "AAAA"}, result{messages: 2, files: 1, duplicated: 1}},
		"a message altered": {line("one") + line("twx"), map[string]string{"a": "AAAA"}, result{messages: 1, files: 1, lost: 1, altered: 1}},
		"a file lost":       {line("one") + line("two"), nil, result{messages: 2, lost: 1}},
		"a file twice":      {line("one") + line("two"), map[string]string{"a": "AAAA", "b": "AAAA"}, result{messages: 2, files: 1, duplicated: 1}},
		"a file altered":    {line("one") + line("two"), map[string]string{"a": "AAAB"}, result{messages: 2, lost: 1, altered: 1}},
		"nothing at all":    {"", nil, result{lost: 3}},
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

func TestUnreadableIsAnError(t *testing.T) {
	sent, received := t.TempDir(), t.TempDir()
	write(t, filepath.Join(sent, "bob/text/1"), "one")
	write(t, filepath.Join(received, "bob/messages.jsonl"), "{not json\n")
	if _, err := compare(sent, received); err == nil {
		t.Error("a damaged record passed")
	}
}
