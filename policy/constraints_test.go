// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"testing"
	"time"

	"valise/identity"
	"valise/policy/spif"
)

func classNumbers(c *identity.Clearance) []int {
	if c == nil {
		return nil
	}
	return c.Classes()
}

// RFC 5913, Section 4: what is left is what both hold.
func TestIntersect(t *testing.T) {
	set := oid(t, testPolicy+".1")
	value := func(kind spif.Type, numbers ...int) categoryValue { return categoryValue{set, kind, numbers} }
	a := clearance(t, []int{1, 3, 5}, value(spif.Restrictive, 0, 1, 2), value(spif.EnumeratedPermissive, 250, 276), value(spif.Permissive, 4))
	b := clearance(t, []int{3, 5, 9}, value(spif.Restrictive, 1, 2, 3), value(spif.EnumeratedPermissive, 276, 380), value(spif.EnumeratedRestrictive, 4))
	for _, both := range []*identity.Clearance{Intersect(a, b), Intersect(b, a)} {
		if got := classNumbers(both); !slices.Equal(got, []int{3, 5}) {
			t.Errorf("classes %v", got)
		}
		if len(both.Categories) != 2 {
			t.Fatalf("categories %+v", both.Categories)
		}
		for _, c := range both.Categories {
			v, err := parseCategoryValue(c)
			if err != nil {
				t.Fatal(err)
			}
			expect := map[spif.Type][]int{spif.Restrictive: {1, 2}, spif.EnumeratedPermissive: {276}}[v.kind]
			if !slices.Equal(v.numbers, expect) {
				t.Errorf("%v: %v", v.kind, v.numbers)
			}
		}
		if _, err := both.Marshal(); err != nil {
			t.Error(err)
		}
	}
	if got := Intersect(a, clearance(t, []int{9})); got != nil {
		t.Errorf("nothing in common: %+v", got)
	}
	foreign := clearance(t, []int{1, 3, 5})
	foreign.PolicyID = append(foreign.PolicyID, 1)
	for _, other := range []*identity.Clearance{foreign, nil} {
		if got := Intersect(a, other); got != nil {
			t.Errorf("another policy: %+v", got)
		}
	}
	// Categories that nobody here can read are kept only where they are equal.
	unknown := func(octet byte) identity.SecurityCategory {
		return identity.SecurityCategory{Type: []int{1, 2, 3}, Value: []byte{4, 1, octet}}
	}
	a.Categories, b.Categories = append(a.Categories, unknown(1), unknown(2)), append(b.Categories, unknown(2), unknown(3))
	both := Intersect(a, b)
	if n := len(both.Categories); n != 3 || !bytes.Equal(both.Categories[2].Value, unknown(2).Value) {
		t.Errorf("unknown categories: %+v", both.Categories)
	}
}

func TestConstraints(t *testing.T) {
	a, b := clearance(t, []int{1, 3}), clearance(t, []int{5})
	b.PolicyID = append(b.PolicyID, 7)
	der, err := Constraints{a, b}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseConstraints(der)
	if err != nil || len(back) != 2 || !slices.Equal(classNumbers(back.of(b.PolicyID)), []int{5}) {
		t.Errorf("%+v, %v", back, err)
	}
	if der, err := (Constraints{a, a}).Marshal(); err == nil {
		t.Errorf("one policy twice: %x", der)
	}
	if der, err := (Constraints{}).Marshal(); err == nil {
		t.Errorf("empty: %x", der)
	}
	one, _ := a.Marshal()
	twice := append([]byte{0x30, byte(2 * len(one))}, append(bytes.Clone(one), one...)...)
	for name, data := range map[string][]byte{
		"empty": {0x30, 0}, "nothing": {}, "one policy twice": twice, "trailing": append(bytes.Clone(der), 0), "cut": der[:len(der)-1],
	} {
		if list, err := ParseConstraints(data); err == nil {
			t.Errorf("%s: %+v", name, list)
		}
	}
}

// authority is a CA with constraints of its own, in software.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T, above *authority, constraints []byte) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	profile := identity.CAProfile{
		Domain: "interieur.example", PublicKey: key.Public(), Serial: big.NewInt(1), NotBefore: now, NotAfter: now.AddDate(1, 0, 0),
	}
	template, err := identity.IssuerTemplate(profile)
	if above == nil {
		template, err = identity.RootTemplate(profile)
	}
	if err != nil {
		t.Fatal(err)
	}
	if constraints != nil {
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: OIDClearanceConstraints, Value: constraints})
	}
	parent, signer := template, key
	if above != nil {
		parent, signer = above.cert, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key, cert}
}

// device issues a device's certificate and checks its chain as a gateway does.
func (a *authority) device(t *testing.T, root *authority, c *identity.Clearance) *identity.Device {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	address, err := identity.ParseAddress("alice@interieur.example")
	if err != nil {
		t.Fatal(err)
	}
	template, err := (&identity.DeviceProfile{
		Address: address, PublicKey: key.Public(), Clearance: c, Serial: big.NewInt(2),
		Tier: "hardware", EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2},
		NotBefore: now, NotAfter: now.AddDate(0, 0, 7),
	}).Template()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	trust := identity.NewTrust(identity.Authority{Domain: "interieur.example", Roots: []*x509.Certificate{root.cert}})
	device, err := trust.Device([][]byte{der, a.cert.Raw}, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return device
}

// A device's certificate carries the clearance; what counts is what the
// certificates above leave of it.
func TestEffective(t *testing.T) {
	s := one(t, decided, releases)
	full := issue(t, s, "HIGH", "1/R/A", "1/R/B", "2/Release/X")
	limit := func(c *identity.Clearance) []byte {
		der, err := Constraints{c}.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	middle := limit(issue(t, s, "MIDDLE", "1/R/A", "2/Release/X", "2/Release/Y"))
	low := limit(issue(t, s, "LOW", "1/R/B", "2/Release/X"))
	elsewhere := clearance(t, []int{3, 5, 9})
	elsewhere.PolicyID = append(elsewhere.PolicyID, 1)
	tests := []struct {
		name         string
		root, issuer []byte
		label        *Label
		want         Reason
	}{
		{"no constraints", nil, nil, label(t, "HIGH", "1/R/A", "1/R/B"), ""},
		{"issuer: within", nil, middle, label(t, "MIDDLE", "1/R/A"), ""},
		{"issuer: classification above", nil, middle, label(t, "HIGH"), ReasonClassification},
		{"issuer: category beyond", nil, middle, label(t, "LOW", "1/R/B"), ReasonRestrictive},
		{"root: classification above", low, nil, label(t, "MIDDLE"), ReasonClassification},
		{"both: what both leave", low, middle, label(t, "LOW", "2/Release/X"), ""},
		{"both: categories of neither", low, middle, label(t, "LOW", "1/R/A"), ReasonRestrictive},
		{"constraints give nothing", nil, middle, label(t, "LOW", "2/Release/Y"), ReasonPermissive},
		{"policy not named", limit(elsewhere), nil, label(t, "LOW"), ReasonNoClearance},
	}
	for _, test := range tests {
		root := newAuthority(t, nil, test.root)
		issuer := newAuthority(t, root, test.issuer)
		device := issuer.device(t, root, full)
		effective, err := Effective(device.Clearance, issuer.cert, root.cert)
		if err != nil {
			t.Fatal(err)
		}
		want(t, test.name, s.Judge(test.label, effective, New, now), test.want)
		other, err := Effective(device.Clearance, root.cert, issuer.cert)
		if err != nil || (other == nil) != (effective == nil) {
			t.Errorf("%s: the other way round %+v, %v", test.name, other, err)
		}
	}
	root := newAuthority(t, nil, []byte{0x30, 0})
	if c, err := Effective(full, root.cert); err == nil || c != nil {
		t.Errorf("constraints that cannot be read leave %+v, %v", c, err)
	}
	if c, err := Effective(full, make([]*x509.Certificate, maxPath+1)...); err == nil {
		t.Errorf("a path without end leaves %+v", c)
	}
	if c, err := Effective(nil, root.cert); err == nil || c != nil {
		t.Errorf("no clearance became %+v, %v", c, err)
	}
}
