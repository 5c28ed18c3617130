// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto"
	"crypto/x509"
)

// A card that cannot attest gives no evidence of hardware. What its owner shows
// is possession: the key signs the challenge. Everything else is what two
// officers say who saw the key made in the card; their approvals carry it, and
// the certificate says "witnessed".
//
// Evidence of FormatWitnessed has one element in Chain: the key as a
// SubjectPublicKeyInfo (RFC 5280, Section 4.1.2.7) in DER. It has no
// KeyManagement, of which nobody could say anything.

// WitnessedEvidence returns the evidence for a key that officers saw made.
func WitnessedEvidence(key crypto.PublicKey) (Evidence, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return Evidence{}, err
	}
	return Evidence{Format: FormatWitnessed, Chain: [][]byte{der}}, nil
}

// verifyWitnessed returns a key and its algorithm, and no claim besides.
func verifyWitnessed(ev Evidence) (*Claims, error) {
	if len(ev.Chain) != 1 || len(ev.KeyManagement) != 0 {
		return nil, refuse(ReasonMalformed, "a witnessed key comes alone, with nothing about another one")
	}
	der := ev.Chain[0]
	if len(der) > maxSPKI {
		return nil, refuse(ReasonMalformed, "the key has %d bytes, at most %d are allowed", len(der), maxSPKI)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, refuse(ReasonMalformed, "the key: %w", err)
	}
	if again, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(der, again) {
		return nil, refuse(ReasonMalformed, "the key is not in canonical form")
	}
	return &Claims{Key: KeyClaims{PublicKey: key, Algorithm: algorithmOf(key)}}, nil
}
