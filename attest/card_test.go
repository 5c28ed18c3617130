// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// A maker is a vendor in a test: a root, and cards with the shape of a YubiKey
// below it, any property of which can be set off.
type maker struct {
	t    testing.TB
	root *x509.Certificate
	key  crypto.Signer
}

var (
	made     = time.Date(2024, 12, 1, 0, 0, 0, 0, time.UTC)
	forEver  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	judgedAt = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
)

// alter changes a certificate before it is signed.
type alter func(*x509.Certificate)

func newMaker(t testing.TB, changes ...alter) *maker {
	key := newKey(t, elliptic.P384())
	template := caShape("Test Attestation Root")
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	apply(template, changes)
	return &maker{t, sign(t, template, template, key.Public(), key), key}
}

func (m *maker) endorsements() *Endorsements {
	m.t.Helper()
	e, err := Configured(toPEM(m.root))
	if err != nil {
		m.t.Fatal(err)
	}
	return e
}

// A card has a certificate f9 from its maker, and attests keys with it.
type card struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
}

// card makes a card. Real cards' f9 has no key usage extension.
func (m *maker) card(changes ...alter) *card {
	key := newKey(m.t, elliptic.P256())
	template := caShape("Yubico PIV Attestation")
	template.MaxPathLenZero = true
	apply(template, changes)
	return &card{m.t, sign(m.t, template, m.root, key.Public(), m.key), key}
}

// statement attests a public key in a slot.
func (c *card) statement(slot string, key crypto.PublicKey, changes ...alter) []byte {
	template := &x509.Certificate{
		SerialNumber: randomSerial(c.t),
		Subject:      pkix.Name{CommonName: "YubiKey PIV Attestation " + slot},
		NotBefore:    c.cert.NotBefore,
		NotAfter:     c.cert.NotAfter,
		ExtraExtensions: []pkix.Extension{
			{Id: yubico(3), Value: []byte{5, 7, 1}},
			{Id: yubico(7), Value: integer(30123456)},
			{Id: yubico(8), Value: []byte{byte(PINOnce), byte(TouchNever)}},
			{Id: yubico(9), Value: []byte{byte(USBCKeychain)}},
		},
	}
	apply(template, changes)
	return sign(c.t, template, c.cert, key, c.key).Raw
}

// extension replaces an extension's value, or adds it; nil takes it out.
func extension(n int, value []byte) alter {
	return func(template *x509.Certificate) {
		var kept []pkix.Extension
		for _, ext := range template.ExtraExtensions {
			if !ext.Id.Equal(yubico(n)) {
				kept = append(kept, ext)
			}
		}
		if value != nil {
			kept = append(kept, pkix.Extension{Id: yubico(n), Value: value})
		}
		template.ExtraExtensions = kept
	}
}

func caShape(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(263751), Subject: pkix.Name{CommonName: name},
		NotBefore: made, NotAfter: forEver, IsCA: true, BasicConstraintsValid: true,
	}
}

func apply(template *x509.Certificate, changes []alter) {
	for _, change := range changes {
		change(template)
	}
}

func sign(t testing.TB, template, parent *x509.Certificate, key crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// newKey makes a software key, the double of the hardware's.
func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func randomSerial(t testing.TB) *big.Int {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		t.Fatal(err)
	}
	return serial.Add(serial, big.NewInt(1))
}

func integer(n int64) []byte {
	der, err := asn1.Marshal(n)
	if err != nil {
		panic(err) // an int64 always marshals
	}
	return der
}

func toPEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, cert := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out
}
