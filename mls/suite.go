// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"crypto"
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/hpke"
	_ "crypto/sha256" // crypto.SHA256
	_ "crypto/sha512" // crypto.SHA384, crypto.SHA512
	"fmt"
)

// A Suite is a cipher suite number, RFC 9420, Section 17.1.
type Suite uint16

// The suites of this package. A number under private use is never given
// another meaning; a new combination is a new row.
const (
	// SuiteX25519 is MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519.
	SuiteX25519 Suite = 0x0001
	// SuiteP256 is MLS_128_DHKEMP256_AES128GCM_SHA256_P256.
	SuiteP256 Suite = 0x0002
	// SuiteP521 is MLS_256_DHKEMP521_AES256GCM_SHA512_P521.
	SuiteP521 Suite = 0x0005
	// SuiteP384 is MLS_256_DHKEMP384_AES256GCM_SHA384_P384.
	SuiteP384 Suite = 0x0007
	// SuiteMLKEM1024P384 is MLKEM1024-P384, HKDF-SHA384, AES-256-GCM,
	// ECDSA P-384: "TBD5" of draft-ietf-mls-pq-ciphersuites, private use.
	SuiteMLKEM1024P384 Suite = 0xF051
	// SuiteMLKEM768P256 is MLKEM768-P256, HKDF-SHA256, AES-128-GCM,
	// ECDSA P-256, private use.
	SuiteMLKEM768P256 Suite = 0xF050

	// DefaultSuite protects against an attacker who records today and has a
	// quantum computer later.
	DefaultSuite = SuiteMLKEM1024P384
)

// suiteParams is one row of the table.
type suiteParams struct {
	id     Suite
	name   string
	kem    hpke.KEM
	kdf    hpke.KDF
	aead   hpke.AEAD
	hash   crypto.Hash
	nk     int            // AEAD key size
	curve  elliptic.Curve // of the signature; nil means Ed25519
	counts *counts        // nil but in tests
}

var suiteTable = []*suiteParams{
	{
		SuiteX25519, "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519",
		hpke.DHKEM(ecdh.X25519()), hpke.HKDFSHA256(), hpke.AES128GCM(), crypto.SHA256, 16, nil, nil,
	},
	{
		SuiteP256, "MLS_128_DHKEMP256_AES128GCM_SHA256_P256",
		hpke.DHKEM(ecdh.P256()), hpke.HKDFSHA256(), hpke.AES128GCM(), crypto.SHA256, 16, elliptic.P256(), nil,
	},
	{
		SuiteP521, "MLS_256_DHKEMP521_AES256GCM_SHA512_P521",
		hpke.DHKEM(ecdh.P521()), hpke.HKDFSHA512(), hpke.AES256GCM(), crypto.SHA512, 32, elliptic.P521(), nil,
	},
	{
		SuiteP384, "MLS_256_DHKEMP384_AES256GCM_SHA384_P384",
		hpke.DHKEM(ecdh.P384()), hpke.HKDFSHA384(), hpke.AES256GCM(), crypto.SHA384, 32, elliptic.P384(), nil,
	},
	{
		SuiteMLKEM1024P384, "MLS_256_MLKEM1024P384_AES256GCM_SHA384_P384",
		hpke.MLKEM1024P384(), hpke.HKDFSHA384(), hpke.AES256GCM(), crypto.SHA384, 32, elliptic.P384(), nil,
	},
	{
		SuiteMLKEM768P256, "MLS_128_MLKEM768P256_AES128GCM_SHA256_P256",
		hpke.MLKEM768P256(), hpke.HKDFSHA256(), hpke.AES128GCM(), crypto.SHA256, 16, elliptic.P256(), nil,
	},
}

func (s Suite) params() (*suiteParams, error) {
	for _, p := range suiteTable {
		if p.id == s {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%w: 0x%04x", ErrSuite, uint16(s))
}

// Suites lists the suites of this package, strongest last.
func Suites() []Suite {
	return []Suite{SuiteX25519, SuiteP256, SuiteMLKEM768P256, SuiteP521, SuiteP384, SuiteMLKEM1024P384}
}

// Supported says whether this package has the suite.
func (s Suite) Supported() bool { _, err := s.params(); return err == nil }

// String names the suite as its registry does.
func (s Suite) String() string {
	if p, err := s.params(); err == nil {
		return p.name
	}
	return fmt.Sprintf("cipher suite 0x%04x", uint16(s))
}
