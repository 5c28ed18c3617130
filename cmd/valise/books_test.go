// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"iter"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"valise/attest"
	"valise/identity"
	"valise/ledger"
	"valise/manifest"
	"valise/statement"
)

const auditDomain = "interieur.example"

var auditBegin = time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)

// books is an authority that writes a record, with software keys in the place of
// tokens and cards. Minute n is the time of leaf n.
type books struct {
	t                  testing.TB
	root, issuer       *x509.Certificate
	rootKey, issuerKey *ecdsa.PrivateKey
	bulletinKey        *ecdsa.PrivateKey
	ledgerKey          crypto.Signer
	manifest           *manifest.Manifest
	manifestRaw        []byte
	officers           []officer // two officers, then two administrators
	rosters            map[string][32]byte
	serial             int64
	devices            []*x509.Certificate
	items              []ledger.Item
}

type officer struct {
	key   *ecdsa.PrivateKey
	chain [][]byte
}

// newBooks founds an authority in which two people have devices:
//
//	0 founding, 1-4 officers' certificates, 5 manifest, 6-9 two lines of the roster,
//	10 alice's invitation, 11-12 approvals, 13 device, 14-17 bob's, 18 alice's renewal
func newBooks(t testing.TB) *books {
	t.Helper()
	b := &books{t: t, rosters: make(map[string][32]byte), serial: 100, ledgerKey: newLedgerKey(t)}
	b.rootKey, b.issuerKey, b.bulletinKey = b.key(t), b.key(t), b.key(t)
	profile := func(key *ecdsa.PrivateKey, serial int64) identity.CAProfile {
		return identity.CAProfile{
			Domain: auditDomain, PublicKey: key.Public(), Serial: big.NewInt(serial),
			NotBefore: auditBegin.AddDate(-1, 0, 0), NotAfter: auditBegin.AddDate(10, 0, 0),
		}
	}
	template, err := identity.RootTemplate(profile(b.rootKey, 1))
	b.must(err)
	b.root = b.certify(template, template, b.rootKey)
	template, err = identity.IssuerTemplate(profile(b.issuerKey, 2))
	b.must(err)
	b.issuer = b.certify(template, b.root, b.rootKey)
	b.found()
	b.renew(t, nil)

	alice, bob := "alice@"+auditDomain, "bob@"+auditDomain
	b.decide(b.roster(alice), 0, 1)
	b.decide(b.roster(bob), 0, 1)
	key := b.key(t)
	b.decide(&statement.Invitation{Address: b.address(alice), Key: "key-1"}, 0)
	b.decide(b.approval(t, alice, key), 0, 1)
	b.issueDevice(t, alice, key)
	b.decide(&statement.Invitation{Address: b.address(bob), Key: "key-2"}, 1)
	second := b.key(t)
	b.decide(b.approval(t, bob, second), 0, 1)
	b.issueDevice(t, bob, second)
	b.issueDevice(t, alice, key)
	return b
}

func (b *books) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *books) key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (b *books) address(s string) identity.Address {
	b.t.Helper()
	a, err := identity.ParseAddress(s)
	b.must(err)
	return a
}

func (b *books) certify(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) *x509.Certificate {
	b.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, template.PublicKey, signer)
	b.must(err)
	cert, err := x509.ParseCertificate(der)
	b.must(err)
	return cert
}

func (b *books) now() time.Time { return after(auditBegin, len(b.items)) }

// record appends a leaf.
func (b *books) record(kind ledger.Kind, payload []byte) {
	b.t.Helper()
	entry, err := ledger.NewEntry(kind, payload, b.now())
	b.must(err)
	b.items = append(b.items, ledger.Item{Index: int64(len(b.items)), Entry: entry, Payload: payload})
}

func (b *books) found() {
	b.t.Helper()
	f := &manifest.Founding{
		Domain: auditDomain, Time: auditBegin, Ceremony: [32]byte{1},
		Profiles: []manifest.Profile{{
			Name: "device", Version: 1, Approvals: 2, Validity: 7 * 24 * time.Hour, Grace: 30 * 24 * time.Hour,
			Tiers: []identity.Tier{identity.TierHardware},
		}},
		Endorsements: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.root.Raw}),
	}
	var err error
	f.Appraisal, err = new(attest.AppraisalPolicy).Canonical()
	b.must(err)
	for i, role := range []identity.Role{identity.RoleOfficer, identity.RoleOfficer, identity.RoleAdministrator, identity.RoleAdministrator} {
		key := b.key(b.t)
		b.serial++
		p := identity.OfficerProfile{
			Address: b.address(fmt.Sprintf("officer%d@%s", i, auditDomain)), PublicKey: key.Public(), Role: role, Tier: identity.TierHardware,
			EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2}, Serial: big.NewInt(b.serial),
			NotBefore: auditBegin.AddDate(0, -1, 0), NotAfter: auditBegin.AddDate(1, 0, 0),
		}
		template, err := p.Template()
		b.must(err)
		cert := b.certify(template, b.issuer, b.issuerKey)
		b.officers = append(b.officers, officer{key, [][]byte{cert.Raw, b.issuer.Raw}})
		f.Officers = append(f.Officers, cert.Raw)
	}
	raw, err := manifest.Sign(b.t.Context(), b.rootKey, b.root, f)
	b.must(err)
	b.record(ledger.KindFounding, raw)
	for _, o := range b.officers {
		cert, err := x509.ParseCertificate(o.chain[0])
		b.must(err)
		b.record(ledger.KindIssuance, cert.RawTBSCertificate)
	}
}

// renew records a manifest with the present ledger key. The lost one's
// checkpoints count until now.
func (b *books) renew(t testing.TB, lost crypto.Signer) {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(b.bulletinKey.Public())
	b.must(err)
	m := &manifest.Manifest{
		Number: 1, Domain: auditDomain, Time: b.now(), Origin: ledger.Origin(auditDomain),
		Issuers: []manifest.Issuer{{Certificate: b.issuer.Raw}}, Bulletin: []manifest.Key{{SPKI: spki}},
		Ledger: []manifest.LedgerKey{{Public: b.ledgerKey.Public().(ed25519.PublicKey)}},
	}
	if b.manifest != nil {
		m.Number, m.Previous = b.manifest.Number+1, b.manifest.Digest()
	}
	if lost != nil {
		m.Ledger = append(m.Ledger, manifest.LedgerKey{Public: lost.Public().(ed25519.PublicKey), Until: after(b.now(), -1)})
	}
	raw, err := manifest.Sign(t.Context(), b.rootKey, b.root, m)
	b.must(err)
	b.manifest, err = manifest.ParseManifest(raw, b.root)
	b.must(err)
	b.manifestRaw = raw
	b.record(ledger.KindManifest, raw)
}

// distrust records a manifest that ends the use of the issuing certificate now.
func (b *books) distrust(t testing.TB) {
	t.Helper()
	m := *b.manifest
	m.Number, m.Previous, m.Time = m.Number+1, b.manifest.Digest(), b.now()
	m.Issuers = []manifest.Issuer{{Certificate: b.issuer.Raw, Until: b.now()}}
	raw, err := manifest.Sign(t.Context(), b.rootKey, b.root, &m)
	b.must(err)
	b.record(ledger.KindManifest, raw)
}

// decide records the statement of each officer in turn.
func (b *books) decide(body statement.Body, officers ...int) {
	b.t.Helper()
	for _, n := range officers {
		o := b.officers[n]
		head := statement.Head{Authority: sha256.Sum256(b.root.Raw), ID: statement.NewID(), Time: b.now(), Expires: b.now().Add(time.Hour)}
		raw, err := statement.Sign(b.t.Context(), o.key, o.chain, head, body)
		b.must(err)
		b.record(ledger.KindStatement, raw)
	}
}

func (b *books) roster(address string) *statement.Roster {
	r := &statement.Roster{Change: statement.NewID(), Address: b.address(address), Name: "A. Person", Previous: b.rosters[address]}
	b.rosters[address] = statement.BodyDigest(r)
	return r
}

func (b *books) approval(t testing.TB, address string, key *ecdsa.PrivateKey) *statement.Approval {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	b.must(err)
	id, err := identity.DeviceIDOf(key.Public())
	b.must(err)
	b.serial++
	return &statement.Approval{Request: fmt.Sprintf("order-%d", b.serial), Template: statement.Template{
		Address: b.address(address), Device: id, CSRKey: spki, Role: statement.RoleDevice, Profile: "device", ProfileVersion: 1,
		Tier: identity.TierHardware, Validity: 7 * 24 * time.Hour, Evidence: [32]byte{3}, Appraisal: [32]byte{4},
	}}
}

// issueDevice records a device's certificate and signs it.
func (b *books) issueDevice(t testing.TB, address string, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	b.serial++
	p := identity.DeviceProfile{
		Address: b.address(address), PublicKey: key.Public(), Tier: identity.TierHardware, EvidenceHash: [32]byte{3}, PolicyHash: [32]byte{4},
		Serial: big.NewInt(b.serial), NotBefore: b.now(), NotAfter: b.now().Add(7 * 24 * time.Hour),
	}
	template, err := p.Template()
	b.must(err)
	cert := b.certify(template, b.issuer, b.issuerKey)
	b.record(ledger.KindIssuance, cert.RawTBSCertificate)
	b.devices = append(b.devices, cert)
	return cert
}

// rewrite gives a leaf another salt.
func (b *books) rewrite(t testing.TB, n int) {
	t.Helper()
	entry := *b.items[n].Entry
	entry.Salt[0] ^= 1
	b.items[n].Entry = &entry
}

func (b *books) checkpoint(t testing.TB, items []ledger.Item, key crypto.Signer) []byte {
	t.Helper()
	var tree ledger.Builder
	for _, i := range items {
		b.must(tree.Add(i.Entry.Leaf()))
	}
	text, err := ledger.SignCheckpoint(t.Context(), ledger.Origin(auditDomain), tree.Head(), key)
	b.must(err)
	return text
}

func (b *books) all() iter.Seq2[ledger.Item, error] {
	return func(yield func(ledger.Item, error) bool) {
		for _, i := range b.items {
			if !yield(i, nil) {
				return
			}
		}
	}
}

// copy writes a copy of the record as it stands.
func (b *books) copy(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "copy")
	b.must(ledger.WriteCopy(dir, b.checkpoint(t, b.items, b.ledgerKey), b.all()))
	return dir
}

func (b *books) file(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	b.must(os.WriteFile(path, data, 0o600))
	return path
}

func (b *books) put(t testing.TB, dir, name string, certs ...*x509.Certificate) {
	t.Helper()
	var data []byte
	for _, c := range certs {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	b.must(os.WriteFile(filepath.Join(dir, name), data, 0o600))
}

// seen writes what somebody collected in the world: devices' chains.
func (b *books) seen(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for i, d := range b.devices {
		b.put(t, dir, fmt.Sprintf("device%d.pem", i), d, b.issuer, b.root)
	}
	return dir
}
