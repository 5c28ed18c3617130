// SPDX-License-Identifier: Apache-2.0

package ca

import "crypto/x509"

// ChainOf returns what belongs above a certificate that this authority issued: the
// issuing certificate that made it, which may be one of before an HSM was replaced,
// and the root.
func (c *CA) ChainOf(der []byte) [][]byte {
	chain := c.Chain()
	if cert, err := x509.ParseCertificate(der); err == nil {
		chain[0] = c.issuerOf(cert)
	}
	return chain
}
