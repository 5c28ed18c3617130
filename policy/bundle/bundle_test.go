// SPDX-License-Identifier: Apache-2.0

package bundle_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"valise/identity"
	"valise/policy"
	"valise/policy/bundle"
	"valise/policy/rules"
	"valise/policy/spif"
	"valise/statement"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func address(t testing.TB, s string) identity.Address {
	t.Helper()
	a, err := identity.ParseAddress(s)
	must(t, err)
	return a
}

// tlp is the policy of the tests, and what is cleared up to a colour of it.
type tlp struct {
	file []byte
	id   policy.OID
	set  *policy.Set
}

func loadTLP(t testing.TB) *tlp {
	t.Helper()
	file, err := os.ReadFile("../../policies/tlp.xml")
	must(t, err)
	doc, err := spif.Parse(file)
	must(t, err)
	set, err := policy.Compile(doc)
	must(t, err)
	id, err := policy.ParseOID(doc.Policy.ID)
	must(t, err)
	return &tlp{file, id, set}
}

func (p *tlp) upTo(t testing.TB, class string) *identity.Clearance {
	t.Helper()
	c, err := p.set.Issue(policy.Grant{Policy: p.id, UpTo: class}, now)
	must(t, err)
	return c
}

func (p *tlp) label(class string) *policy.Label {
	return &policy.Label{Policy: p.id, Edition: 1, Classification: class}
}

const ruleText = `@id("no-red-to-witnessed")
forbid (principal, action == Action::"send", resource)
when { context has label && context.label.classification == "RED" && resource.tier == "witnessed" };
`

// folder is a bundle as officers write it.
func folder(t testing.TB, p *tlp) fstest.MapFS {
	t.Helper()
	amber, err := p.upTo(t, "AMBER").Marshal()
	must(t, err)
	test := func(name, class, want string) bundle.Test {
		end := bundle.TestEnd{Address: address(t, "alice@interieur.example"), Tier: identity.TierHardware, Clearance: hex.EncodeToString(amber)}
		return bundle.Test{
			Name: name, Action: rules.Send, Precedence: "routine", Members: 2, At: now, Want: want,
			Label:  &bundle.TestLabel{Policy: p.id.String(), Edition: 1, Classification: class},
			Sender: end, Recipient: end,
		}
	}
	tests, err := json.Marshal([]bundle.Test{
		test("within the clearance", "AMBER", "grant"), test("above it", "RED", string(policy.ReasonClassification)),
	})
	must(t, err)
	domains, err := json.Marshal(bundle.Domains{
		Domains:   []bundle.Bound{{Domain: "interieur.example", Policy: p.id.String(), Floor: "GREEN", Ceiling: "RED"}},
		Tiers:     []bundle.TierRow{{Policy: p.id.String(), Classification: "AMBER+STRICT", Tier: identity.TierHardware}},
		Staleness: []bundle.Staleness{{Policy: p.id.String(), Classification: "AMBER", Refuse: "1h"}, {Policy: p.id.String(), Classification: "RED", Refuse: "10m"}},
	})
	must(t, err)
	return fstest.MapFS{
		"policies/tlp.xml": {Data: p.file},
		bundle.RulesFile:   {Data: []byte(ruleText)},
		bundle.SchemaFile:  {Data: rules.Schema},
		bundle.DomainsFile: {Data: domains},
		bundle.TestsFile:   {Data: tests},
	}
}

func pack(t testing.TB, version uint32) *bundle.Contents {
	t.Helper()
	c, err := bundle.Pack(folder(t, loadTLP(t)), version)
	must(t, err)
	return c
}

// An office is a root with officers below it.
type office struct {
	t      testing.TB
	root   *x509.Certificate
	issuer *x509.Certificate
	key    crypto.Signer
	trust  *identity.Trust
}

type officer struct {
	key   crypto.Signer
	chain [][]byte
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

func certify(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

func newOffice(t testing.TB) *office {
	t.Helper()
	rootKey, key := newKey(t), newKey(t)
	profile := identity.CAProfile{
		Domain: "interieur.example", PublicKey: rootKey.Public(), Serial: big.NewInt(1),
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	}
	template, err := identity.RootTemplate(profile)
	must(t, err)
	o := &office{t: t, key: key, root: certify(t, template, template, rootKey.Public(), rootKey)}
	profile.PublicKey, profile.Serial = key.Public(), big.NewInt(2)
	template, err = identity.IssuerTemplate(profile)
	must(t, err)
	o.issuer = certify(t, template, o.root, key.Public(), rootKey)
	o.trust = identity.NewTrust(identity.Authority{Domain: "interieur.example", Roots: []*x509.Certificate{o.root}})
	return o
}

func (o *office) officer(name string) *officer {
	o.t.Helper()
	key := newKey(o.t)
	profile := identity.OfficerProfile{
		Address: address(o.t, name+"@interieur.example"), PublicKey: key.Public(), Role: identity.RoleOfficer,
		Tier: identity.TierHardware, EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2}, Serial: big.NewInt(time.Now().UnixNano()),
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}
	template, err := profile.Template()
	must(o.t, err)
	return &officer{key, [][]byte{certify(o.t, template, o.issuer, key.Public(), o.key).Raw, o.issuer.Raw}}
}

func (o *office) rootHash() [32]byte { return sha256.Sum256(o.root.Raw) }

func (o *office) sign(by *officer, body statement.Body) []byte {
	o.t.Helper()
	raw, err := statement.Sign(o.t.Context(), by.key, by.chain, statement.Head{
		Authority: o.rootHash(), ID: statement.NewID(), Time: now, Expires: now.Add(time.Hour),
	}, body)
	must(o.t, err)
	return raw
}

func (o *office) verify(raw []byte) (*statement.Statement, error) {
	return statement.Verify(raw, o.trust, o.rootHash(), now)
}

func body(t testing.TB, c *bundle.Contents) *statement.Bundle {
	t.Helper()
	hash, err := c.Hash()
	must(t, err)
	return &statement.Bundle{Change: statement.NewID(), Hash: hash, Version: int(c.Version)}
}

// Two officers put a bundle into force; each refusal differs in one thing.
func TestSignatures(t *testing.T) {
	o := newOffice(t)
	olga, pierre := o.officer("olga"), o.officer("pierre")
	again := o.officer("olga") // her second card
	stranger := newOffice(t).officer("pierre")
	c := pack(t, 3)
	good := body(t, c)
	other := body(t, pack(t, 4))
	for name, k := range map[string]struct {
		statements [][]byte
		ok         bool
	}{
		"two officers":                    {[][]byte{o.sign(olga, good), o.sign(pierre, good)}, true},
		"one more that proves nothing":    {[][]byte{o.sign(olga, good), []byte("x"), o.sign(pierre, good)}, true},
		"nobody":                          {nil, false},
		"one":                             {[][]byte{o.sign(olga, good)}, false},
		"one twice":                       {[][]byte{o.sign(olga, good), o.sign(olga, good)}, false},
		"one with two cards":              {[][]byte{o.sign(olga, good), o.sign(again, good)}, false},
		"a stranger beside one":           {[][]byte{o.sign(olga, good), o.sign(stranger, good)}, false},
		"one of them for another version": {[][]byte{o.sign(olga, good), o.sign(pierre, other)}, false},
		"two changes":                     {[][]byte{o.sign(olga, good), o.sign(pierre, body(t, c))}, false},
		"another kind":                    {[][]byte{o.sign(olga, good), o.sign(pierre, &statement.Refusal{Request: statement.NewID(), Reason: "no"})}, false},
	} {
		t.Run(name, func(t *testing.T) {
			signed := &bundle.Signed{Contents: c, Statements: k.statements}
			data, err := signed.Marshal()
			must(t, err)
			read, err := bundle.ParseSigned(data)
			must(t, err)
			b, err := read.Open(o.verify, now)
			if k.ok != (err == nil) || !k.ok && !errors.Is(err, bundle.ErrSignatures) {
				t.Fatalf("got %v", err)
			}
			if k.ok && b.Version != 3 {
				t.Errorf("version %d", b.Version)
			}
		})
	}
}

// What was changed after the signatures is refused.
func TestChangedAfterSigning(t *testing.T) {
	o := newOffice(t)
	c := pack(t, 1)
	good := body(t, c)
	signed := &bundle.Signed{Contents: c, Statements: [][]byte{o.sign(o.officer("olga"), good), o.sign(o.officer("pierre"), good)}}
	_, err := signed.Open(o.verify, now)
	must(t, err)
	for i, f := range c.Files {
		if f.Name == bundle.RulesFile {
			c.Files[i].Data = []byte(strings.Replace(ruleText, "RED", "AMBER", 1))
		}
	}
	if _, err := signed.Open(o.verify, now); !errors.Is(err, bundle.ErrSignatures) {
		t.Errorf("got %v", err)
	}
}

func TestRollback(t *testing.T) {
	var h bundle.Holder
	compile := func(version uint32, change func(fstest.MapFS)) *bundle.Bundle {
		dir := folder(t, loadTLP(t))
		if change != nil {
			change(dir)
		}
		c, err := bundle.Pack(dir, version)
		must(t, err)
		b, err := bundle.Compile(c, now)
		must(t, err)
		return b
	}
	two := compile(2, nil)
	must(t, h.Load(two))
	must(t, h.Load(compile(2, nil))) // the same one again
	for name, b := range map[string]*bundle.Bundle{
		"older":        compile(1, nil),
		"another of 2": compile(2, func(dir fstest.MapFS) { dir[bundle.RulesFile].Data = nil }),
	} {
		if err := h.Load(b); !errors.Is(err, bundle.ErrRollback) || h.Now().Hash != two.Hash {
			t.Errorf("%s: got %v", name, err)
		}
	}
	must(t, h.Load(compile(3, nil)))
	if h.Now().Version != 3 {
		t.Errorf("version %d is in force", h.Now().Version)
	}
}

// Each refusal differs from a route that is open in one property.
func TestDecide(t *testing.T) {
	p := loadTLP(t)
	b, err := bundle.Compile(pack(t, 1), now)
	must(t, err)
	for name, c := range map[string]struct {
		change func(r *bundle.Route)
		reason string
		sender bool
	}{
		"no label":                   {func(r *bundle.Route) { r.Label = nil }, string(bundle.ReasonUnlabelled), true},
		"an unknown classification":  {func(r *bundle.Route) { r.Label.Classification = "PINK" }, string(policy.ReasonUnknownClass), true},
		"sender without clearance":   {func(r *bundle.Route) { r.Sender.Clearance = nil }, string(policy.ReasonNoClearance), true},
		"recipient not cleared":      {func(r *bundle.Route) { r.Recipient.Clearance = p.upTo(t, "AMBER") }, string(policy.ReasonClassification), false},
		"below the domain's floor":   {func(r *bundle.Route) { r.Label.Classification = "CLEAR" }, string(bundle.ReasonDomain), true},
		"a domain that is not there": {func(r *bundle.Route) { r.Recipient.Address = address(t, "bob@elsewhere.example") }, string(bundle.ReasonDomain), false},
		"tier": {func(r *bundle.Route) {
			r.Label.Classification = "AMBER+STRICT"
			r.Recipient.Tier = identity.TierWitnessed
		}, string(bundle.ReasonTier), false},
		"an action that is none": {func(r *bundle.Route) { r.Action = "print" }, string(rules.ReasonRequest), true},
	} {
		t.Run(name, func(t *testing.T) {
			end := bundle.End{ID: identity.DeviceID{1}, Address: address(t, "alice@interieur.example"), Tier: identity.TierHardware, Clearance: p.upTo(t, "RED")}
			r := &bundle.Route{Action: rules.Send, Precedence: "routine", Members: 2, Sender: end, Recipient: end, Label: p.label("RED")}
			if v := b.Decide(r, now); !v.Granted {
				t.Fatalf("the control is refused: %+v", v)
			}
			c.change(r)
			if v := b.Decide(r, now); v.Granted || string(v.Reason) != c.reason || v.Sender != c.sender {
				t.Errorf("got %+v, want %s", v, c.reason)
			}
		})
	}
}

// A rule restricts what everything else allows.
func TestRulesRestrict(t *testing.T) {
	p := loadTLP(t)
	dir := folder(t, p)
	route := func(tier identity.Tier) *bundle.Route {
		end := bundle.End{ID: identity.DeviceID{1}, Address: address(t, "alice@interieur.example"), Tier: identity.TierHardware, Clearance: p.upTo(t, "RED")}
		r := &bundle.Route{Action: rules.Send, Precedence: "routine", Members: 2, Sender: end, Recipient: end, Label: p.label("AMBER")}
		r.Recipient.Tier = tier
		return r
	}
	dir[bundle.RulesFile].Data = []byte(strings.Replace(ruleText, "RED", "AMBER", 1))
	c, err := bundle.Pack(dir, 1)
	must(t, err)
	b, err := bundle.Compile(c, now)
	must(t, err)
	if v := b.Decide(route(identity.TierHardware), now); !v.Granted {
		t.Fatalf("the control is refused: %+v", v)
	}
	if v := b.Decide(route(identity.TierWitnessed), now); v.Granted || string(v.Reason) != string(rules.ReasonRule) || v.Detail != "no-red-to-witnessed" {
		t.Errorf("got %+v", v)
	}
}

func TestStaleAfter(t *testing.T) {
	p := loadTLP(t)
	b, err := bundle.Compile(pack(t, 1), now)
	must(t, err)
	for class, want := range map[string]time.Duration{"GREEN": 0, "AMBER": time.Hour, "AMBER+STRICT": time.Hour, "RED": 10 * time.Minute} {
		if got, ok := b.StaleAfter(p.label(class), now); got != want || ok != (want > 0) {
			t.Errorf("%s: got %v, %v", class, got, ok)
		}
	}
}

// What a domain writes without naming a label has the table's default, of the edition
// in force; a default that is no valid label refuses the bundle.
func TestDefault(t *testing.T) {
	p := loadTLP(t)
	load := func(class, second string) (*bundle.Bundle, error) {
		dir := folder(t, p)
		row := `{"domain":"` + second + `","label":{"policy":"` + p.id.String() + `","classification":"` + class + `"}}`
		first := `{"domain":"interieur.example","label":{"policy":"` + p.id.String() + `","classification":"GREEN"}}`
		dir[bundle.DomainsFile].Data = []byte(strings.Replace(string(dir[bundle.DomainsFile].Data), `"unlabelled"`, `"defaults":[`+first+`,`+row+`],"unlabelled"`, 1))
		c, err := bundle.Pack(dir, 1)
		must(t, err)
		return bundle.Compile(c, now)
	}
	b, err := load("AMBER", "defense.example")
	must(t, err)
	for domain, want := range map[string]string{"interieur.example": "GREEN", "defense.example": "AMBER"} {
		if r := b.Default(domain, now); r == nil || r.Label().Classification != want || r.Label().Edition != 1 {
			t.Errorf("%s: %+v", domain, r)
		}
	}
	if r := b.Default("elsewhere.example", now); r != nil || b.Unlabelled() {
		t.Errorf("a default out of nothing: %+v", r)
	}
	if _, err := load("BLUE", "defense.example"); err == nil || !strings.Contains(err.Error(), "unknown_classification") {
		t.Errorf("a default that is no label: %v", err)
	}
	if _, err := load("GREEN", "interieur.example"); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("two defaults for one domain: %v", err)
	}
}

// A folder with one fault is not loaded.
func TestCompileRefuses(t *testing.T) {
	replace := func(file, old, with string) func(fstest.MapFS) {
		return func(dir fstest.MapFS) {
			data := strings.Replace(string(dir[file].Data), old, with, 1)
			if data == string(dir[file].Data) {
				panic("nothing was replaced in " + file)
			}
			dir[file] = &fstest.MapFile{Data: []byte(data)}
		}
	}
	for name, c := range map[string]struct {
		change func(fstest.MapFS)
		want   string
	}{
		"the control":                  {func(fstest.MapFS) {}, ""},
		"no rules":                     {func(dir fstest.MapFS) { delete(dir, bundle.RulesFile); delete(dir, bundle.SchemaFile) }, ""},
		"rules without schema":         {func(dir fstest.MapFS) { delete(dir, bundle.SchemaFile) }, "belong together"},
		"another schema":               {replace(bundle.SchemaFile, "tier: String", "tier: Long"), "schema"},
		"a permit":                     {replace(bundle.RulesFile, "forbid", "permit"), "permit"},
		"a test that fails":            {replace(bundle.TestsFile, `"grant"`, `"rule"`), "within the clearance"},
		"no test that refuses":         {replace(bundle.TestsFile, `"RED"`, `"GREEN"`), "above it"},
		"no tests":                     {func(dir fstest.MapFS) { dir[bundle.TestsFile].Data = []byte("[]") }, "at least one of each"},
		"tests missing":                {func(dir fstest.MapFS) { delete(dir, bundle.TestsFile) }, "tests.json is missing"},
		"domains missing":              {func(dir fstest.MapFS) { delete(dir, bundle.DomainsFile) }, "domains.json is missing"},
		"an unknown member":            {replace(bundle.DomainsFile, `"floor"`, `"flor"`), "flor"},
		"a member twice":               {replace(bundle.DomainsFile, `"unlabelled":false`, `"unlabelled":false,"unlabelled":true`), "twice"},
		"two values":                   {func(dir fstest.MapFS) { dir[bundle.DomainsFile].Data = append(dir[bundle.DomainsFile].Data, "{}"...) }, "follows"},
		"an unknown class in a row":    {replace(bundle.DomainsFile, `"AMBER"`, `"BLUE"`), "BLUE"},
		"an unknown tier":              {replace(bundle.DomainsFile, `"hardware"`, `"software"`), "software"},
		"a ceiling below the floor":    {replace(bundle.DomainsFile, `"ceiling":"RED"`, `"ceiling":"CLEAR"`), "below the floor"},
		"no duration":                  {replace(bundle.DomainsFile, `"10m"`, `"soon"`), "soon"},
		"a policy that does not parse": {replace("policies/tlp.xml", "<securityClassifications>", "<x/><securityClassifications>"), "tlp.xml"},
		"a stray file":                 {func(dir fstest.MapFS) { dir["notes.txt"] = &fstest.MapFile{} }, "notes.txt"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, loadTLP(t))
			c.change(dir)
			contents, err := bundle.Pack(dir, 1)
			if err == nil {
				_, err = bundle.Compile(contents, now)
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// What is in force opens again after a date in it has passed, and then grants nothing that
// the date ended; what is new is refused on it, and nothing else is overlooked.
func TestReopen(t *testing.T) {
	p := loadTLP(t)
	dir := folder(t, p)
	dir["policies/tlp.xml"].Data = bytes.Replace(p.file, []byte("<SPIF "), []byte(`<SPIF notAfter="2026-11-23T00:00:00Z" `), 1)
	dir[bundle.DomainsFile].Data = []byte(`{"unlabelled":false,"domains":[],"tiers":[],"staleness":[],"defaults":[{"domain":"interieur.example","label":{"policy":"` +
		p.id.String() + `","classification":"GREEN"}}]}`)
	c, err := bundle.Pack(dir, 1)
	must(t, err)
	_, err = bundle.Compile(c, now)
	must(t, err)
	later := now.Add(24 * time.Hour)
	if _, err := bundle.Compile(c, later); err == nil || !strings.Contains(err.Error(), string(policy.ReasonPolicyExpired)) {
		t.Errorf("new, and past its dates: %v", err)
	}
	b, err := bundle.Reopen(c)
	must(t, err)
	end := bundle.End{ID: identity.DeviceID{1}, Address: address(t, "alice@interieur.example"), Tier: identity.TierHardware, Clearance: p.upTo(t, "RED")}
	route := &bundle.Route{Action: rules.Send, Precedence: "routine", Members: 2, Sender: end, Recipient: end, Label: p.label("AMBER")}
	if v := b.Decide(route, now); !v.Granted || b.Default("interieur.example", now) == nil {
		t.Errorf("before the date: %+v", v)
	}
	if v := b.Decide(route, later); v.Granted || string(v.Reason) != string(policy.ReasonPolicyExpired) || b.Default("interieur.example", later) != nil {
		t.Errorf("after it: %+v", v)
	}
	dir[bundle.TestsFile].Data = bytes.Replace(dir[bundle.TestsFile].Data, []byte(`"grant"`), []byte(`"rule"`), 1)
	if c, err = bundle.Pack(dir, 1); err == nil {
		_, err = bundle.Reopen(c)
	}
	if !errors.Is(err, bundle.ErrTest) {
		t.Errorf("a test that fails: %v", err)
	}
}

// Whatever is accepted marshals back to the same bytes.
func FuzzParseSigned(f *testing.F) {
	c := pack(f, 1)
	for _, s := range []*bundle.Signed{{Contents: c}, {Contents: c, Statements: [][]byte{[]byte("a.b.c"), {1}}}} {
		data, err := s.Marshal()
		must(f, err)
		f.Add(data)
		f.Add(data[:len(data)-1])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := bundle.ParseSigned(data)
		if err != nil {
			return
		}
		again, err := s.Marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%v: %x became %x", err, data, again)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	p := loadTLP(b)
	compiled, err := bundle.Compile(pack(b, 1), now)
	must(b, err)
	end := bundle.End{ID: identity.DeviceID{1}, Address: address(b, "alice@interieur.example"), Tier: identity.TierHardware, Clearance: p.upTo(b, "RED")}
	r := &bundle.Route{Action: rules.Send, Precedence: "routine", Members: 2, Sender: end, Recipient: end, Label: p.label("RED")}
	b.ReportAllocs()
	for b.Loop() {
		if !compiled.Decide(r, now).Granted {
			b.Fatal("refused")
		}
	}
}
