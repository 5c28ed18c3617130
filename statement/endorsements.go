// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// Endorsements are the vendors' root and intermediate certificates under which
// evidence is believed, all of them: what is not in it is no longer believed.
type Endorsements struct {
	Change   string // 128 random bits, from NewID
	PEM      []byte
	Previous [32]byte // BodyDigest of the last one, zero if there was none
}

// Kind implements Body.
func (*Endorsements) Kind() Kind { return KindEndorsements }

func (e *Endorsements) members(m *members) {
	m.id("change", &e.Change)
	m.octets("pem", &e.PEM, 1, maxFile)
	m.hash("previous", &e.Previous)
	if m.err == nil {
		_, err := e.certificates()
		m.check(err == nil, "pem: %v", err)
	}
}

// certificates reads the file, which is in the form of CanonicalPEM: nothing
// but certificates stands in it, so that Words leaves nothing out.
func (e *Endorsements) certificates() ([]*x509.Certificate, error) {
	certs, canonical, err := readPEM(e.PEM)
	if err == nil && !bytes.Equal(canonical, e.PEM) {
		err = errSpelling
	}
	return certs, err
}

// CanonicalPEM writes the certificates of a file one after the other, without
// the comments that may stand between them.
func CanonicalPEM(file []byte) ([]byte, error) {
	_, canonical, err := readPEM(file)
	return canonical, err
}

func readPEM(file []byte) (certs []*x509.Certificate, canonical []byte, err error) {
	for {
		var block *pem.Block
		if block, file = pem.Decode(file); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, nil, fmt.Errorf("PEM block %d is a %.40q, not a certificate", len(certs)+1, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
		canonical = append(canonical, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	if len(certs) == 0 {
		return nil, nil, errors.New("no certificate in it")
	}
	return certs, canonical, nil
}

// Words implements Body.
func (e *Endorsements) Words() []string {
	lines := []string{"believe evidence under exactly these vendors' certificates"}
	certs, err := e.certificates()
	if err != nil {
		lines = append(lines, "which cannot be read: "+err.Error())
	}
	for _, cert := range certs {
		lines = append(lines, fmt.Sprintf("certificate: %q, SHA-256 %x", cert.Subject.String(), sha256.Sum256(cert.Raw)))
	}
	return append(lines, "takes the place of: "+hashWords(e.Previous), "change: "+e.Change)
}
