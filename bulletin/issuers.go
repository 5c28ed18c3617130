// SPDX-License-Identifier: Apache-2.0

package bulletin

import (
	"bytes"
	"time"

	"valise/manifest"
)

// issuers are the issuing certificates that a manifest names, and until when each is in
// use; the zero time is no end. There are a few, compared whole: that is asked for the
// sender and every recipient of a message, and a hash takes many times as long.
type issuers []issuer

type issuer struct {
	certificate []byte
	until       time.Time
}

// WithManifest returns the Set in which certificates count only under the issuing
// certificates that m, which was verified, names: not under one that was distrusted
// with the HSM that had its key.
func (s *Set) WithManifest(m *manifest.Manifest) *Set {
	next := *s
	next.issuers = make(issuers, len(m.Issuers))
	for i, each := range m.Issuers {
		next.issuers[i] = issuer{each.Certificate, each.Until}
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
	for _, i := range s.issuers {
		if bytes.Equal(i.certificate, chain[1]) {
			return i.until.IsZero() || !issued.After(i.until)
		}
	}
	return false
}
