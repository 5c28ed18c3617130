// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"valise/identity"
)

// An invitation's key is erased when it is used or has expired (spec/enrollment.md,
// Section 2): from the file, not from the table only.
func TestInvitationKeyIsErased(t *testing.T) {
	now := time.Now()
	address, err := identity.ParseAddress("alice@interieur.example")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		end  func(s *Store) error
		gone bool
	}{
		"control": {func(*Store) error { return nil }, false},
		"used": {func(s *Store) error {
			return s.Update(t.Context(), func(tx *Tx) error { return tx.UseInvitation("kid", now) })
		}, true},
		"expired": {func(s *Store) error { return s.Purge(t.Context(), now.Add(48*time.Hour)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "authority.db")
			key := make([]byte, 32)
			rand.Read(key)
			s, err := Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			err = s.Update(t.Context(), func(tx *Tx) error {
				return tx.AddInvitation(Invitation{KID: "kid", Key: key, Address: address, Created: now, Expires: now.Add(time.Hour)})
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.end(s); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			parts := 0
			for part := range slices.Chunk(key, 8) {
				if bytes.Contains(data, part) {
					parts++
				}
			}
			if c.gone != (parts == 0) {
				t.Errorf("%d parts of the key are in the file", parts)
			}
		})
	}
}
