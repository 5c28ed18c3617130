// SPDX-License-Identifier: Apache-2.0

package enrolltest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"testing"
	"time"

	"valise/attest"
	"valise/identity"
	"valise/ledger"
	"valise/manifest"
	"valise/statement"
)

// Domain is that of every Ministry.
const Domain = "interieur.example"

// A MinistryConfig says how an authority is founded; the zero value has officers and
// asks two of them for each device.
type MinistryConfig struct {
	Lone      bool
	Curve     elliptic.Curve    // nil: P-256
	Now       time.Time         // zero: the time of the test
	Vendor    *Vendor           // nil: a fresh one
	Policy    string            // the appraisal policy in JSON; "": the default
	Profile   *manifest.Profile // nil: "device", two approvals, 7 days, 30 days of grace
	RootKey   crypto.Signer     // nil: software, as all others
	IssuerKey crypto.Signer
	LedgerKey crypto.Signer // Ed25519
}

// A Ministry is a founded authority without a database: its keys are in software,
// its first officers' too.
type Ministry struct {
	Config    MinistryConfig
	Root      *x509.Certificate
	Issuing   *x509.Certificate
	RootKey   crypto.Signer
	IssuerKey crypto.Signer
	LedgerKey crypto.Signer
	Founding  []byte // JWS
	Manifest  []byte // JWS
	Vendor    *Vendor

	// Olga, Oscar and Otto are officers, Anna and Arno administrators, Aude is an
	// auditor.
	Olga, Oscar, Otto, Anna, Arno, Aude *Officer
}

// An Officer signs statements.
type Officer struct {
	Address identity.Address
	Role    identity.Role
	Key     *ecdsa.PrivateKey
	Chain   [][]byte
	root    [32]byte
}

// NewMinistry founds an authority.
func NewMinistry(t testing.TB, cfg MinistryConfig) *Ministry {
	t.Helper()
	if cfg.Curve == nil {
		cfg.Curve = elliptic.P256()
	}
	if cfg.Now.IsZero() {
		cfg.Now = time.Now()
	}
	if cfg.Vendor == nil {
		cfg.Vendor = NewVendor(t)
	}
	if cfg.Policy == "" {
		cfg.Policy = "{}"
	}
	m := &Ministry{Config: cfg, Vendor: cfg.Vendor, RootKey: cfg.RootKey, IssuerKey: cfg.IssuerKey, LedgerKey: cfg.LedgerKey}
	for _, key := range []*crypto.Signer{&m.RootKey, &m.IssuerKey} {
		if *key == nil {
			*key = newKey(t, cfg.Curve)
		}
	}
	if m.LedgerKey == nil {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		must(t, err)
		m.LedgerKey = key
	}
	m.certificates(t)
	if !cfg.Lone {
		m.appoint(t)
	}
	m.papers(t)
	return m
}

func (m *Ministry) certificates(t testing.TB) {
	now := m.Config.Now
	profile := identity.CAProfile{
		Domain: Domain, PublicKey: m.RootKey.Public(), Serial: serial(),
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(20, 0, 0),
	}
	template, err := identity.RootTemplate(profile)
	must(t, err)
	template.AuthorityKeyId = template.SubjectKeyId
	m.Root = m.certify(t, template, template, m.RootKey)
	profile.PublicKey, profile.Serial, profile.NotAfter = m.IssuerKey.Public(), serial(), now.AddDate(5, 0, 0)
	template, err = identity.IssuerTemplate(profile)
	must(t, err)
	m.Issuing = m.certify(t, template, m.Root, m.RootKey)
}

func (m *Ministry) certify(t testing.TB, template, parent *x509.Certificate, key crypto.Signer) *x509.Certificate {
	return create(t, template, parent, template.PublicKey, key)
}

func (m *Ministry) appoint(t testing.TB) {
	officer := func(name string, role identity.Role) *Officer {
		return m.Officer(t, name, role, newKey(t, m.Config.Curve), m.Config.Now.Add(-time.Minute), m.Config.Now.AddDate(1, 0, 0))
	}
	m.Olga, m.Oscar, m.Otto = officer("olga", identity.RoleOfficer), officer("oscar", identity.RoleOfficer), officer("otto", identity.RoleOfficer)
	m.Anna, m.Arno = officer("anna", identity.RoleAdministrator), officer("arno", identity.RoleAdministrator)
	m.Aude = officer("aude", identity.RoleAuditor)
}

// Officer makes an officer's certificate for a key. Whether the record knows of it is
// another question.
func (m *Ministry) Officer(t testing.TB, name string, role identity.Role, key *ecdsa.PrivateKey, from, until time.Time) *Officer {
	t.Helper()
	address, err := identity.ParseAddress(name + "@" + Domain)
	must(t, err)
	profile := identity.OfficerProfile{
		Address: address, PublicKey: key.Public(), Role: role, Tier: identity.TierHardware,
		EvidenceHash: sha256.Sum256([]byte("evidence of " + name)), PolicyHash: sha256.Sum256([]byte("policy")),
		Serial: serial(), NotBefore: from, NotAfter: until,
	}
	template, err := profile.Template()
	must(t, err)
	cert := m.certify(t, template, m.Issuing, m.IssuerKey)
	return &Officer{Address: address, Role: role, Key: key, Chain: [][]byte{cert.Raw, m.Issuing.Raw}, root: sha256.Sum256(m.Root.Raw)}
}

func (m *Ministry) papers(t testing.TB) {
	profile := manifest.Profile{
		Name: "device", Version: 1, Approvals: 2, Validity: 7 * 24 * time.Hour, Grace: 30 * 24 * time.Hour,
		Tiers: []identity.Tier{identity.TierHardware},
	}
	if m.Config.Profile != nil {
		profile = *m.Config.Profile
	}
	if m.Config.Lone {
		profile.Approvals = 0
	}
	f := &manifest.Founding{
		Domain: Domain, Time: m.Config.Now.Truncate(time.Second).UTC(), Profiles: []manifest.Profile{profile},
		Endorsements: m.Vendor.PEM(), Appraisal: []byte(m.Config.Policy),
	}
	for _, o := range m.all() {
		f.Officers = append(f.Officers, o.Chain[0])
	}
	var err error
	m.Founding, err = manifest.Sign(t.Context(), m.RootKey, m.Root, f)
	must(t, err)
	bulletinKey, err := x509.MarshalPKIXPublicKey(newKey(t, elliptic.P256()).Public())
	must(t, err)
	m.Manifest, err = manifest.Sign(t.Context(), m.RootKey, m.Root, &manifest.Manifest{
		Number: 1, Domain: Domain, Time: f.Time, Origin: ledger.Origin(Domain),
		Issuers:  []manifest.Issuer{{Certificate: m.Issuing.Raw}},
		Bulletin: []manifest.Key{{SPKI: bulletinKey}},
		Ledger:   []manifest.LedgerKey{{Public: m.LedgerKey.Public().(ed25519.PublicKey)}},
	})
	must(t, err)
}

func (m *Ministry) all() []*Officer {
	if m.Config.Lone {
		return nil
	}
	return []*Officer{m.Olga, m.Oscar, m.Otto, m.Anna, m.Arno, m.Aude}
}

// Append is what records a payload: a book's, or a test's own.
type Append = func(kind ledger.Kind, payload []byte) (int64, error)

// Open records the founding and the first manifest.
func (m *Ministry) Open(add Append) error {
	if _, err := add(ledger.KindFounding, m.Founding); err != nil {
		return err
	}
	_, err := add(ledger.KindManifest, m.Manifest)
	return err
}

// Policy returns the appraisal policy.
func (m *Ministry) Policy(t testing.TB) *attest.AppraisalPolicy {
	t.Helper()
	p, err := attest.ParsePolicy([]byte(m.Config.Policy))
	must(t, err)
	return p
}

// Chain returns the issuing certificate and the root.
func (m *Ministry) Chain() []*x509.Certificate { return []*x509.Certificate{m.Issuing, m.Root} }

// Sign signs a body at a time; the statement may be handed in for a week.
func (o *Officer) Sign(t testing.TB, at time.Time, b statement.Body) []byte {
	t.Helper()
	return o.SignUntil(t, at, at.Add(7*24*time.Hour), b)
}

// SignUntil is Sign with another end.
func (o *Officer) SignUntil(t testing.TB, at, until time.Time, b statement.Body) []byte {
	t.Helper()
	raw, err := statement.Sign(context.Background(), o.Key, o.Chain, statement.Head{
		Authority: o.root, ID: statement.NewID(), Time: at.UTC().Truncate(time.Second), Expires: until.UTC().Truncate(time.Second),
	}, b)
	must(t, err)
	return raw
}

// DeviceTBS returns the TBSCertificate of a device's certificate that says what a
// template says.
func (m *Ministry) DeviceTBS(t testing.TB, d statement.Template, from, until time.Time) []byte {
	t.Helper()
	key, err := x509.ParsePKIXPublicKey(d.CSRKey)
	must(t, err)
	profile := identity.DeviceProfile{
		Address: d.Address, PublicKey: key, Clearance: d.Clearance, Tier: d.Tier,
		EvidenceHash: d.Evidence, PolicyHash: d.Appraisal, Serial: serial(), NotBefore: from, NotAfter: until,
	}
	template, err := profile.Template()
	must(t, err)
	return m.certify(t, template, m.Issuing, m.IssuerKey).RawTBSCertificate
}

// OfficerTBS returns the TBSCertificate of an officer's certificate.
func OfficerTBS(t testing.TB, o *Officer) []byte {
	t.Helper()
	cert, err := x509.ParseCertificate(o.Chain[0])
	must(t, err)
	return cert.RawTBSCertificate
}

// Template returns a device's template for a fresh key.
func (m *Ministry) Template(t testing.TB, name string, clearance *identity.Clearance) statement.Template {
	t.Helper()
	key := newKey(t, elliptic.P256())
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	id, err := identity.DeviceIDOf(key.Public())
	must(t, err)
	address, err := identity.ParseAddress(name + "@" + Domain)
	must(t, err)
	return statement.Template{
		Address: address, Device: id, CSRKey: spki, Role: statement.RoleDevice, Profile: "device", ProfileVersion: 1,
		Clearance: clearance, Tier: identity.TierHardware, Validity: 7 * 24 * time.Hour,
		Evidence: sha256.Sum256([]byte("evidence")), Appraisal: sha256.Sum256([]byte("policy")),
	}
}

// Clearance returns a clearance for some classifications.
func Clearance(t testing.TB, classes ...int) *identity.Clearance {
	t.Helper()
	list, err := identity.NewClassList(classes...)
	must(t, err)
	return &identity.Clearance{PolicyID: []int{1, 3, 6, 1, 4, 1, 99999, 1}, ClassList: list}
}

// NewKey returns a software key.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	return newKey(t, elliptic.P256())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
