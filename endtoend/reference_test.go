// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"os"
	"path/filepath"
	"testing"

	"valise/internal/handbook"
	"valise/internal/testenv"
)

// TestReferenceOfKeys: docs/reference.md explains every key of every file that a
// person writes. The commands' own tests do the same for commands and options.
func TestReferenceOfKeys(t *testing.T) {
	root := testenv.Root(t)
	in := func(name string) string { return filepath.Join(root, filepath.FromSlash(name)) }
	for part, of := range map[string]struct {
		typeName string
		files    []string
	}{
		"keys of enrolld.toml": {"Config", []string{in("cmd/valise-enrolld/config.go"), in("attest/policy.go"), in("internal/daemon/audit.go")}},
		"keys of a plan":       {"Plan", []string{in("enroll/ceremony/plan.go"), in("attest/policy.go")}},
		"keys of officer.toml": {"officerSettings", []string{in("cmd/valise/officersettings.go")}},
	} {
		text, err := handbook.Keys(of.typeName, of.files...)
		if err == nil {
			err = handbook.Update(in("docs/reference.md"), part, text, os.Getenv("VALISE_UPDATE") != "")
		}
		if err != nil {
			t.Error(err)
		}
	}
	// That the example has every key is tested where it is.
	example, err := os.ReadFile(in("cmd/valise-gatewayd/example.toml"))
	if err != nil {
		t.Fatal(err)
	}
	text := "```toml\n" + string(example) + "```\n"
	if err := handbook.Update(in("docs/reference.md"), "gatewayd.toml", text, os.Getenv("VALISE_UPDATE") != ""); err != nil {
		t.Error(err)
	}
}
