// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"bytes"
	"path/filepath"
	"testing"
)

// All processes on one database have the same secret, and another database another.
func TestSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	a, b, other := testOpen(t, path), testOpen(t, path), testOpen(t, filepath.Join(t.TempDir(), "db"))
	secret := a.Secret("desk")
	if len(secret) != 32 || !bytes.Equal(secret, b.Secret("desk")) {
		t.Errorf("%x and %x", secret, b.Secret("desk"))
	}
	if bytes.Equal(secret, a.Secret("other")) || bytes.Equal(secret, other.Secret("desk")) {
		t.Error("two purposes, or two databases, have one secret")
	}
	nonces := a.nonces.Load().secret
	if bytes.Equal(secret, nonces[:]) {
		t.Error("it is the secret of nonces itself")
	}
}
