// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"slices"
	"testing"
	"time"
)

var (
	from = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	to   = from.Add(7 * 24 * time.Hour)
	noon = from.Add(12 * time.Hour)
)

// An authority in a test: software keys are the double of its token.
type testAuthority struct {
	t            testing.TB
	domain       string
	root, issuer *x509.Certificate
	rootKey      crypto.Signer
	issuerKey    crypto.Signer
}

// alter changes a template before it is signed.
type alter func(*x509.Certificate)

func newAuthority(t testing.TB, domain string, curve elliptic.Curve) *testAuthority {
	t.Helper()
	a := &testAuthority{t: t, domain: domain, rootKey: newKey(t, curve), issuerKey: newKey(t, curve)}
	root, err := RootTemplate(a.profile(a.rootKey, 1))
	if err != nil {
		t.Fatal(err)
	}
	a.root = sign(t, root, root, a.rootKey)
	issuer, err := IssuerTemplate(a.profile(a.issuerKey, 2))
	if err != nil {
		t.Fatal(err)
	}
	a.issuer = sign(t, issuer, a.root, a.rootKey)
	return a
}

func (a *testAuthority) profile(key crypto.Signer, serial int64) CAProfile {
	return CAProfile{
		Domain: a.domain, PublicKey: key.Public(), Serial: big.NewInt(serial),
		NotBefore: from.AddDate(-1, 0, 0), NotAfter: from.AddDate(10, 0, 0),
	}
}

func (a *testAuthority) trust() *Trust {
	return NewTrust(Authority{Domain: a.domain, Roots: []*x509.Certificate{a.root}})
}

// reissue signs the issuer's certificate anew, altered.
func (a *testAuthority) reissue(changes ...alter) *testAuthority {
	a.t.Helper()
	template, err := IssuerTemplate(a.profile(a.issuerKey, 2))
	if err != nil {
		a.t.Fatal(err)
	}
	apply(template, changes)
	altered := *a
	altered.issuer = sign(a.t, template, a.root, a.rootKey)
	return &altered
}

func (a *testAuthority) deviceProfile(key crypto.PublicKey) *DeviceProfile {
	address, err := ParseAddress("alice@" + a.domain)
	if err != nil {
		a.t.Fatal(err)
	}
	return &DeviceProfile{
		Address: address, PublicKey: key, Tier: TierHardware,
		EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2},
		Serial: big.NewInt(77), NotBefore: from, NotAfter: to,
	}
}

// device issues a device's certificate, altered, and returns its chain.
func (a *testAuthority) device(key crypto.PublicKey, changes ...alter) [][]byte {
	a.t.Helper()
	template, err := a.deviceProfile(key).Template()
	if err != nil {
		a.t.Fatal(err)
	}
	apply(template, changes)
	return a.chain(template)
}

func (a *testAuthority) chain(template *x509.Certificate) [][]byte {
	a.t.Helper()
	return [][]byte{sign(a.t, template, a.issuer, a.issuerKey).Raw, a.issuer.Raw}
}

func (a *testAuthority) gateway(name string, more []string, changes ...alter) [][]byte {
	a.t.Helper()
	p := &GatewayProfile{
		Name: name, More: more, PublicKey: newKey(a.t, elliptic.P256()).Public(), Tier: TierWitnessed,
		Serial: big.NewInt(78), NotBefore: from, NotAfter: to,
	}
	template, err := p.Template()
	if err != nil {
		a.t.Fatal(err)
	}
	apply(template, changes)
	return a.chain(template)
}

func sign(t testing.TB, template, parent *x509.Certificate, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, template.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func apply(template *x509.Certificate, changes []alter) {
	for _, change := range changes {
		change(template)
	}
}

// flip changes the last bit of a certificate, which belongs to its signature.
func flip(der []byte) []byte {
	der = slices.Clone(der)
	der[len(der)-1] ^= 1
	return der
}
