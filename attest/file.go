// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
)

// ParseFile reads the certificates of a file in any of the forms in which
// people keep evidence: PEM (certificates or a PKCS #7), certificates in DER
// one behind the other, or a certs-only PKCS #7 in DER. It returns them in
// DER, in the file's order; none of them is trusted yet.
func ParseFile(data []byte) ([][]byte, error) {
	if len(data) > MaxFileSize {
		return nil, refuse(ReasonMalformed, "the file has %d bytes, at most %d are allowed", len(data), MaxFileSize)
	}
	var (
		certs [][]byte
		err   error
	)
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		certs, err = parsePEM(data)
	} else {
		certs, err = parseDER(data)
	}
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 {
		return nil, refuse(ReasonNoEvidence, "the file holds no certificate")
	}
	if len(certs) > maxFileCertificates {
		return nil, refuse(ReasonMalformed, "the file holds %d certificates, at most %d are allowed", len(certs), maxFileCertificates)
	}
	return certs, nil
}

// parsePEM reads all blocks; text around them is skipped, as RFC 7468, Section
// 2 allows, but a block of another kind is an error: half of a file is not
// silently ignored.
func parsePEM(data []byte) ([][]byte, error) {
	var certs [][]byte
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if bytes.Contains(rest, []byte("-----BEGIN ")) {
				return nil, refuse(ReasonMalformed, "a PEM block is broken")
			}
			return certs, nil
		}
		switch block.Type {
		case "CERTIFICATE":
			certs = append(certs, block.Bytes)
		case "PKCS7", "CMS":
			more, err := parseSignedData(block.Bytes)
			if err != nil {
				return nil, err
			}
			certs = append(certs, more...)
		default:
			return nil, refuse(ReasonUnknownFormat, "not YubiKey PIV evidence: PEM block %.40q, want CERTIFICATE or PKCS7", block.Type)
		}
	}
}

func parseDER(data []byte) ([][]byte, error) {
	if isSignedData(data) {
		return parseSignedData(data)
	}
	parsed, err := x509.ParseCertificates(data)
	if err != nil {
		return nil, refuse(ReasonMalformed, "not YubiKey PIV evidence: neither PEM nor certificates in DER nor PKCS #7: %w", err)
	}
	var certs [][]byte
	for _, cert := range parsed {
		certs = append(certs, cert.Raw)
	}
	return certs, nil
}

// Assemble sorts certificates, from one or more files of one card, into
// evidence: slots' certificates are known by their names, each is put before
// the card's certificate that issued it, and the rest follows. The key in 9d
// becomes the key management key unless it is the only one.
func Assemble(certs [][]byte) (Evidence, error) {
	var slots, others []*x509.Certificate
	for i, der := range certs {
		if len(der) > MaxCertificateSize {
			return Evidence{}, refuse(ReasonMalformed, "certificate %d has %d bytes, at most %d are allowed", i+1, len(der), MaxCertificateSize)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return Evidence{}, refuse(ReasonMalformed, "certificate %d: %w", i+1, err)
		}
		list := &others
		if strings.HasPrefix(cert.Subject.CommonName, slotNamePrefix) {
			list = &slots
		}
		if !slices.ContainsFunc(*list, cert.Equal) {
			*list = append(*list, cert)
		}
	}
	if len(slots) == 0 {
		return Evidence{}, refuse(ReasonUnknownFormat, "not YubiKey PIV evidence: no certificate is called \"CN=%s<slot>\" (the first one is %.80q)", slotNamePrefix, firstSubject(others))
	}
	ev := Evidence{Format: FormatYubicoPIV}
	for _, slot := range slots {
		chain, err := chainOf(slot, others)
		if err != nil {
			return Evidence{}, err
		}
		second := slot.Subject.CommonName == slotNamePrefix+"9d" && len(slots) > 1
		switch {
		case second && ev.KeyManagement == nil:
			ev.KeyManagement = chain
		case !second && ev.Chain == nil:
			ev.Chain = chain
		default:
			return Evidence{}, refuse(ReasonMalformed, "attestations of more than one key besides 9d: show one at a time")
		}
	}
	if ev.Chain == nil {
		return Evidence{}, refuse(ReasonMalformed, "more than one attestation of 9d: show one at a time")
	}
	return ev, nil
}

// chainOf returns slot, the one of others that signed it, and whatever issued
// that. Without an issuer the slot stands alone, and Verify says what lacks.
func chainOf(slot *x509.Certificate, others []*x509.Certificate) ([][]byte, error) {
	chain := [][]byte{slot.Raw}
	rest := slices.Clone(others)
	for top := slot; ; {
		i := slices.IndexFunc(rest, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, top.RawIssuer) && checkSignature(top, c) == nil
		})
		if i < 0 {
			break
		}
		top = rest[i]
		chain = append(chain, top.Raw)
		rest = slices.Delete(rest, i, i+1)
	}
	if len(chain) == 1 {
		return nil, refuse(ReasonMalformed, "no certificate in the files issued %.80q: add the card's attestation certificate (f9), issuer %.80q", slot.Subject, slot.Issuer)
	}
	return chain, nil
}

func firstSubject(certs []*x509.Certificate) string {
	if len(certs) == 0 {
		return ""
	}
	return fmt.Sprint(certs[0].Subject)
}
