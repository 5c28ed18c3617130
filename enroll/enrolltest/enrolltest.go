// SPDX-License-Identifier: Apache-2.0

// Package enrolltest is for tests of enrollment only. It is the double of the
// hardware at an applicant's end: cards whose keys are in software and whose
// evidence has exactly the shape of a YubiKey's, under a vendor root made for the
// test. The real virtual card is in package testenv; tests of the whole use that.
//
//	vendor := enrolltest.NewVendor(t)
//	card := vendor.Card(t, enrolltest.CardConfig{})
//	object := card.Answer(t, keyAuthorization)
//
// Never import it from anything that is shipped.
package enrolltest

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

	"valise/attest"
	"valise/identity"
)

// A Vendor has a root that signs cards' attestation keys.
type Vendor struct {
	Root *x509.Certificate
	key  *ecdsa.PrivateKey
}

var (
	made = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	ends = time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)
)

// NewVendor makes a vendor. No two have the same root.
func NewVendor(t testing.TB) *Vendor {
	t.Helper()
	key := newKey(t, elliptic.P256())
	name := pkix.Name{CommonName: "Test vendor " + rand.Text()[:6]}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: name, NotBefore: made, NotAfter: ends,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return &Vendor{Root: create(t, template, template, key.Public(), key), key: key}
}

// PEM returns the root as a file of roots holds it.
func (v *Vendor) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v.Root.Raw})
}

// Endorsements returns the vendor's root alone.
func (v *Vendor) Endorsements(t testing.TB) *attest.Endorsements {
	t.Helper()
	e, err := attest.Configured(v.PEM())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// A CardConfig says what evidence states; the zero value is a card that the default
// policy accepts.
type CardConfig struct {
	Curve     elliptic.Curve // nil: P-256
	Firmware  [3]byte        // zero: 5.7.1
	Slot      string         // "": 9a
	PINPolicy byte           // 0: once
	Serial    int64          // 0: random
	// Leave names an extension (1.3.6.1.4.1.41482.3.Leave) to leave out.
	Leave int
}

// A Card holds a key in Slot and one in 9d.
type Card struct {
	Key      *ecdsa.PrivateKey
	Evidence attest.Evidence
}

// Card makes a card.
func (v *Vendor) Card(t testing.TB, cfg CardConfig) *Card {
	t.Helper()
	if cfg.Curve == nil {
		cfg.Curve = elliptic.P256()
	}
	if cfg.Firmware == [3]byte{} {
		cfg.Firmware = [3]byte{5, 7, 1}
	}
	if cfg.Slot == "" {
		cfg.Slot = "9a"
	}
	if cfg.PINPolicy == 0 {
		cfg.PINPolicy = 2
	}
	if cfg.Serial == 0 {
		cfg.Serial = serial().Int64()&0xffffff + 1
	}
	f9Key := newKey(t, elliptic.P256())
	f9 := create(t, &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Yubico PIV Attestation"}, NotBefore: made, NotAfter: ends,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}, v.Root, f9Key.Public(), v.key)
	statement := func(slot string, key crypto.PublicKey) [][]byte {
		return [][]byte{create(t, &x509.Certificate{
			SerialNumber: serial(), Subject: pkix.Name{CommonName: "YubiKey PIV Attestation " + slot},
			NotBefore: made, NotAfter: ends, ExtraExtensions: cfg.extensions(t),
		}, f9, key, f9Key).Raw, f9.Raw}
	}
	key := newKey(t, cfg.Curve)
	return &Card{Key: key, Evidence: attest.Evidence{
		Format: attest.FormatYubicoPIV, Chain: statement(cfg.Slot, key.Public()),
		KeyManagement: statement("9d", newKey(t, cfg.Curve).Public()),
	}}
}

// extensions are Yubico's, "PIV attestation": firmware, serial number, PIN and touch
// policy, form factor.
func (cfg *CardConfig) extensions(t testing.TB) []pkix.Extension {
	number, err := asn1.Marshal(cfg.Serial)
	if err != nil {
		t.Fatal(err)
	}
	values := map[int][]byte{3: cfg.Firmware[:], 7: number, 8: {cfg.PINPolicy, 1}, 9: {1}}
	var out []pkix.Extension
	for _, n := range []int{3, 7, 8, 9} {
		if n != cfg.Leave {
			out = append(out, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, n}, Value: values[n]})
		}
	}
	return out
}

// ID returns the id of the device that the card's key is.
func (c *Card) ID(t testing.TB) identity.DeviceID {
	t.Helper()
	id, err := identity.DeviceIDOf(c.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Answer returns the attestation object that answers a challenge.
func (c *Card) Answer(t testing.TB, keyAuthorization string) []byte {
	t.Helper()
	return Answer(t, c.Key, c.Evidence, keyAuthorization)
}

// Answer signs with any key and shows any evidence: an honest card's match.
func Answer(t testing.TB, key crypto.Signer, ev attest.Evidence, keyAuthorization string) []byte {
	t.Helper()
	challenge, err := attest.Answer(key, []byte(keyAuthorization))
	if err != nil {
		t.Fatal(err)
	}
	object, err := attest.MarshalAttestationObject(attest.NewAttestationObject(ev, challenge))
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// CSR returns a request signed by key that names nobody but what is in extra.
func CSR(t testing.TB, key crypto.Signer, extra ...pkix.Extension) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{ExtraExtensions: extra}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func newKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func create(t testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func serial() *big.Int {
	b := make([]byte, 8)
	rand.Read(b)
	b[0] = b[0]&0x7f | 1
	return new(big.Int).SetBytes(b)
}
