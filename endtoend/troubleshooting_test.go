// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"valise/internal/handbook"
	"valise/internal/testenv"
)

// Where codes are written that a person may meet in an audit stream, from a command
// or on a screen.
var codeFolders = []string{
	"attest", "client", "client/file", "cmd/valise", "cmd/valise-enrolld", "cmd/valise-gatewayd", "enroll", "enroll/acme", "enroll/ca",
	"enroll/desk", "enroll/desk/call", "gateway", "gateway/blob", "gateway/feed", "gateway/group", "gateway/rules", "identity",
	"internal/check", "policy", "policy/bundle", "policy/rules", "policy/spif", "record", "statement", "wire",
}

// What looks like a code in these folders and is none: names of configuration keys, of
// fields and of metrics.
var noCodes = regexp.MustCompile(`^(valise|authority_(connected|bulletin)|bulletin_(age|number|staleness)|record_leaves|statements)_|` +
	`_(seconds|total|burst|window|per_second|source)$`)

var noCode = []string{
	"record_leaves", "bulletin_number", "bulletin_staleness", "authority_connected", "statements_kept", "statements_pending", "again_in", "its_bulletin",
	"always_sensitive", "never_extractable", "same_card", "owner_root", "key_management", // claims and rules of evidence
	"form_factors", "pin_policies", "touch_policies", "key_management_slots", // keys of an appraisal policy
}

// TestEveryCodeIsExplained: whatever code somebody may meet stands in
// docs/troubleshooting.md, and every message that is quoted there is one.
func TestEveryCodeIsExplained(t *testing.T) {
	root := testenv.Root(t)
	source, err := handbook.ReadSource(root, codeFolders)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range slices.Sorted(maps.Keys(source.Codes)) {
		if noCodes.MatchString(code) || slices.Contains(noCode, code) {
			continue
		}
		if !strings.Contains(string(page), "`"+code+"`") {
			t.Errorf("docs/troubleshooting.md does not explain %s (%s)", code, strings.Join(source.Codes[code], ", "))
		}
	}
	if len(source.Codes) < 200 {
		t.Errorf("only %d codes were found in the source", len(source.Codes))
	}
	for _, quoted := range quotes(string(page)) {
		if !source.Says(quoted) {
			t.Errorf("docs/troubleshooting.md quotes %q, and no program says that", quoted)
		}
	}
}

var firstCell = regexp.MustCompile("(?m)^\\| ((?:`[^`]+`(?:, )?)+) \\|")

// quotes are the messages and codes that rows of the page's tables are about.
func quotes(page string) (all []string) {
	for _, row := range firstCell.FindAllStringSubmatch(page, -1) {
		for _, s := range handbook.Spans([]byte(row[1])) {
			all = append(all, s.Text)
		}
	}
	return all
}
