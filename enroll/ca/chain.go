// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"crypto/x509"

	"valise/record"
)

// ChainOf returns what belongs above a certificate that this authority issued: the
// issuing certificate that made it, which may be one of before an HSM was replaced,
// and the root.
func (c *CA) ChainOf(der []byte) [][]byte {
	chain := c.Chain()
	cert, err := x509.ParseCertificate(der)
	if err != nil || bytes.Equal(cert.AuthorityKeyId, c.cfg.Chain[0].SubjectKeyId) {
		return chain
	}
	c.cfg.Book.View(func(s *record.State) {
		m, _ := s.Manifest()
		if m == nil {
			return
		}
		for _, i := range m.Issuers {
			issuer, err := x509.ParseCertificate(i.Certificate)
			if err == nil && bytes.Equal(cert.AuthorityKeyId, issuer.SubjectKeyId) {
				chain[0] = issuer.Raw
			}
		}
	})
	return chain
}
