// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"valise/identity"
)

// TestVerifyRefuses sets one property off at a time, beside an honest control
// (spec/statement.md, Section 5).
func TestVerifyRefuses(t *testing.T) {
	h, other := newHouse(t, elliptic.P256()), newHouse(t, elliptic.P256())
	officer, administrator := h.person("olga", identity.RoleOfficer), h.person("adam", identity.RoleAdministrator)
	impostor := other.person("olga", identity.RoleOfficer)
	all := bodies(t)
	approval := all[KindApproval]
	honest := h.sign(officer, approval)
	with := func(p *person, change func(*Head)) []byte {
		head := h.head()
		change(&head)
		raw, err := Sign(t.Context(), p.key, p.chain, head, approval)
		must(t, err)
		return raw
	}
	parts := func(raw []byte) [][]byte { return bytes.Split(raw, []byte(".")) }
	mix := func(head, payload, signature []byte) []byte {
		return bytes.Join([][]byte{parts(head)[0], parts(payload)[1], parts(signature)[2]}, []byte("."))
	}
	device := func() []byte { // a device's certificate for the same key
		p := identity.DeviceProfile{
			Address: at(t, "olga"), PublicKey: officer.key.Public(), Tier: identity.TierHardware, EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2},
			Serial: big.NewInt(5), NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour),
		}
		template, err := p.Template()
		must(t, err)
		return h.sign(&person{officer.key, h.chain(template)}, approval)
	}()
	self := *approval.(*Approval)
	self.Address = at(t, "olga")
	farAhead := noon.AddDate(2, 0, 0)

	for name, test := range map[string]struct {
		raw  []byte
		at   time.Time
		want Reason
	}{
		"another statement's payload":        {mix(honest, h.sign(officer, all[KindApproval]), honest), noon, ReasonSignature},
		"another's header":                   {mix(h.sign(h.person("olga", identity.RoleOfficer), approval), honest, honest), noon, ReasonSignature},
		"another's signature":                {mix(honest, honest, h.sign(h.person("olga", identity.RoleOfficer), approval)), noon, ReasonSignature},
		"another typ":                        {mix(h.sign(officer, &Session{NewID(), "https://a.example"}), honest, honest), noon, ReasonMalformed},
		"another house":                      {other.sign(impostor, approval), noon, ReasonSigner},
		"another house, our authority":       {with(impostor, func(*Head) {}), noon, ReasonSigner},
		"our officer, their authority":       {with(officer, func(head *Head) { head.Authority = other.root }), noon, ReasonAuthority},
		"a device signed":                    {device, noon, ReasonSigner},
		"from the future":                    {with(officer, func(head *Head) { head.Time = noon.Add(Skew + time.Second) }), noon, ReasonEarly},
		"too late":                           {honest, noon.Add(SessionLife), ReasonExpired},
		"certificate ran out":                {with(officer, func(head *Head) { head.Time, head.Expires = farAhead, farAhead.Add(time.Hour) }), farAhead, ReasonSigner},
		"an administrator approves":          {h.sign(administrator, approval), noon, ReasonRole},
		"an officer appoints":                {h.sign(officer, all[KindAppointment]), noon, ReasonRole},
		"an administrator cuts a device off": {h.sign(administrator, all[KindSuspension]), noon, ReasonRole},
		"an auditor removes":                 {h.sign(h.person("otto", identity.RoleAuditor), all[KindRemoval]), noon, ReasonRole},
		"own approval":                       {h.sign(officer, &self), noon, ReasonSelf},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Verify(honest, h.trust(), h.root, noon); err != nil {
				t.Fatalf("honest control: %v", err)
			}
			s, err := Verify(test.raw, h.trust(), h.root, test.at)
			if s != nil || ReasonOf(err) != test.want {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
	// What is at the edges passes.
	for name, test := range map[string]struct {
		raw []byte
		at  time.Time
	}{
		"a little ahead":                    {with(officer, func(head *Head) { head.Time = noon.Add(Skew) }), noon},
		"the last second":                   {honest, noon.Add(SessionLife - time.Second)},
		"an officer leaves":                 {h.sign(administrator, &Dismissal{NewID(), at(t, "adam"), "resigned"}), noon},
		"own card lost":                     {h.sign(officer, &Suspension{Target{Kind: TargetPerson, Address: at(t, "olga")}, "lost", NewID()}), noon},
		"an administrator stops an officer": {h.sign(administrator, &Suspension{Target{Kind: TargetOfficer, Address: at(t, "olga")}, "left", NewID()}), noon},
	} {
		if _, err := Verify(test.raw, h.trust(), h.root, test.at); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// With two authorities in the table, an officer of one decides nothing in the
// other, even if they name it.
func TestVerifyTwoAuthorities(t *testing.T) {
	a, b := newHouse(t, elliptic.P256()), newHouse(t, elliptic.P256())
	both := identity.NewTrust(
		identity.Authority{Domain: "interieur.example", Roots: []*x509.Certificate{a.rootCert}},
		identity.Authority{Domain: "interieur.example", Roots: []*x509.Certificate{b.rootCert}},
	)
	body := bodies(t)[KindRefusal]
	if _, err := Verify(a.sign(a.person("olga", identity.RoleOfficer), body), both, a.root, noon); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	p := b.person("olga", identity.RoleOfficer)
	raw, err := Sign(t.Context(), p.key, p.chain, a.head(), body)
	must(t, err)
	if _, err := Verify(raw, both, a.root, noon); ReasonOf(err) != ReasonAuthority {
		t.Errorf("the other's officer: %v", err)
	}
}

// RFC 7515, Section 10.7, and RFC 8725, Section 3.1: the algorithm is the
// key's, whatever the header says.
func TestAlgorithmIsTheKeys(t *testing.T) {
	h := newHouse(t, elliptic.P384())
	p := h.person("olga", identity.RoleOfficer)
	raw := h.sign(p, bodies(t)[KindRefusal])
	if _, err := Verify(raw, h.trust(), h.root, noon); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	header, rest, _ := bytes.Cut(raw, []byte("."))
	text, _ := base64.RawURLEncoding.DecodeString(string(header))
	for alg, want := range map[string]Reason{"ES256": ReasonAlgorithm, "none": ReasonMalformed, "HS256": ReasonMalformed, "ES512": ReasonMalformed, "es384": ReasonMalformed, "": ReasonMalformed} {
		altered := strings.Replace(string(text), "ES384", alg, 1)
		payload, signature, _ := bytes.Cut(rest, []byte("."))
		if alg == "ES256" {
			signature = []byte(base64.RawURLEncoding.EncodeToString(slices.Concat([]byte{1}, make([]byte, 62), []byte{1})))
		}
		s, err := Verify(bytes.Join([][]byte{[]byte(base64.RawURLEncoding.EncodeToString([]byte(altered))), payload, signature}, []byte(".")), h.trust(), h.root, noon)
		if s != nil || ReasonOf(err) != want {
			t.Errorf("alg %q: %v, want %s", alg, err, want)
		}
	}
}

// A signature has one spelling: whoever copies a statement cannot make a
// second one out of it (spec/statement.md, Section 2).
func TestSignatureHasOneSpelling(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		h := newHouse(t, curve)
		p := h.person("olga", identity.RoleOfficer)
		for range 8 { // half of all cards' signatures come with the higher s
			raw := h.sign(p, bodies(t)[KindRefusal])
			if _, err := Verify(raw, h.trust(), h.root, noon); err != nil {
				t.Fatalf("honest control: %v", err)
			}
			dot := bytes.LastIndexByte(raw, '.')
			signature, err := base64.RawURLEncoding.DecodeString(string(raw[dot+1:]))
			must(t, err)
			half := len(signature) / 2
			s := new(big.Int).SetBytes(signature[half:])
			s.Sub(curve.Params().N, s).FillBytes(signature[half:])
			altered := seal(raw[:dot], signature)
			// It verifies for others …
			digest := crypto.SHA256
			if curve == elliptic.P384() {
				digest = crypto.SHA384
			}
			if !ecdsa.Verify(&p.key.PublicKey, digestOf(digest, raw[:dot]), new(big.Int).SetBytes(signature[:half]), s) {
				t.Fatal("the other spelling is no signature")
			}
			// … and not for us.
			if _, err := Verify(altered, h.trust(), h.root, noon); ReasonOf(err) != ReasonSignature {
				t.Errorf("the other spelling: %v", err)
			}
		}
	}
	h := newHouse(t, elliptic.P256())
	raw := h.sign(h.person("olga", identity.RoleOfficer), bodies(t)[KindRefusal])
	dot := bytes.LastIndexByte(raw, '.')
	for name, signature := range map[string][]byte{"zero": make([]byte, 64), "r zero": append(make([]byte, 63), 1), "all ones": bytes.Repeat([]byte{255}, 64)} {
		if _, err := Verify(seal(raw[:dot], signature), h.trust(), h.root, noon); ReasonOf(err) != ReasonSignature {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Signing asks for no PIN when the outcome would be refused.
func TestSignRefuses(t *testing.T) {
	h := newHouse(t, elliptic.P256())
	p := h.person("olga", identity.RoleOfficer)
	body := bodies(t)[KindRefusal]
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	long := &Suspension{Target{Kind: TargetPerson, Address: at(t, "alice")}, strings.Repeat("a", maxText+1), NewID()}
	counted := &counter{Signer: p.key}
	for name, try := range map[string]func() error{
		"another card": func() error {
			_, err := Sign(t.Context(), &counter{Signer: newKey(t, elliptic.P256()), n: &counted.total}, p.chain, h.head(), body)
			return err
		},
		"no issuer":   func() error { _, err := Sign(t.Context(), counted, p.chain[:1], h.head(), body); return err },
		"no body":     func() error { _, err := Sign(t.Context(), counted, p.chain, h.head(), nil); return err },
		"empty body":  func() error { _, err := Sign(t.Context(), counted, p.chain, h.head(), &Refusal{}); return err },
		"no head":     func() error { _, err := Sign(t.Context(), counted, p.chain, Head{}, body); return err },
		"long reason": func() error { _, err := Sign(t.Context(), counted, p.chain, h.head(), long); return err },
		"long life": func() error {
			head := h.head()
			head.Expires = noon.Add(MaxLife + time.Second)
			_, err := Sign(t.Context(), counted, p.chain, head, body)
			return err
		},
		"long session": func() error {
			head := h.head()
			head.Expires = noon.Add(SessionLife + time.Second)
			_, err := Sign(t.Context(), counted, p.chain, head, &Session{NewID(), "https://a.example"})
			return err
		},
		"no life": func() error {
			head := h.head()
			head.Expires = head.Time
			_, err := Sign(t.Context(), counted, p.chain, head, body)
			return err
		},
		"half a second": func() error {
			head := h.head()
			head.Time = head.Time.Add(time.Millisecond)
			_, err := Sign(t.Context(), counted, p.chain, head, body)
			return err
		},
		"cancelled": func() error { _, err := Sign(cancelled, counted, p.chain, h.head(), body); return err },
	} {
		if err := try(); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if counted.total != 0 {
		t.Errorf("the card was asked %d times", counted.total)
	}
	if _, err := Sign(t.Context(), counted, p.chain, h.head(), body); err != nil || counted.total != 1 {
		t.Errorf("honest control: %v, asked %d times", err, counted.total)
	}
	for name, broken := range map[string]crypto.Signer{
		"error":          &faulty{p.key, nil, errors.New("no card in any reader")},
		"no signature":   &faulty{p.key, []byte("hello"), nil},
		"other content":  &faulty{p.key, otherSignature(t, p.key), nil},
		"huge signature": &faulty{p.key, bytes.Repeat([]byte{0x30}, 1<<16), nil},
	} {
		if _, err := Sign(t.Context(), broken, p.chain, h.head(), body); err == nil {
			t.Errorf("%s: a statement came of it", name)
		}
	}
}

// A counter counts the signatures that are asked of a key.
type counter struct {
	crypto.Signer
	n     *int
	total int
}

func (c *counter) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	c.total++
	if c.n != nil {
		*c.n++
	}
	return c.Signer.Sign(r, digest, opts)
}

// A faulty card answers what it likes.
type faulty struct {
	crypto.Signer
	answer []byte
	err    error
}

func (f *faulty) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return f.answer, f.err }

func otherSignature(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := key.Sign(rand.Reader, make([]byte, 32), crypto.SHA256)
	must(t, err)
	if _, err := asn1.Unmarshal(der, new(struct{ R, S *big.Int })); err != nil {
		t.Fatal(err)
	}
	return der
}
