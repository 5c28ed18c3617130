// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"valise/identity"
)

// authority is a certification authority with software keys: the double of the
// one whose keys live in an HSM.
type authority struct {
	domain    string
	root      *x509.Certificate
	issuer    *x509.Certificate
	issuerKey *ecdsa.PrivateKey
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSerial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	return n.Add(n, big.NewInt(1))
}

func sign(t testing.TB, template, parent *x509.Certificate, public any, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newAuthority(t testing.TB, domain string) *authority {
	t.Helper()
	rootKey, issuerKey := newKey(t), newKey(t)
	ca := func(key *ecdsa.PrivateKey) identity.CAProfile {
		return identity.CAProfile{
			Domain: domain, PublicKey: key.Public(), Serial: newSerial(t),
			NotBefore: time.Now().Add(-100 * time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		}
	}
	rootTemplate, err := identity.RootTemplate(ca(rootKey))
	if err != nil {
		t.Fatal(err)
	}
	issuerTemplate, err := identity.IssuerTemplate(ca(issuerKey))
	if err != nil {
		t.Fatal(err)
	}
	root := sign(t, rootTemplate, rootTemplate, rootKey.Public(), rootKey)
	return &authority{
		domain: domain, root: root, issuerKey: issuerKey,
		issuer: sign(t, issuerTemplate, root, issuerKey.Public(), rootKey),
	}
}

func (a *authority) trust() *identity.Trust {
	return identity.NewTrust(identity.Authority{Domain: a.domain, Roots: []*x509.Certificate{a.root}})
}

// device certifies a key for local@domain between two moments from now.
func (a *authority) device(t testing.TB, local string, key *ecdsa.PrivateKey, from, to time.Duration) [][]byte {
	t.Helper()
	return a.deviceAs(t, local, key, from, to, func(*identity.DeviceProfile) {})
}

// deviceAs is device for a profile that differs.
func (a *authority) deviceAs(t testing.TB, local string, key *ecdsa.PrivateKey, from, to time.Duration, change func(*identity.DeviceProfile)) [][]byte {
	t.Helper()
	address, err := identity.ParseAddress(local + "@" + a.domain)
	if err != nil {
		t.Fatal(err)
	}
	profile := identity.DeviceProfile{
		Address: address, PublicKey: key.Public(), Tier: identity.TierHardware, EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2},
		Serial: newSerial(t), NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
	}
	change(&profile)
	template, err := profile.Template()
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{sign(t, template, a.issuer, key.Public(), a.issuerKey).Raw, a.issuer.Raw}
}

func (a *authority) gateway(t testing.TB, name string) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	profile := identity.GatewayProfile{
		Name: name, PublicKey: key.Public(), Tier: identity.TierWitnessed, EvidenceHash: [32]byte{3}, PolicyHash: [32]byte{2},
		Serial: newSerial(t), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
	}
	template, err := profile.Template()
	if err != nil {
		t.Fatal(err)
	}
	leaf := sign(t, template, a.issuer, key.Public(), a.issuerKey)
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.issuer.Raw}, PrivateKey: key}
}

// testWriter puts the log of a gateway under test into that of the test.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p))
	return len(p), nil
}
