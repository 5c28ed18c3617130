// SPDX-License-Identifier: Apache-2.0

package bulletin

import (
	"crypto/sha256"
	"time"

	"valise/manifest"
)

// issuers are the issuing certificates that a manifest names, by their SHA-256, and
// until when each is in use; the zero time is no end.
type issuers map[[sha256.Size]byte]time.Time

// WithManifest returns the Set in which certificates count only under the issuing
// certificates that m, which was verified, names: not under one that was distrusted
// with the HSM that had its key.
func (s *Set) WithManifest(m *manifest.Manifest) *Set {
	next := *s
	next.issuers = make(issuers, len(m.Issuers))
	for _, i := range m.Issuers {
		next.issuers[sha256.Sum256(i.Certificate)] = i.Until
	}
	return &next
}

// Issuer reports whether a chain, leaf first, stands under an issuing certificate
// that was in use when the leaf was issued. Before the first manifest all do.
func (s *Set) Issuer(chain [][]byte, issued time.Time) bool {
	if s.issuers == nil {
		return true
	}
	if len(chain) < 2 {
		return false
	}
	until, named := s.issuers[sha256.Sum256(chain[1])]
	return named && (until.IsZero() || !issued.After(until))
}
