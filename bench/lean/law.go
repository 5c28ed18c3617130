// SPDX-License-Identifier: Apache-2.0

package lean

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"valise/bulletin"
	"valise/identity"
	"valise/ledger"
	"valise/manifest"
	"valise/mls"
	"valise/policies"
	"valise/policy"
	"valise/policy/bundle"
	"valise/policy/rules"
	"valise/policy/spif"
	"valise/statement"
	"valise/wire"
)

// A Law is a policy bundle that two officers have put into force, as far as devices have
// to know it: they are all cleared for what their messages bear.
type Law struct {
	Policy, Label []byte
	Hash          [32]byte
	Clearance     []byte // in DER

	bundle  []byte
	papers  *papers
	version uint64 // of the last bulletin
}

// papers are the keys and officers behind a Law.
type papers struct {
	ledger   ed25519.PrivateKey
	bulletin *ecdsa.PrivateKey
	officers []bulletin.OfficerStanding
}

// The files that a gateway is given.
const (
	ManifestFile = "manifest.jws"
	BulletinFile = "bulletin.jws"
	BundleFile   = "policy.bundle"
	lawFile      = "law.json"
)

// lawRule is one that is asked about every route and forbids none of these.
const lawRule = `@id("no-flash-to-witnessed")
forbid (principal, action == Action::"send", resource)
when { context.precedence == "flash" && resource.tier == "witnessed" };
`

// Enact puts a bundle into force, before the first device is made: a policy with
// categories, a rule, bounds for the domain, and no message without a label.
func (a *Authority) Enact() error {
	text, err := policies.Read("coalition")
	if err != nil {
		return err
	}
	doc, err := spif.Parse(text)
	if err != nil {
		return err
	}
	set, err := policy.Compile(doc)
	if err != nil {
		return err
	}
	id, err1 := policy.ParseOID(doc.Policy.ID)
	release, err2 := policy.ParseOID(doc.Policy.ID + ".1")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	france := policy.Category{Set: release, Tag: "Releasable To", Name: "FRA"}
	label := &policy.Label{Policy: id, Edition: doc.Edition, Classification: "SECRET", Categories: []policy.Category{france}}
	clearance, err := set.Issue(policy.Grant{Policy: id, UpTo: "SECRET", Categories: []policy.Category{france}}, time.Now())
	if err != nil {
		return err
	}
	law := &Law{Policy: []byte(id), papers: new(papers)}
	law.Label, err1 = label.Marshal()
	law.Clearance, err2 = clearance.Marshal()
	contents, err3 := a.contents(text, label, law.Clearance)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if law.Hash, err = contents.Hash(); err != nil {
		return err
	}
	a.law = law
	return a.sign(contents)
}

// contents is the bundle, with the two tests that it must have.
func (a *Authority) contents(text []byte, label *policy.Label, clearance []byte) (*bundle.Contents, error) {
	id := label.Policy.String()
	address, err := identity.ParseAddress("official@" + a.Domain)
	if err != nil {
		return nil, err
	}
	end := bundle.TestEnd{Address: address, Tier: identity.TierHardware, Clearance: hex.EncodeToString(clearance)}
	c := label.Categories[0]
	granted := bundle.Test{
		Name: "cleared", Action: rules.Send, Precedence: "routine", Members: 2, At: time.Now().UTC().Truncate(time.Second), Want: "grant",
		Label: &bundle.TestLabel{
			Policy: id, Edition: label.Edition, Classification: label.Classification,
			Categories: []bundle.TestCategory{{Set: c.Set.String(), Tag: c.Tag, Name: c.Name}},
		}, Sender: end, Recipient: end,
	}
	refused := granted
	refused.Name, refused.Recipient.Clearance, refused.Want = "not cleared", "", string(policy.ReasonNoClearance)
	tests, err1 := json.Marshal([]bundle.Test{granted, refused})
	table, err2 := json.Marshal(bundle.Domains{
		Domains: []bundle.Bound{{Domain: a.Domain, Policy: id, Ceiling: "SECRET"}},
		Tiers:   []bundle.TierRow{{Policy: id, Classification: "SECRET", Tier: identity.TierHardware}},
	})
	return &bundle.Contents{Version: 1, Files: []bundle.File{
		{Name: bundle.DomainsFile, Data: table},
		{Name: "policies/coalition.xml", Data: text},
		{Name: bundle.RulesFile, Data: []byte(lawRule)},
		{Name: bundle.SchemaFile, Data: rules.Schema},
		{Name: bundle.TestsFile, Data: tests},
	}}, errors.Join(err1, err2)
}

// sign has two officers sign the bundle.
func (a *Authority) sign(contents *bundle.Contents) error {
	signed := &bundle.Signed{Contents: contents}
	body := &statement.Bundle{Change: statement.NewID(), Hash: a.law.Hash, Version: int(contents.Version)}
	now := time.Now().UTC().Truncate(time.Second)
	for _, local := range []string{"olga", "otto"} {
		key, chain, standing, err := a.officer(local)
		if err != nil {
			return err
		}
		raw, err := statement.Sign(context.Background(), key, chain, statement.Head{
			Authority: sha256.Sum256(a.root.Raw), ID: statement.NewID(), Time: now, Expires: now.Add(time.Hour),
		}, body)
		if err != nil {
			return err
		}
		signed.Statements = append(signed.Statements, raw)
		a.law.papers.officers = append(a.law.papers.officers, standing)
	}
	slices.SortFunc(a.law.papers.officers, func(x, y bulletin.OfficerStanding) int { return x.Key.Compare(y.Key) })
	var err1, err2, err3 error
	a.law.bundle, err1 = signed.Marshal()
	_, a.law.papers.ledger, err2 = ed25519.GenerateKey(rand.Reader)
	a.law.papers.bulletin, err3 = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return errors.Join(err1, err2, err3)
}

func (a *Authority) officer(local string) (*ecdsa.PrivateKey, [][]byte, bulletin.OfficerStanding, error) {
	none := bulletin.OfficerStanding{}
	key, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	address, err2 := identity.ParseAddress(local + "@" + a.Domain)
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, none, err
	}
	profile := identity.OfficerProfile{
		Address: address, PublicKey: key.Public(), Role: identity.RoleOfficer, Tier: identity.TierHardware, EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2},
		Serial: serial(), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
	}
	template, err := profile.Template()
	if err != nil {
		return nil, nil, none, err
	}
	leaf, err1 := certify(template, a.issuer, key.Public(), a.key)
	id, err2 := identity.DeviceIDOf(key.Public())
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, none, err
	}
	return key, [][]byte{leaf.Raw, a.issuer.Raw}, bulletin.OfficerStanding{Key: id, Address: address, Role: identity.RoleOfficer, State: bulletin.Active}, nil
}

// Publish writes what a gateway is given into a folder: the manifest and a bulletin of
// now, to be imported in this order, and the bundle, which its configuration names. A
// bulletin grows old: publish for every gateway anew.
func (a *Authority) Publish(dir string) error {
	if a.law == nil || a.law.papers == nil {
		return errors.New("lean: nothing was enacted here")
	}
	p := a.law.papers
	spki, err := x509.MarshalPKIXPublicKey(p.bulletin.Public())
	if err != nil {
		return err
	}
	ctx, now := context.Background(), time.Now().UTC().Truncate(time.Second)
	m := &manifest.Manifest{
		Number: 1, Domain: a.Domain, Time: now.Add(-time.Hour), Origin: ledger.Origin(a.Domain),
		Issuers: []manifest.Issuer{{Certificate: a.issuer.Raw}}, Bulletin: []manifest.Key{{SPKI: spki}},
		Ledger: []manifest.LedgerKey{{Public: p.ledger.Public().(ed25519.PublicKey)}},
	}
	first, err1 := manifest.Sign(ctx, a.rootKey, a.root, m)
	a.law.version++
	second, err2 := bulletin.Sign(ctx, p.bulletin, &bulletin.Bulletin{
		Number: a.law.version, Time: now, Next: now.Add(time.Hour), Manifest: 1, Bundle: a.law.Hash, LedgerSize: 9, Officers: p.officers,
	})
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	write := func(name string, data []byte) error { return os.WriteFile(filepath.Join(dir, name), data, 0o600) }
	return errors.Join(write(ManifestFile, first), write(BulletinFile, second), write(BundleFile, a.law.bundle))
}

// Law is what is in force; nil: nothing.
func (a *Authority) Law() *Law { return a.law }

// Bundle is the file as the officers signed it.
func (l *Law) Bundle() []byte { return l.bundle }

// Seal encrypts a text for a group under the law's label; without a law it is Seal.
func (l *Law) Seal(g *mls.Group, text []byte, sequence uint64) (*wire.Send, error) {
	if l == nil {
		return Seal(g, text, sequence)
	}
	return seal(g, text, &wire.Header{Sequence: sequence, Labelled: true, Label: l.Label, Policy: l.Policy, PolicyHash: l.Hash[:]})
}

// saveLaw and loadLaw are Save and Load for what devices have to know.
func (a *Authority) saveLaw(dir string) error {
	if a.law == nil {
		return nil
	}
	data, err := json.Marshal(a.law)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, lawFile), data, 0o600)
}

func (a *Authority) loadLaw(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, lawFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	a.law = new(Law)
	if err := json.Unmarshal(data, a.law); err != nil {
		return fmt.Errorf("%s: %w", lawFile, err)
	}
	return nil
}

// clearance is what devices are certified with.
func (a *Authority) clearance() (*identity.Clearance, error) {
	if a.law == nil {
		return nil, nil
	}
	return identity.ParseClearance(a.law.Clearance)
}
