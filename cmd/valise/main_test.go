// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"valise/internal/testenv"
)

// The command line as main runs it: what kong binds to a command's Run is found
// out only when the command runs.
func TestAttestShowFromTheCommandLine(t *testing.T) {
	card := filepath.Join(t.TempDir(), "card.pem")
	if err := os.WriteFile(card, testenv.Published(t, testenv.YubiKey543), 0o600); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(t.TempDir(), "none.pem")
	lenient := filepath.Join(t.TempDir(), "policy.toml")
	policy := "min_firmware = \"5.4.0\"\naccept_vulnerable_firmware = true\nkey_management = \"ignored\"\n"
	if err := os.WriteFile(lenient, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want int
	}{
		"accepted":   {[]string{"--policy", lenient, card}, 0},
		"refused":    {[]string{card}, exitRefused},
		"as JSON":    {[]string{"--json", card}, exitRefused},
		"unreadable": {[]string{none}, exitUnreadable},
		"no file":    {nil, 2},
	} {
		if got := run(t.Context(), append([]string{"attest", "show"}, c.args...)); got != c.want {
			t.Errorf("%s: exit status %d, want %d", name, got, c.want)
		}
	}
}
