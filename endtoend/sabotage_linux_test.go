// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"context"
	"strings"
	"testing"

	"valise/internal/handbook"
	"valise/internal/handbook/land"
)

// A document that says something else than happens turns the test of the documents red,
// beside an honest one that differs in nothing else.
func TestSabotagedDocuments(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l := newLand(t, ctx, []land.Machine{{Name: "alice"}})
	const honest = "```console\nalice$ valise lock\nvalise: this device is not enrolled\nvalise: hint: …\nalice$ echo something; echo and more\n" +
		"…\nand more\nalice$ printf 'sure? [y/N] '; read x; test $x = y\nsure? [y/N] y\n```\n"
	for name, c := range map[string]struct{ old, text, want string }{
		"honest":           {"", "", ""},
		"wrong option":     {"valise lock\n", "valise lock --sing\n", "nothing printed agrees"},
		"other output":     {"not enrolled", "enrolled", "nothing printed agrees"},
		"less output":      {"valise: hint: …\n", "", "something more is printed"},
		"more output":      {"and more\nalice", "and more\nand more\nalice", "nothing printed agrees"},
		"another answer":   {"sure? [y/N] y", "sure? [y/N] n", "exit status 1"},
		"fails unseen":     {"valise: this device is not enrolled\nvalise: hint: …\n", "…\n", "exit status 1"},
		"nobody's machine": {"alice$ valise lock", "mallory$ valise lock", "there is no machine mallory"},
		"no such unit":     {"valise lock\n", "systemctl start valise-teapot\n", "packaging/ has no"},
		"no such value":    {"valise lock\n", "valise lock KEY\n", "nothing has shown before what KEY is"},
	} {
		blocks, err := handbook.Parse(name, []byte(strings.Replace(honest, c.old, c.text, 1)))
		if err != nil {
			t.Fatal(err)
		}
		steps, err := handbook.Steps(blocks)
		if err != nil {
			t.Fatal(err)
		}
		var found error
		for _, s := range steps {
			if found = l.Play(ctx, s); found != nil {
				break
			}
		}
		switch {
		case c.want == "" && found != nil:
			t.Errorf("%s: %v", name, found)
		case c.want != "" && (found == nil || !strings.Contains(found.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, found, c.want)
		}
	}
}
