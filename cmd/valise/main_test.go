// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The command line as main runs it: what kong binds to a command's Run is found
// out only when the command runs.
func TestAttestShowFromTheCommandLine(t *testing.T) {
	const samples = "../../attest/testdata/"
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
		"accepted":   {[]string{"--policy", lenient, samples + "yubikey-5.4.3.pem"}, 0},
		"refused":    {[]string{samples + "yubikey-5.4.3.pem"}, exitRefused},
		"as JSON":    {[]string{"--json", samples + "yubikey-5.4.3.p7b"}, exitRefused},
		"unreadable": {[]string{none}, exitUnreadable},
		"no file":    {nil, 2},
	} {
		if got := run(t.Context(), append([]string{"attest", "show"}, c.args...)); got != c.want {
			t.Errorf("%s: exit status %d, want %d", name, got, c.want)
		}
	}
}
