// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseAddress(t *testing.T) {
	for _, s := range []string{
		"alice@interieur.example", "a@b", "a.b-c_d+e@x-y.z0.example", "7@xn--4ca.example",
		strings.Repeat("a", 64) + "@" + strings.Repeat("b", 63) + ".example",
	} {
		a, err := ParseAddress(s)
		if err != nil || a.String() != s || a.Local()+"@"+a.Domain() != s || a.IsZero() {
			t.Errorf("%q: %v, %v", s, a, err)
		}
	}
	for _, s := range []string{
		"", "alice", "@", "@b.example", "a@", "a@@b.example", "a@b@c.example", "Alice@b.example", "a@B.example",
		".a@b.example", "a.@b.example", "a..b@c.example", "-a@b.example", "a b@c.example", " a@b.example", "a@b.example ",
		"a@.example", "a@b..example", "a@b.example.", "a@-b.example", "a@b-.example", "a@b_c.example", "a@192.0.2.7",
		"a@[192.0.2.7]", "\"a\"@b.example", "é@b.example", "a@é.example", "a\x00@b.example", "a@b\n.example", "a/b@c.example",
		strings.Repeat("a", 65) + "@b.example", "a@" + strings.Repeat("b", 64) + ".example", "a@" + strings.Repeat("b.", 126) + "bb",
	} {
		if a, err := ParseAddress(s); err == nil || !a.IsZero() || a.String() != "" {
			t.Errorf("%q: accepted as %v", s, a)
		}
	}
}

// People type capitals and spaces; what else is wrong stays wrong.
func TestCanonicalAddress(t *testing.T) {
	a, err := CanonicalAddress("  Alice@Interieur.Example\n")
	if err != nil || a.String() != "alice@interieur.example" {
		t.Errorf("%v, %v", a, err)
	}
	// The Kelvin sign lowers to k in Unicode; it is another letter here.
	if a, err := CanonicalAddress("\u212aim@b.example"); err == nil {
		t.Errorf("Kelvin sign accepted as %v", a)
	}
}

func TestTextForms(t *testing.T) {
	type both struct {
		Address Address
		Device  DeviceID
	}
	in := both{Device: DeviceID{0xab, 31: 0xcd}}
	var err error
	if in.Address, err = ParseAddress("a@b.example"); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out both
	if err := json.Unmarshal(text, &out); err != nil || out != in {
		t.Errorf("%s comes back as %+v, %v", text, out, err)
	}
	for _, bad := range []string{`{"Address":"A@b"}`, `{"Device":"ab"}`, `{"Device":""}`} {
		if err := json.Unmarshal([]byte(bad), &out); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	if err := json.Unmarshal([]byte(`{"Address":""}`), &out); err != nil || !out.Address.IsZero() {
		t.Errorf("empty address: %v, %v", out.Address, err)
	}
}

// The id is the SHA-256 of what openssl prints as the public key.
func TestDeviceID(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		key := newKey(t, curve)
		spki, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		id := mustID(t, key.Public())
		if id != sha256.Sum256(spki) || id.IsZero() || id.URL().String() != "urn:valise:device:"+id.String() {
			t.Errorf("id %v, URL %v", id, id.URL())
		}
		if again, err := ParseDeviceID(id.String()); err != nil || again != id {
			t.Errorf("comes back as %v, %v", again, err)
		}
	}
	//lint:ignore SA1019 a key off its curve can be made in no other way
	outside := &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}
	for name, key := range map[string]any{
		"P-224": newKey(t, elliptic.P224()).Public(), "P-521": newKey(t, elliptic.P521()).Public(),
		"nil": nil, "nil key": (*ecdsa.PublicKey)(nil), "by value": ecdsa.PublicKey{}, "no point": outside, "bytes": []byte("key"),
	} {
		if _, err := DeviceIDOf(key); !errors.Is(err, ErrKey) {
			t.Errorf("%s: error %v, want ErrKey", name, err)
		}
	}
	for _, s := range []string{"", "00", strings.Repeat("g", 64), strings.Repeat("AB", 32), strings.Repeat("ab", 33)} {
		if _, err := ParseDeviceID(s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}

func TestSafetyNumber(t *testing.T) {
	a, b, c := DeviceID{1}, DeviceID{2}, DeviceID{3}
	number := SafetyNumber([]DeviceID{a, b}, []DeviceID{c})
	groups := strings.Split(number, " ")
	if len(groups) != 12 || slices.ContainsFunc(groups, func(g string) bool { return len(g) != 5 || strings.Trim(g, "0123456789") != "" }) {
		t.Errorf("%q is not 12 groups of 5 digits", number)
	}
	// Version 1 is fixed: another one must change what is hashed first.
	if want := "84313 71577 59573 73404 33861 89608 98276 66495 58223 17900 17780 81267"; number != want {
		t.Errorf("%q, want %q", number, want)
	}
	given := []DeviceID{b, a}
	for name, same := range map[string]string{
		"the other side": SafetyNumber([]DeviceID{c}, []DeviceID{a, b}),
		"another order":  SafetyNumber(given, []DeviceID{c}),
		"a device twice": SafetyNumber([]DeviceID{a, b, a}, []DeviceID{c, c}),
	} {
		if same != number {
			t.Errorf("%s: %q, want %q", name, same, number)
		}
	}
	if given[0] != b {
		t.Error("the caller's slice was sorted")
	}
	for name, other := range map[string]string{
		"a device moved": SafetyNumber([]DeviceID{a}, []DeviceID{b, c}),
		"a device less":  SafetyNumber([]DeviceID{a}, []DeviceID{c}),
		"a device more":  SafetyNumber([]DeviceID{a, b, {4}}, []DeviceID{c}),
		"none":           SafetyNumber(nil, nil),
	} {
		if other == number {
			t.Errorf("%s: the same number", name)
		}
	}
}

// Our arc is the UUID in oids.go, cut as its comment says, and survives
// crypto/x509.
func TestOIDs(t *testing.T) {
	uuid, ok := new(big.Int).SetString(strings.ReplaceAll("4725e87c-687b-4496-b9a5-543e2f4b2bfb", "-", ""), 16)
	if !ok {
		t.Fatal("no UUID")
	}
	got := new(big.Int)
	for i, bits := range []uint{16, 16, 16, 16, 16, 24, 24} {
		got.Lsh(got, bits).Or(got, big.NewInt(int64(arc[7+i])))
	}
	if got.Cmp(uuid) != 0 {
		t.Errorf("arc %v is %x", arc, got)
	}
	seen := map[string]bool{}
	for _, id := range []asn1.ObjectIdentifier{OIDDeviceUsage, OIDGatewayUsage, OIDAppraisal} {
		if seen[id.String()] || len(id) != len(arc)+2 || !id[:len(arc)].Equal(arc) {
			t.Errorf("OID %v", id)
		}
		seen[id.String()] = true
	}
}

func TestProfilesRefuse(t *testing.T) {
	a := newAuthority(t, "interieur.example", elliptic.P256())
	key := newKey(t, elliptic.P256()).Public()
	for name, change := range map[string]func(*DeviceProfile){
		"no address":      func(p *DeviceProfile) { p.Address = Address{} },
		"no key":          func(p *DeviceProfile) { p.PublicKey = nil },
		"P-521":           func(p *DeviceProfile) { p.PublicKey = newKey(t, elliptic.P521()).Public() },
		"no serial":       func(p *DeviceProfile) { p.Serial = nil },
		"serial 0":        func(p *DeviceProfile) { p.Serial = new(big.Int) },
		"serial negative": func(p *DeviceProfile) { p.Serial = big.NewInt(-1) },
		"serial too long": func(p *DeviceProfile) { p.Serial = new(big.Int).Lsh(big.NewInt(1), 159) },
		"empty validity":  func(p *DeviceProfile) { p.NotAfter = p.NotBefore },
		"no dates":        func(p *DeviceProfile) { p.NotBefore = time.Time{} },
		"no tier":         func(p *DeviceProfile) { p.Tier = "" },
		"unknown tier":    func(p *DeviceProfile) { p.Tier = "software" },
		"no evidence":     func(p *DeviceProfile) { p.EvidenceHash = [32]byte{} },
		"no policy":       func(p *DeviceProfile) { p.PolicyHash = [32]byte{} },
		"bad clearance":   func(p *DeviceProfile) { p.Clearance = new(Clearance) },
	} {
		p := a.deviceProfile(key)
		if _, err := p.Template(); err != nil {
			t.Fatalf("honest control: %v", err)
		}
		change(p)
		if _, err := p.Template(); err == nil {
			t.Errorf("device, %s: no error", name)
		}
	}
	for _, name := range []string{"", "GW.example", "*.example", "gw example", "fe80::1%eth0", "192.0.2.300"} {
		p := &GatewayProfile{Name: name, PublicKey: key, Tier: TierWitnessed, Serial: big.NewInt(1), NotBefore: from, NotAfter: to}
		if _, err := p.Template(); err == nil {
			t.Errorf("gateway %q: no error", name)
		}
	}
	for name, p := range map[string]CAProfile{
		"no domain": {PublicKey: key, Serial: big.NewInt(1), NotBefore: from, NotAfter: to},
		"no key":    {Domain: "b.example", Serial: big.NewInt(1), NotBefore: from, NotAfter: to},
	} {
		if _, err := RootTemplate(p); err == nil {
			t.Errorf("root, %s: no error", name)
		}
		if _, err := IssuerTemplate(p); err == nil {
			t.Errorf("issuer, %s: no error", name)
		}
	}
}

// Names are domain components (RFC 2247), so a domain of any length fits.
func TestCANames(t *testing.T) {
	long := strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ".example"
	a := newAuthority(t, long, elliptic.P256())
	if got := a.root.Subject.String(); !strings.Contains(got, "Valise Root") || bytes.Equal(a.root.RawSubject, a.issuer.RawSubject) {
		t.Errorf("root is called %q", got)
	}
	if _, err := a.trust().Device(a.device(newKey(t, elliptic.P256()).Public()), noon); err != nil {
		t.Error(err)
	}
	if got := Fingerprint(a.root); len(got) != 64 || got != strings.ToLower(got) {
		t.Errorf("fingerprint %q", got)
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("alice@interieur.example")
	f.Add("a..b@c")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err == nil && a.String() != s {
			t.Errorf("%q comes back as %q", s, a)
		}
		if b, err := CanonicalAddress(s); err == nil {
			if again, err := ParseAddress(b.String()); err != nil || again != b {
				t.Errorf("%q: canonical form %q does not parse: %v", s, b, err)
			}
		}
	})
}
