// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"valise/internal/testenv"
)

const source = `// Command x does a-thing with C:\dir.
//
//	x run --fast … now
//	.so /dev/null
//
// # Its heading
//
// Text.
package main
`

func page(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := Page(file, Header{Name: "x", Section: 8, Brief: "does", Usage: "COMMAND", Source: "Valise 1", Date: time.Unix(0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// What the comment says is what man prints, and no line of it becomes a request.
func TestPage(t *testing.T) {
	roff := page(t, source)
	for _, want := range []string{
		".TH X 8 1970-01-01 \"Valise 1\" \"Valise\"\n", "does a\\-thing with C:\\edir.", "x run \\-\\-fast \\[u2026] now",
		"\n\\&.so /dev/null\n", "\n.SH ITS HEADING\n",
	} {
		if !strings.Contains(roff, want) {
			t.Errorf("no %q in:\n%s", want, roff)
		}
	}
	if _, err := Page(filepath.Join(testenv.Root(t), "packaging", "manual", "manual_test.go"), Header{}); err == nil {
		t.Error("a file without a package comment gives a page")
	}
}

// groff has nothing to say about the pages that we ship.
func TestPagesOfCommands(t *testing.T) {
	groff := testenv.Need(t, "groff", "groff-base")
	for _, name := range []string{"valise", "valise-enrolld", "valise-gatewayd"} {
		out, err := Page(filepath.Join(testenv.Root(t), "cmd", name, "main.go"), Header{Name: name, Section: 8, Brief: "b", Usage: "u", Source: "s", Date: time.Unix(0, 0)})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z")
		cmd.Stdin = strings.NewReader(string(out))
		if said, err := cmd.CombinedOutput(); err != nil || len(said) > 0 {
			t.Errorf("%s: %v\n%s", name, err, said)
		}
	}
}
