// SPDX-License-Identifier: Apache-2.0

// Package paper makes an authority for tests that need its documents and not its
// daemon: root, issuing certificate, officers, manifest, record, all real but
// for the hardware. Software keys are the double of tokens and cards.
//
//	a := paper.New(t, "interieur.example")
//	olga := a.Officer("olga", identity.RoleOfficer)
//	raw := olga.Sign(&statement.Suspension{…})
package paper

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"valise/bulletin"
	"valise/identity"
	"valise/ledger"
	"valise/manifest"
	"valise/statement"
)

// An Authority is one with all its keys at hand.
type Authority struct {
	Domain       string
	Root, Issuer *x509.Certificate
	Start        time.Time // validity of its certificates begins here

	RootKey, IssuerKey, BulletinKey *ecdsa.PrivateKey
	LedgerKey                       ed25519.PrivateKey

	t      testing.TB
	serial int64
}

// New founds an authority that began an hour ago.
func New(t testing.TB, domain string) *Authority {
	t.Helper()
	a := &Authority{
		Domain: domain, Start: time.Now().UTC().Truncate(time.Second).Add(-time.Hour), t: t,
		RootKey: NewKey(t), IssuerKey: NewKey(t), BulletinKey: NewKey(t),
	}
	var err error
	if _, a.LedgerKey, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	a.Root = a.issue(a.ca(identity.RootTemplate, a.RootKey), nil, a.RootKey)
	a.Issuer = a.issue(a.ca(identity.IssuerTemplate, a.IssuerKey), a.Root, a.RootKey)
	return a
}

// NewKey makes a key on P-256, the double of one in hardware.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *Authority) next() *big.Int {
	a.serial++
	return big.NewInt(a.serial)
}

func (a *Authority) ca(template func(identity.CAProfile) (*x509.Certificate, error), key crypto.Signer) *x509.Certificate {
	a.t.Helper()
	cert, err := template(identity.CAProfile{
		Domain: a.Domain, PublicKey: key.Public(), Serial: a.next(), NotBefore: a.Start.AddDate(-1, 0, 0), NotAfter: a.Start.AddDate(10, 0, 0),
	})
	return Must(a.t, cert, err)
}

func (a *Authority) issue(template, parent *x509.Certificate, signer crypto.Signer) *x509.Certificate {
	a.t.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, template.PublicKey, signer)
	cert, err := x509.ParseCertificate(Must(a.t, der, err))
	return Must(a.t, cert, err)
}

// Trust pins the root.
func (a *Authority) Trust() *identity.Trust {
	return identity.NewTrust(identity.Authority{Domain: a.Domain, Roots: []*x509.Certificate{a.Root}})
}

// RootHash is what statements name the authority by.
func (a *Authority) RootHash() [32]byte { return sha256.Sum256(a.Root.Raw) }

// Address returns a person's.
func (a *Authority) Address(name string) identity.Address {
	a.t.Helper()
	address, err := identity.ParseAddress(name + "@" + a.Domain)
	return Must(a.t, address, err)
}

// Device certifies a device and returns what its chain proves.
func (a *Authority) Device(name string, key crypto.Signer) *identity.Device {
	a.t.Helper()
	p := identity.DeviceProfile{
		Address: a.Address(name), PublicKey: key.Public(), Tier: identity.TierHardware, EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2},
		Serial: a.next(), NotBefore: a.Start, NotAfter: a.Start.AddDate(0, 0, 7),
	}
	template, err := p.Template()
	leaf := a.issue(Must(a.t, template, err), a.Issuer, a.IssuerKey)
	device, err := a.Trust().Device([][]byte{leaf.Raw, a.Issuer.Raw}, a.Start.Add(time.Minute))
	return Must(a.t, device, err)
}

// Gateway certifies a gateway's key under a name and returns what it serves with.
func (a *Authority) Gateway(name string) *tls.Certificate {
	a.t.Helper()
	key := NewKey(a.t)
	p := identity.GatewayProfile{
		Name: name, PublicKey: key.Public(), Tier: identity.TierWitnessed, Serial: a.next(), NotBefore: a.Start, NotAfter: a.Start.AddDate(0, 3, 0),
	}
	template, err := p.Template()
	leaf := a.issue(Must(a.t, template, err), a.Issuer, a.IssuerKey)
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.Issuer.Raw}, PrivateKey: key, Leaf: leaf}
}

// Server certifies the authority's own listener at an address or name.
func (a *Authority) Server(name string) *tls.Certificate {
	a.t.Helper()
	key := NewKey(a.t)
	template := &x509.Certificate{
		PublicKey: key.Public(), SerialNumber: a.next(), NotBefore: a.Start, NotAfter: a.Start.AddDate(0, 3, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		template.IPAddresses = []net.IP{addr.AsSlice()}
	} else {
		template.DNSNames = []string{name}
	}
	leaf := a.issue(template, a.Issuer, a.IssuerKey)
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.Issuer.Raw, a.Root.Raw}, PrivateKey: key, Leaf: leaf}
}

// An Officer signs with a key of their own.
type Officer struct {
	Address identity.Address
	Role    identity.Role
	Key     *ecdsa.PrivateKey
	ID      identity.DeviceID
	Leaf    *x509.Certificate
	Chain   [][]byte

	a *Authority
}

// Officer certifies an officer.
func (a *Authority) Officer(name string, role identity.Role) *Officer {
	a.t.Helper()
	o := &Officer{Address: a.Address(name), Role: role, Key: NewKey(a.t), a: a}
	p := identity.OfficerProfile{
		Address: o.Address, PublicKey: o.Key.Public(), Role: role, Tier: identity.TierHardware, EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2},
		Serial: a.next(), NotBefore: a.Start, NotAfter: a.Start.AddDate(1, 0, 0),
	}
	template, err := p.Template()
	o.Leaf = a.issue(Must(a.t, template, err), a.Issuer, a.IssuerKey)
	o.Chain = [][]byte{o.Leaf.Raw, a.Issuer.Raw}
	id, err := identity.DeviceIDOf(o.Key.Public())
	o.ID = Must(a.t, id, err)
	return o
}

// SignAt has the officer sign a body at a time, good for an hour.
func (o *Officer) SignAt(b statement.Body, at time.Time) []byte {
	o.a.t.Helper()
	at = at.UTC().Truncate(time.Second)
	raw, err := statement.Sign(o.a.t.Context(), o.Key, o.Chain, statement.Head{
		Authority: o.a.RootHash(), ID: statement.NewID(), Time: at, Expires: at.Add(time.Hour),
	}, b)
	return Must(o.a.t, raw, err)
}

// Sign has the officer sign a body now.
func (o *Officer) Sign(b statement.Body) []byte {
	o.a.t.Helper()
	return o.SignAt(b, time.Now())
}

// Verified has the officer sign a body now and verifies it.
func (o *Officer) Verified(b statement.Body) *statement.Statement {
	o.a.t.Helper()
	st, err := statement.Verify(o.Sign(b), o.a.Trust(), o.a.RootHash(), time.Now())
	return Must(o.a.t, st, err)
}

// Manifest makes a manifest of the authority's keys, unsigned.
func (a *Authority) Manifest(number uint64, previous [32]byte) *manifest.Manifest {
	a.t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(a.BulletinKey.Public())
	return &manifest.Manifest{
		Number: number, Domain: a.Domain, Time: a.Start, Origin: ledger.Origin(a.Domain), Previous: previous,
		Issuers:  []manifest.Issuer{{Certificate: a.Issuer.Raw}},
		Bulletin: []manifest.Key{{SPKI: Must(a.t, spki, err)}},
		Ledger:   []manifest.LedgerKey{{Public: a.LedgerKey.Public().(ed25519.PublicKey)}},
	}
}

// Founding makes a founding record, unsigned.
func (a *Authority) Founding(officers ...*Officer) *manifest.Founding {
	f := &manifest.Founding{
		Domain: a.Domain, Time: a.Start, Appraisal: []byte("{}"),
		Endorsements: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Root.Raw}), // a vendor's root like any other
		Profiles: []manifest.Profile{{
			Name: "device", Version: 1, Validity: 7 * 24 * time.Hour, Grace: 30 * 24 * time.Hour, Tiers: []identity.Tier{identity.TierHardware},
		}},
	}
	for _, o := range officers {
		f.Officers = append(f.Officers, o.Leaf.Raw)
		f.Profiles[0].Approvals = 2
	}
	return f
}

// SignRoot has the root sign a founding record or manifest.
func (a *Authority) SignRoot(d manifest.Document) []byte {
	a.t.Helper()
	raw, err := manifest.Sign(a.t.Context(), a.RootKey, a.Root, d)
	return Must(a.t, raw, err)
}

// First signs the first manifest and returns it as a reader sees it.
func (a *Authority) First() (raw []byte, m *manifest.Manifest) {
	a.t.Helper()
	raw = a.SignRoot(a.Manifest(1, [32]byte{}))
	m, err := manifest.ParseManifest(raw, a.Root)
	return raw, Must(a.t, m, err)
}

// Bulletin makes an empty bulletin of now, unsigned.
func (a *Authority) Bulletin(number uint64) *bulletin.Bulletin {
	now := time.Now().UTC().Truncate(time.Second)
	return &bulletin.Bulletin{Number: number, Time: now, Next: now.Add(30 * time.Second), Manifest: 1}
}

// SignBulletin has the bulletin key sign.
func (a *Authority) SignBulletin(b *bulletin.Bulletin) []byte {
	a.t.Helper()
	raw, err := bulletin.Sign(a.t.Context(), a.BulletinKey, b)
	return Must(a.t, raw, err)
}

// Checkpoint has the ledger key sign a head.
func (a *Authority) Checkpoint(h ledger.Head) []byte {
	a.t.Helper()
	note, err := ledger.SignCheckpoint(a.t.Context(), ledger.Origin(a.Domain), h, a.LedgerKey)
	return Must(a.t, note, err)
}

// Must ends the test on an error.
func Must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}
