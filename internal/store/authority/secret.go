// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"crypto/hmac"
	"crypto/sha256"
)

// Secret returns 32 octets for one purpose: the same for all processes on this
// database, different for each purpose, and not in a backup. It changes when what
// authenticates nonces does, so it is for what may end at any time: sessions.
func (s *Store) Secret(purpose string) []byte {
	mac := hmac.New(sha256.New, s.nonces.Load().secret[:])
	mac.Write([]byte("valise secret for " + purpose + "\x00"))
	return mac.Sum(nil)
}
