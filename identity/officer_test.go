// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"slices"
	"testing"
	"time"
)

func (a *testAuthority) officerProfile(key crypto.PublicKey, role Role) *OfficerProfile {
	address, err := ParseAddress("olga@" + a.domain)
	if err != nil {
		a.t.Fatal(err)
	}
	return &OfficerProfile{
		Address: address, PublicKey: key, Role: role, Tier: TierHardware,
		EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2},
		Serial: big.NewInt(79), NotBefore: from, NotAfter: to,
	}
}

// officer issues an officer's certificate, altered, and returns its chain.
func (a *testAuthority) officer(key crypto.PublicKey, changes ...alter) [][]byte {
	a.t.Helper()
	template, err := a.officerProfile(key, RoleOfficer).Template()
	if err != nil {
		a.t.Fatal(err)
	}
	apply(template, changes)
	return a.chain(template)
}

// An honest chain passes for each role, on both curves, with the root and
// without, and says what its profile said.
func TestOfficer(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		a := newAuthority(t, "interieur.example", curve)
		for _, role := range []Role{RoleOfficer, RoleAdministrator, RoleAuditor} {
			key := newKey(t, curve)
			template, err := a.officerProfile(key.Public(), role).Template()
			if err != nil {
				t.Fatal(err)
			}
			chain := a.chain(template)
			for _, given := range [][][]byte{chain, append(slices.Clone(chain), a.root.Raw)} {
				o, err := a.trust().Officer(given, noon)
				if err != nil {
					t.Fatal(err)
				}
				if o.Address.String() != "olga@interieur.example" || o.Role != role || o.Key != mustID(t, key.Public()) ||
					o.Tier != TierHardware || o.Root != sha256.Sum256(a.root.Raw) || len(o.Chain) != len(given) {
					t.Errorf("officer %+v", o)
				}
			}
		}
	}
}

// TestOfficerRefuses sets one property off at a time, beside an honest control.
func TestOfficerRefuses(t *testing.T) {
	a := newAuthority(t, "interieur.example", elliptic.P256())
	other := newAuthority(t, "interieur.example", elliptic.P256())
	key := newKey(t, elliptic.P256())
	honest := a.officer(key.Public())
	issued := func(changes ...alter) [][]byte { return a.officer(key.Public(), changes...) }
	role := func(values ...[]byte) [][]byte {
		return issued(func(c *x509.Certificate) {
			c.ExtraExtensions = slices.DeleteFunc(c.ExtraExtensions, func(e pkix.Extension) bool { return e.Id.Equal(OIDRole) })
			for _, value := range values {
				c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: OIDRole, Value: value})
			}
		})
	}
	for name, test := range map[string]struct {
		chain [][]byte
		want  Reason
	}{
		"empty":              {nil, ReasonChainLength},
		"a device":           {a.device(key.Public()), ReasonWrongUsage},
		"a gateway":          {a.gateway("gw.interieur.example", nil), ReasonWrongUsage},
		"a device's usage":   {issued(func(c *x509.Certificate) { c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, OIDDeviceUsage) }), ReasonWrongUsage},
		"also for TLS":       {issued(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), ReasonWrongUsage},
		"any usage":          {issued(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), ReasonWrongUsage},
		"no usage":           {issued(func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil }), ReasonWrongUsage},
		"may sign code":      {issued(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageContentCommitment }), ReasonWrongUsage},
		"another authority":  {other.officer(key.Public()), ReasonUnknownAuthority},
		"altered":            {[][]byte{flip(honest[0]), honest[1]}, ReasonBadSignature},
		"another domain":     {issued(func(c *x509.Certificate) { c.EmailAddresses = []string{"olga@other.example"} }), ReasonWrongDomain},
		"no address":         {issued(func(c *x509.Certificate) { c.EmailAddresses = nil }), ReasonNoAddress},
		"another key's id":   {issued(func(c *x509.Certificate) { c.URIs = []*url.URL{DeviceID{1}.URL()} }), ReasonWrongDevice},
		"no role":            {role(), ReasonNoRole},
		"an unknown role":    {role([]byte("\x0c\x04root")), ReasonNoRole},
		"a role in capitals": {role([]byte("\x0c\x07Officer")), ReasonNoRole},
		"two roles in one":   {role([]byte("\x0c\x07officer\x0c\x07auditor")), ReasonNoRole},
		"another string":     {role([]byte("\x13\x07officer")), ReasonNoRole},
		"role not minimal":   {role([]byte("\x0c\x81\x07officer")), ReasonNoRole},
		"no appraisal":       {issued(func(c *x509.Certificate) { c.ExtraExtensions = c.ExtraExtensions[1:] }), ReasonNoAppraisal},
		"critical and strange": {issued(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}), ReasonCritical},
	} {
		t.Run(name, func(t *testing.T) {
			trust := a.trust()
			if _, err := trust.Officer(honest, noon); err != nil {
				t.Fatalf("honest control: %v", err)
			}
			if o, err := trust.Officer(test.chain, noon); o != nil || ReasonOf(err) != test.want {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
	// Go's parser refuses an extension that stands twice before we see it.
	template, err := a.officerProfile(key.Public(), RoleOfficer).Template()
	if err != nil {
		t.Fatal(err)
	}
	template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: OIDRole, Value: []byte("\x0c\x07auditor")})
	if der, err := x509.CreateCertificate(nil, template, a.issuer, key.Public(), a.issuerKey); err == nil {
		if _, err := a.trust().Officer([][]byte{der, a.issuer.Raw}, noon); err == nil {
			t.Error("two roles: accepted")
		}
	}
}

// An officer's certificate opens no connection: it is no device's and no
// gateway's. Also for a chain that the other caches know.
func TestOfficerIsNoDevice(t *testing.T) {
	a := newAuthority(t, "interieur.example", elliptic.P256())
	trust := a.trust()
	officer, device := a.officer(newKey(t, elliptic.P256()).Public()), a.device(newKey(t, elliptic.P256()).Public())
	if _, err := trust.Officer(officer, noon); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	if _, err := trust.Device(device, noon); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	if _, err := trust.Device(officer, noon); ReasonOf(err) != ReasonWrongUsage {
		t.Errorf("as a device: %v", err)
	}
	if _, err := trust.Gateway(officer, "interieur.example", noon); ReasonOf(err) != ReasonWrongUsage {
		t.Errorf("as a gateway: %v", err)
	}
	if _, err := trust.Officer(device, noon); ReasonOf(err) != ReasonWrongUsage {
		t.Errorf("a device as an officer: %v", err)
	}
}

func TestOfficerValidity(t *testing.T) {
	a := newAuthority(t, "interieur.example", elliptic.P256())
	chain, trust := a.officer(newKey(t, elliptic.P256()).Public()), a.trust()
	for _, test := range []struct {
		at   time.Time
		want Reason
	}{
		{noon, ""},
		{from.Add(-time.Second), ReasonNotYetValid},
		{to, ""},
		{to.Add(time.Second), ReasonExpired},
		{noon, ""},
	} {
		if _, err := trust.Officer(chain, test.at); ReasonOf(err) != test.want {
			t.Errorf("at %v: error %v, want %q", test.at, err, test.want)
		}
	}
	for i := range maxCached {
		trust.desk[[32]byte{1, byte(i), byte(i >> 8)}] = new(verifiedOfficer)
	}
	if _, err := trust.Officer(a.officer(newKey(t, elliptic.P256()).Public()), noon); err != nil || len(trust.desk) > maxCached {
		t.Errorf("full cache: %d chains, %v", len(trust.desk), err)
	}
}

func TestOfficerProfileRefuses(t *testing.T) {
	a := newAuthority(t, "interieur.example", elliptic.P256())
	key := newKey(t, elliptic.P256()).Public()
	if _, err := a.officerProfile(key, RoleAuditor).Template(); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	for name, change := range map[string]func(*OfficerProfile){
		"no address":  func(p *OfficerProfile) { p.Address = Address{} },
		"no role":     func(p *OfficerProfile) { p.Role = "" },
		"two roles":   func(p *OfficerProfile) { p.Role = "officer auditor" },
		"P-521":       func(p *OfficerProfile) { p.PublicKey = newKey(t, elliptic.P521()).Public() },
		"no evidence": func(p *OfficerProfile) { p.EvidenceHash = [32]byte{} },
		"no serial":   func(p *OfficerProfile) { p.Serial = nil },
		"no time":     func(p *OfficerProfile) { p.NotAfter = p.NotBefore },
	} {
		p := a.officerProfile(key, RoleAuditor)
		change(p)
		if _, err := p.Template(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzRole(f *testing.F) {
	for _, role := range []Role{RoleOfficer, RoleAdministrator, RoleAuditor} {
		der, err := role.marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Add([]byte("\x0c\x00"))
	f.Fuzz(func(t *testing.T, der []byte) {
		role, err := parseRole(der)
		if err != nil {
			return
		}
		if again, err := role.marshal(); err != nil || string(again) != string(der) {
			t.Errorf("%x became %x, %v", der, again, err)
		}
	})
}

func TestClearanceCovers(t *testing.T) {
	parse := func(s string) *Clearance {
		c, err := ParseClearanceText(s)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	category := func(c *Clearance, value byte) *Clearance {
		with := *c
		with.Categories = append(slices.Clone(c.Categories), SecurityCategory{asn1.ObjectIdentifier{1, 2, 3}, []byte{2, 1, value}})
		return &with
	}
	a := "1.2.3.4:restricted+secret"
	for _, test := range []struct {
		name       string
		has, given *Clearance
		want       bool
	}{
		{"the same", parse(a), parse(a), true},
		{"one class less", parse(a), parse("1.2.3.4:restricted"), true},
		{"one class more", parse("1.2.3.4:restricted"), parse(a), false},
		{"a class between", parse(a), parse("1.2.3.4:confidential"), false},
		{"another policy", parse(a), parse("1.2.3.5:restricted"), false},
		{"none", parse(a), nil, true},
		{"none for none", nil, nil, true},
		{"none for some", nil, parse(a), false},
		{"a category more", parse(a), category(parse(a), 1), false},
		{"a category less", category(parse(a), 1), parse(a), true},
		{"the same category", category(parse(a), 1), category(parse(a), 1), true},
		{"another category", category(parse(a), 1), category(parse(a), 2), false},
	} {
		if got := test.has.Covers(test.given); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestClearanceText(t *testing.T) {
	for _, s := range []string{"", "1.2.3.4:unmarked", "1.3.6.1.4.1.99999.1:unclassified+restricted+confidential+secret+topsecret", "1.2.3:secret+17+255"} {
		c, err := ParseClearanceText(s)
		if err != nil || c.Text() != s {
			t.Errorf("%q became %q, %v", s, c.Text(), err)
		}
	}
	for _, s := range []string{"1.2.3", "1.2.3:", ":secret", "1.02:secret", "5.2:secret", "1.2.3:Secret", "1.2.3:256", "1.2.3:secret+4", "1.2.3:secret+", "1.2.3 :secret"} {
		if c, err := ParseClearanceText(s); err == nil {
			t.Errorf("%q: accepted as %q", s, c.Text())
		}
	}
}
