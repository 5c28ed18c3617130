// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"valise/enroll/ca"
	"valise/internal/store/authority"
)

// A database that is gone (a wrong directory, half a restore) must not be replaced
// by an empty one: roster, standing and ledger would begin anew under the same root.
func TestLostDatabaseIsNotMadeAnew(t *testing.T) {
	for name, lost := range map[string]bool{"lost": true, "control": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			config := filepath.Join(dir, "enrolld.toml")
			text := `
domain = "interieur.example"
url = "https://enroll.interieur.example"
data = "."
audit = "audit.jsonl"
[token]
uri = "pkcs11:token=t?module-path=/m.so"
pin-source = "pin"
`
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var keys [2]*ecdsa.PrivateKey
			for i := range keys {
				var err error
				if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
					t.Fatal(err)
				}
			}
			root, issuing, err := ca.Found(domain, keys[0], keys[1], time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if err := writeNew(filepath.Join(dir, chainFile), encodePEM(issuing.Raw, root.Raw)); err != nil {
				t.Fatal(err)
			}
			database := filepath.Join(dir, databaseFile)
			if !lost {
				s, err := authority.Open(t.Context(), database)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			o, err := openDesk(t.Context(), config)
			if err == nil {
				if err := o.close(); err != nil {
					t.Fatal(err)
				}
			}
			if !lost {
				if err != nil {
					t.Errorf("control: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), databaseFile) {
				t.Errorf("got %v", err)
			}
			if _, err := os.Lstat(database); err == nil {
				t.Error("an empty database was made")
			}
		})
	}
}
