// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"valise/identity"
	"valise/internal/jws"
)

const domain = "interieur.example"

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// An authority in a test: software keys are the double of its tokens.
type authority struct {
	root, issuer       *x509.Certificate
	rootKey, issuerKey *ecdsa.PrivateKey
	bulletin           *ecdsa.PrivateKey
	ledger             ed25519.PublicKey
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{rootKey: newKey(t), issuerKey: newKey(t), bulletin: newKey(t)}
	var err error
	if a.ledger, _, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	template, err := identity.RootTemplate(a.profile(a.rootKey))
	if err != nil {
		t.Fatal(err)
	}
	a.root = issue(t, template, template, a.rootKey)
	if template, err = identity.IssuerTemplate(a.profile(a.issuerKey)); err != nil {
		t.Fatal(err)
	}
	a.issuer = issue(t, template, a.root, a.rootKey)
	return a
}

func (a *authority) profile(key crypto.Signer) identity.CAProfile {
	return identity.CAProfile{
		Domain: domain, PublicKey: key.Public(), Serial: big.NewInt(7),
		NotBefore: noon.AddDate(-1, 0, 0), NotAfter: noon.AddDate(10, 0, 0),
	}
}

func issue(t testing.TB, template, parent *x509.Certificate, signer crypto.Signer) *x509.Certificate {
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

func spki(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (a *authority) manifest(t testing.TB, number uint64) *Manifest {
	m := &Manifest{
		Number: number, Domain: domain, Time: noon, Origin: domain + "/valise",
		Issuers:  []Issuer{{Certificate: a.issuer.Raw}},
		Bulletin: []Key{{SPKI: spki(t, a.bulletin)}},
		Ledger:   []LedgerKey{{Public: a.ledger}},
	}
	if number > 1 {
		m.Previous = [32]byte{9}
	}
	return m
}

func (a *authority) founding(t testing.TB) *Founding {
	return &Founding{
		Domain: domain, Time: noon, Officers: [][]byte{a.officer(t), a.officer(t)},
		Profiles: []Profile{{
			Name: "device", Version: 1, Approvals: 2, Validity: 7 * 24 * time.Hour, Grace: 30 * 24 * time.Hour,
			Tiers: []identity.Tier{identity.TierHardware},
		}},
		Endorsements: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw}),
		Appraisal:    []byte(`{"a":"<&>"}`), Ceremony: [32]byte{1, 2, 3},
	}
}

func (a *authority) officer(t testing.TB) []byte {
	t.Helper()
	address, err := identity.ParseAddress("olga@" + domain)
	if err != nil {
		t.Fatal(err)
	}
	p := identity.OfficerProfile{
		Address: address, PublicKey: newKey(t).Public(), Role: identity.RoleOfficer, Tier: identity.TierHardware,
		EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2}, Serial: big.NewInt(8), NotBefore: noon, NotAfter: noon.AddDate(1, 0, 0),
	}
	template, err := p.Template()
	if err != nil {
		t.Fatal(err)
	}
	return issue(t, template, a.issuer, a.issuerKey).Raw
}

// forge signs a document without the checks of Sign.
func (a *authority) forge(t testing.TB, typ string, chain [][]byte, key crypto.Signer, body any) []byte {
	t.Helper()
	payload, err := jws.Encode(body)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jws.Sign(t.Context(), key, jws.Header{Typ: typ, X5C: chain}, payload)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestManifest(t *testing.T) {
	a := newAuthority(t)
	m := a.manifest(t, 3)
	m.Issuers[0].Until = noon.AddDate(1, 0, 0)
	raw, err := Sign(t.Context(), a.rootKey, a.root, m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseManifest(raw, a.root)
	if err != nil {
		t.Fatal(err)
	}
	m.digest = got.digest
	if !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, want %+v", got, m)
	}
	if certs, err := got.Certificates(noon); err != nil || len(certs) != 1 || !certs[0].Equal(a.issuer) {
		t.Errorf("certificates %v, %v", certs, err)
	}
	if certs, _ := got.Certificates(noon.AddDate(2, 0, 0)); len(certs) != 0 {
		t.Error("an issuing certificate counts after its use ended")
	}
	key, err := got.BulletinKey(got.Bulletin[0].ID(), noon)
	if err != nil || !a.bulletin.PublicKey.Equal(key) {
		t.Errorf("bulletin key %v, %v", key, err)
	}
	if _, err := got.BulletinKey(strings.Repeat("0", 64), noon); !errors.Is(err, ErrRefused) {
		t.Errorf("unknown key: %v", err)
	}
	if keys := got.LedgerKeys(noon); len(keys) != 1 || !keys[0].Equal(a.ledger) {
		t.Errorf("ledger keys %v", keys)
	}
}

// Each case differs from the honest control in one thing and is refused by a
// verifier, whatever the signer would have thought of it.
func TestManifestRefused(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	leaf := a.officer(t)
	deep := func() []byte {
		template, err := identity.IssuerTemplate(a.profile(newKey(t)))
		if err != nil {
			t.Fatal(err)
		}
		template.MaxPathLen, template.MaxPathLenZero = 1, false
		return issue(t, template, a.root, a.rootKey).Raw
	}()
	for name, change := range map[string]func(*Manifest){
		"honest control":      func(*Manifest) {},
		"number 0":            func(m *Manifest) { m.Number = 0 },
		"first with previous": func(m *Manifest) { m.Number = 1 },
		"no previous":         func(m *Manifest) { m.Previous = [32]byte{} },
		"domain":              func(m *Manifest) { m.Domain = "Interieur.example" },
		"time":                func(m *Manifest) { m.Time = time.Time{} },
		"origin's domain":     func(m *Manifest) { m.Origin = "justice.example/valise" },
		"origin's letters":    func(m *Manifest) { m.Origin += " +" },
		"no issuer":           func(m *Manifest) { m.Issuers = nil },
		"no bulletin key":     func(m *Manifest) { m.Bulletin = nil },
		"no ledger key":       func(m *Manifest) { m.Ledger = nil },
		"too many keys": func(m *Manifest) {
			for range MaxKeys {
				m.Bulletin = append(m.Bulletin, Key{SPKI: spki(t, newKey(t))})
			}
		},
		"issuer of another root": func(m *Manifest) { m.Issuers[0].Certificate = other.issuer.Raw },
		"a leaf as issuer":       func(m *Manifest) { m.Issuers[0].Certificate = leaf },
		"the root as issuer":     func(m *Manifest) { m.Issuers[0].Certificate = a.root.Raw },
		"a path below issuer":    func(m *Manifest) { m.Issuers[0].Certificate = deep },
		"issuer key signs bulletins": func(m *Manifest) {
			m.Bulletin[0].SPKI = a.issuer.RawSubjectPublicKeyInfo
		},
		"key twice":           func(m *Manifest) { m.Bulletin = append(m.Bulletin, m.Bulletin[0]) },
		"no key":              func(m *Manifest) { m.Bulletin[0].SPKI = []byte("key") },
		"ledger key's length": func(m *Manifest) { m.Ledger[0].Public = m.Ledger[0].Public[1:] },
	} {
		m := a.manifest(t, 2)
		change(m)
		raw := a.forge(t, manifestType, [][]byte{a.root.Raw}, a.rootKey, m.payload())
		_, err := ParseManifest(raw, a.root)
		if honest := name == "honest control"; honest != (err == nil) || !honest && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Sign(t.Context(), a.rootKey, a.root, m); (name == "honest control") != (err == nil) {
			t.Errorf("%s: signing: %v", name, err)
		}
	}
}

func TestSignerRefused(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	body := a.manifest(t, 1).payload()
	control := a.forge(t, manifestType, [][]byte{a.root.Raw}, a.rootKey, body)
	if _, err := ParseManifest(control, a.root); err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"another root":       a.forge(t, manifestType, [][]byte{other.root.Raw}, other.rootKey, body),
		"another key":        a.forge(t, manifestType, [][]byte{a.root.Raw}, other.rootKey, body),
		"the issuing key":    a.forge(t, manifestType, [][]byte{a.root.Raw}, a.issuerKey, body),
		"chain to the root":  a.forge(t, manifestType, [][]byte{a.issuer.Raw, a.root.Raw}, a.issuerKey, body),
		"no chain":           a.forge(t, manifestType, nil, a.rootKey, body),
		"a founding's type":  a.forge(t, foundingType, [][]byte{a.root.Raw}, a.rootKey, body),
		"a statement's type": a.forge(t, "valise-approval+jws", [][]byte{a.root.Raw}, a.rootKey, body),
		"changed":            bytes.Replace(control, []byte("."), []byte(".A"), 1),
		"too large":          append(bytes.Clone(control), make([]byte, maxManifest)...),
	} {
		if _, err := ParseManifest(raw, a.root); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Sign(t.Context(), other.rootKey, a.root, a.manifest(t, 1)); err == nil {
		t.Error("signed with a key that is not the certificate's")
	}
}

func TestFollows(t *testing.T) {
	a := newAuthority(t)
	parse := func(m *Manifest) *Manifest {
		t.Helper()
		raw, err := Sign(t.Context(), a.rootKey, a.root, m)
		if err != nil {
			t.Fatal(err)
		}
		m, err = ParseManifest(raw, a.root)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first := parse(a.manifest(t, 1))
	if err := first.Follows(nil); err != nil {
		t.Error(err)
	}
	next := func(change func(*Manifest)) *Manifest {
		m := a.manifest(t, 2)
		m.Previous = first.Digest()
		change(m)
		return parse(m)
	}
	if err := next(func(*Manifest) {}).Follows(first); err != nil {
		t.Errorf("honest control: %v", err)
	}
	if err := next(func(m *Manifest) { m.Number = 5; m.Previous = [32]byte{7} }).Follows(first); err != nil {
		t.Errorf("a jump: %v", err)
	}
	for name, m := range map[string]*Manifest{
		"the same":            first,
		"another predecessor": next(func(m *Manifest) { m.Previous = [32]byte{7} }),
		"another domain":      next(func(m *Manifest) { m.Domain = "justice.example"; m.Origin = "justice.example/valise" }),
		"another origin":      next(func(m *Manifest) { m.Origin = domain + "/other" }),
		"back in time":        next(func(m *Manifest) { m.Time = noon.Add(-time.Hour) }),
	} {
		if err := m.Follows(first); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := first.Follows(next(func(*Manifest) {})); !errors.Is(err, ErrRefused) {
		t.Error("number 1 took the place of number 2")
	}
}

func TestFounding(t *testing.T) {
	a := newAuthority(t)
	f := a.founding(t)
	raw, err := Sign(t.Context(), a.rootKey, a.root, f)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseFounding(raw, a.root)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, f) || got.Lone() {
		t.Errorf("got %+v, want %+v", got, f)
	}
	if _, err := ParseManifest(raw, a.root); !errors.Is(err, ErrRefused) {
		t.Errorf("a founding record as a manifest: %v", err)
	}
	lone := a.founding(t)
	lone.Officers, lone.Profiles[0].Approvals, lone.Endorsements, lone.Appraisal = nil, 0, nil, nil
	raw, err = Sign(t.Context(), a.rootKey, a.root, lone)
	if err != nil {
		t.Fatal(err)
	}
	if got, err = ParseFounding(raw, a.root); err != nil || !got.Lone() {
		t.Errorf("lone: %+v, %v", got, err)
	}
}

func TestFoundingRefused(t *testing.T) {
	a := newAuthority(t)
	for name, change := range map[string]func(*Founding){
		"honest control":     func(*Founding) {},
		"domain":             func(f *Founding) { f.Domain = "x y" },
		"time":               func(f *Founding) { f.Time = time.Time{} },
		"officer twice":      func(f *Founding) { f.Officers[1] = f.Officers[0] },
		"no certificate":     func(f *Founding) { f.Officers[1] = []byte{0x30, 0} },
		"too many officers":  func(f *Founding) { f.Officers = make([][]byte, maxOfficers+1) },
		"no officers":        func(f *Founding) { f.Officers = nil }, // and two approvals
		"no profile":         func(f *Founding) { f.Profiles = nil },
		"profile twice":      func(f *Founding) { f.Profiles = append(f.Profiles, f.Profiles[0]) },
		"profile's name":     func(f *Founding) { f.Profiles[0].Name = "Device" },
		"profile's version":  func(f *Founding) { f.Profiles[0].Version = 0 },
		"negative approvals": func(f *Founding) { f.Profiles[0].Approvals = -1 },
		"no validity":        func(f *Founding) { f.Profiles[0].Validity = 0 },
		"long validity":      func(f *Founding) { f.Profiles[0].Validity = 200 * 366 * 24 * time.Hour },
		"negative grace":     func(f *Founding) { f.Profiles[0].Grace = -time.Hour },
		"no tier":            func(f *Founding) { f.Profiles[0].Tiers = nil },
		"unknown tier":       func(f *Founding) { f.Profiles[0].Tiers[0] = "software" },
		"endorsements":       func(f *Founding) { f.Endorsements = append(f.Endorsements, "more"...) },
		"appraisal":          func(f *Founding) { f.Appraisal = []byte("{") },
	} {
		f := a.founding(t)
		change(f)
		raw := a.forge(t, foundingType, [][]byte{a.root.Raw}, a.rootKey, f.payload())
		_, err := ParseFounding(raw, a.root)
		if honest := name == "honest control"; honest != (err == nil) || !honest && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	a := newAuthority(f)
	for _, m := range []Document{a.manifest(f, 1), a.founding(f)} {
		raw, err := Sign(f.Context(), a.rootKey, a.root, m)
		if err != nil {
			f.Fatal(err)
		}
		parsed, err := jws.Parse(raw, maxFounding)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(parsed.Payload)
	}
	f.Add([]byte(`{}`))
	// A signature would keep the fuzzer out: what it would cover is fuzzed. What is
	// accepted marshals back to the same bytes.
	f.Fuzz(func(t *testing.T, payload []byte) {
		check := func(d Document, err error) {
			if err != nil {
				return
			}
			if again, err := jws.Encode(d.payload()); err != nil || !bytes.Equal(again, payload) {
				t.Errorf("%s comes back as %s, %v", payload, again, err)
			}
		}
		m, err := decodeManifest(payload, a.root)
		check(m, err)
		founding, err := decodeFounding(payload, a.root)
		check(founding, err)
	})
}
