// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestVerifyRefuses sets one property off at a time. Every case is run beside
// the honest evidence of the same maker and card, which must pass.
func TestVerifyRefuses(t *testing.T) {
	m := newMaker(t)
	honest := m.card()
	key := newKey(t, elliptic.P256())
	statement := func(changes ...alter) [][]byte {
		return [][]byte{honest.statement("9a", key.Public(), changes...), honest.cert.Raw}
	}
	under := func(c *card) [][]byte { return [][]byte{c.statement("9a", key.Public()), c.cert.Raw} }
	chain := func(c [][]byte) Evidence { return Evidence{Format: FormatYubicoPIV, Chain: c} }
	raw := func(n int, value ...byte) Evidence { return chain(statement(extension(n, value))) }
	named := func(name pkix.Name) Evidence {
		return chain(statement(func(c *x509.Certificate) { c.Subject = name }))
	}
	attestedKey := newKey(t, elliptic.P256())
	slotCert, err := x509.ParseCertificate(honest.statement("9a", attestedKey.Public()))
	if err != nil {
		t.Fatal(err)
	}
	fromSlot := &card{t, slotCert, attestedKey} // an attested key that plays f9

	for name, test := range map[string]struct {
		evidence Evidence
		want     Reason
	}{
		"nothing":                   {Evidence{Format: FormatYubicoPIV}, ReasonNoEvidence},
		"another format":            {Evidence{Format: "packed", Chain: statement()}, ReasonUnknownFormat},
		"no f9":                     {chain(statement()[:1]), ReasonMalformed},
		"too many certificates":     {chain(slices.Repeat(statement(), 4)), ReasonMalformed},
		"a stranger's certificate":  {chain(append(statement(), m.card().cert.Raw)), ReasonMalformed},
		"an oversized certificate":  {chain([][]byte{make([]byte, MaxCertificateSize+1), honest.cert.Raw}), ReasonMalformed},
		"no DER":                    {chain([][]byte{[]byte("hello"), honest.cert.Raw}), ReasonMalformed},
		"bytes behind the slot":     {chain([][]byte{append(statement()[0], 0), honest.cert.Raw}), ReasonMalformed},
		"slot is a CA":              {chain(statement(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })), ReasonMalformed},
		"critical extension":        {chain(statement(critical)), ReasonMalformed},
		"f9 called otherwise":       {chain([][]byte{statement()[0], m.card(func(c *x509.Certificate) { c.Subject.CommonName = "x" }).cert.Raw}), ReasonMalformed},
		"f9 of another card":        {chain([][]byte{statement()[0], m.card().cert.Raw}), ReasonBadSignature},
		"altered statement":         {chain([][]byte{flip(statement()[0]), honest.cert.Raw}), ReasonBadSignature},
		"f9 without constraints":    {chain(under(m.card(func(c *x509.Certificate) { c.BasicConstraintsValid = false; c.MaxPathLenZero = false }))), ReasonMalformed},
		"f9 is no CA":               {chain(under(m.card(func(c *x509.Certificate) { c.IsCA = false; c.MaxPathLenZero = false }))), ReasonMalformed},
		"f9 may not sign":           {chain(under(m.card(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }))), ReasonMalformed},
		"f9 with a critical thing":  {chain(under(m.card(critical))), ReasonMalformed},
		"a slot key as f9":          {chain(under(fromSlot)), ReasonMalformed},
		"another maker":             {chain(under(newMaker(t).card())), ReasonUnknownRoot},
		"dated in the future":       {chain(statement(func(c *x509.Certificate) { c.NotBefore = judgedAt.Add(time.Hour) })), ReasonNotYetValid},
		"older than its card":       {chain(statement(func(c *x509.Certificate) { c.NotBefore = made.Add(-time.Hour) })), ReasonMalformed},
		"card was out of date":      {chain(under(m.card(func(c *x509.Certificate) { c.NotBefore = made.Add(-time.Hour) }))), ReasonMalformed},
		"firmware of two bytes":     {raw(3, 5, 7), ReasonMalformed},
		"firmware of four bytes":    {raw(3, 5, 7, 1, 0), ReasonMalformed},
		"firmware in DER":           {raw(3, 4, 3, 5, 7, 1), ReasonMalformed},
		"serial raw":                {raw(7, 1, 2, 3, 4), ReasonMalformed},
		"serial negative":           {raw(7, integer(-5)...), ReasonMalformed},
		"serial padded":             {raw(7, 2, 2, 0, 5), ReasonMalformed},
		"serial and more":           {raw(7, append(integer(5), 0)...), ReasonMalformed},
		"serial of nine bytes":      {raw(7, 2, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0), ReasonMalformed},
		"policies of one byte":      {raw(8, 2), ReasonMalformed},
		"policies of three bytes":   {raw(8, 2, 1, 1), ReasonMalformed},
		"form factor of two bytes":  {raw(9, 3, 0), ReasonMalformed},
		"form factor of no bytes":   {raw(9, []byte{}...), ReasonMalformed},
		"slot f9":                   {named(pkix.Name{CommonName: "YubiKey PIV Attestation f9"}), ReasonUnknownFormat},
		"slot in capitals":          {named(pkix.Name{CommonName: "YubiKey PIV Attestation 9A"}), ReasonUnknownFormat},
		"slot with a space":         {named(pkix.Name{CommonName: "YubiKey PIV Attestation 9a "}), ReasonUnknownFormat},
		"another application":       {named(pkix.Name{CommonName: "YubiKey OPGP Attestation SIG"}), ReasonUnknownFormat},
		"a name with more in it":    {named(pkix.Name{CommonName: "YubiKey PIV Attestation 9a", Organization: []string{"x"}}), ReasonUnknownFormat},
		"bad second key":            {Evidence{Format: FormatYubicoPIV, Chain: statement(), KeyManagement: under(newMaker(t).card())}, ReasonUnknownRoot},
		"second key without its f9": {Evidence{Format: FormatYubicoPIV, Chain: statement(), KeyManagement: statement()[:1]}, ReasonMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Verify(chain(statement()), nil, m.endorsements(), judgedAt); err != nil {
				t.Fatalf("honest control: %v", err)
			}
			claims, err := Verify(test.evidence, nil, m.endorsements(), judgedAt)
			if claims != nil || ReasonOf(err) != test.want {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
}

// The root's own constraints hold (RFC 5280, Sections 4.2.1.3 and 4.2.1.9).
// A root that may not issue is refused when it is configured; here one passes
// that, and is still no root for what stands below it.
func TestVerifyRootConstraints(t *testing.T) {
	key := newKey(t, elliptic.P256())
	verify := func(root alter) error {
		m := newMaker(t, root)
		c := m.card()
		ev := Evidence{Format: FormatYubicoPIV, Chain: [][]byte{c.statement("9a", key.Public()), c.cert.Raw}}
		_, err := Verify(ev, nil, m.endorsements(), judgedAt)
		return err
	}
	if err := verify(func(c *x509.Certificate) { c.MaxPathLen = 1 }); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	if err := verify(func(c *x509.Certificate) { c.MaxPathLenZero = true }); ReasonOf(err) != ReasonUnknownRoot {
		t.Errorf("path length 0: error %v, want %s", err, ReasonUnknownRoot)
	}
	if err := verify(func(c *x509.Certificate) { c.NotAfter = made.Add(-time.Second); c.NotBefore = made.Add(-time.Hour) }); ReasonOf(err) != ReasonMalformed {
		t.Errorf("root out of date when the card was made: error %v, want %s", err, ReasonMalformed)
	}
	// Its end after the card was made takes nothing back.
	if err := verify(func(c *x509.Certificate) { c.NotAfter = made.Add(time.Hour) }); err != nil {
		t.Errorf("root that ended later: %v", err)
	}
}

// A root with the endorsed one's name but another key is no root.
func TestVerifyRootByKeyNotName(t *testing.T) {
	m, other := newMaker(t), newMaker(t)
	key := newKey(t, elliptic.P256())
	c := m.card()
	ev := Evidence{Format: FormatYubicoPIV, Chain: [][]byte{c.statement("9a", key.Public()), c.cert.Raw}}
	if _, err := Verify(ev, nil, m.endorsements(), judgedAt); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	if _, err := Verify(ev, nil, other.endorsements(), judgedAt); ReasonOf(err) != ReasonUnknownRoot {
		t.Errorf("error %v, want %s", err, ReasonUnknownRoot)
	}
	if _, err := Verify(ev, nil, nil, judgedAt); ReasonOf(err) != ReasonUnknownRoot {
		t.Errorf("nothing endorsed: error %v, want %s", err, ReasonUnknownRoot)
	}
	// Both endorsed: the search does not stop at the first of that name.
	both, err := Join(other.endorsements(), m.endorsements())
	if err != nil {
		t.Fatal(err)
	}
	claims, err := Verify(ev, nil, both, judgedAt)
	if err != nil || claims.Key.Root() != fingerprint(m.root) {
		t.Errorf("both endorsed: %v, %v", claims, err)
	}
}

// Yubico's hierarchy of December 2024: two intermediates between f9 and root,
// which come with the endorsements and which a client may send along.
func TestVerifyIntermediates(t *testing.T) {
	m := newMaker(t)
	between := func(name string, below int, parent *maker) *maker {
		key := newKey(t, elliptic.P256())
		template := caShape(name)
		template.MaxPathLen, template.KeyUsage = below, x509.KeyUsageCertSign
		return &maker{t, sign(t, template, parent.root, key.Public(), parent.key), key}
	}
	a := between("Intermediate A 1", 2, m)
	piv := between("PIV Attestation A 1", 1, a)
	opgp := between("OPGP Attestation A 1", 1, a)
	endorsements, err := Configured(toPEM(m.root, piv.root, a.root))
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t, elliptic.P256())
	verify := func(c *card, extra ...[]byte) (*Claims, error) {
		chain := append([][]byte{c.statement("9a", key.Public()), c.cert.Raw}, extra...)
		return Verify(Evidence{Format: FormatYubicoPIV, Chain: chain}, nil, endorsements, judgedAt)
	}
	claims, err := verify(piv.card())
	if err != nil {
		t.Fatal(err)
	}
	if len(claims.Key.Path) != 5 || claims.Key.Root() != fingerprint(m.root) {
		t.Errorf("path %v", claims.Key.Path)
	}
	if _, err := verify(piv.card(), piv.root.Raw, a.root.Raw, m.root.Raw); err != nil {
		t.Errorf("with the known certificates sent along: %v", err)
	}
	// The same root's intermediate for another application is not endorsed,
	// and sending it does not help.
	if _, err := verify(opgp.card()); ReasonOf(err) != ReasonUnknownRoot {
		t.Errorf("another application: error %v, want %s", err, ReasonUnknownRoot)
	}
	if _, err := verify(opgp.card(), opgp.root.Raw); ReasonOf(err) != ReasonMalformed {
		t.Errorf("another application, sent along: error %v, want %s", err, ReasonMalformed)
	}
}

// What honest evidence says arrives in the claims, field by field.
func TestClaims(t *testing.T) {
	m := newMaker(t)
	c := m.card()
	key := newKey(t, elliptic.P384())
	der := c.statement("95", key.Public(),
		extension(3, []byte{5, 8, 2}), extension(7, integer(4294967301)),
		extension(8, []byte{byte(PINMatchAlways), byte(TouchCached)}),
		extension(9, []byte{byte(USBCBio) | fipsBit}), extension(11, []byte{5, 0}))
	claims, err := Verify(Evidence{Format: FormatYubicoPIV, Chain: [][]byte{der, c.cert.Raw}}, nil, m.endorsements(), judgedAt)
	if err != nil {
		t.Fatal(err)
	}
	k := claims.Key
	got := []string{k.Algorithm, k.Slot.String(), k.Firmware.String(), k.Serial.String(), k.PINPolicy.String(), k.TouchPolicy.String(), k.FormFactor.String(), k.FIPS.String(), k.CSPN.String(), k.Generated.String(), claims.Fresh.String(), claims.SameCard.String()}
	want := []string{"P-384", "95", "5.8.2", "4294967301", "match-always", "cached", "usb-c-bio", "true", "true", "true", "unstated", "unstated"}
	if !slices.Equal(got, want) {
		t.Errorf("claims %v, want %v", got, want)
	}
	if !key.PublicKey.Equal(k.PublicKey) {
		t.Error("another public key")
	}
}

// The hash of evidence changes with everything in it.
func TestEvidenceHash(t *testing.T) {
	a, b := []byte("a"), []byte("b")
	seen := map[[32]byte]int{}
	for i, ev := range []Evidence{
		{},
		{Format: "x"},
		{Format: "x", Chain: [][]byte{a}},
		{Format: "x", Chain: [][]byte{a, b}},
		{Format: "x", Chain: [][]byte{append(slices.Clone(a), b...)}},
		{Format: "x", Chain: [][]byte{a}, KeyManagement: [][]byte{b}},
		{Format: "x", KeyManagement: [][]byte{a, b}},
		{Format: "xa", Chain: [][]byte{b}},
		{Format: "x", Chain: [][]byte{b, a}},
	} {
		if j, ok := seen[ev.Hash()]; ok {
			t.Errorf("evidence %d and %d have one hash", i, j)
		}
		seen[ev.Hash()] = i
	}
}

// The built-in set parses, holds the two published roots, and its
// intermediates hang together: f9 certificates below them reach a root.
func TestBuiltIn(t *testing.T) {
	e := BuiltIn()
	var names []string
	for _, root := range e.Roots() {
		names = append(names, root.Subject.CommonName+" "+fingerprint(root)[:16])
	}
	slices.Sort(names)
	want := []string{"Yubico Attestation Root 1 62760c6a6ef91679", "Yubico PIV Root CA Serial 263751 63ece914e54dd879"}
	if !slices.Equal(names, want) {
		t.Errorf("roots %q, want %q", names, want)
	}
	if len(e.intermediates) != 4 {
		t.Fatalf("%d intermediates, want 4", len(e.intermediates))
	}
	for _, cert := range e.intermediates {
		path, root := e.extend([]*x509.Certificate{cert})
		if path == nil || !root.builtIn || root.cert.Subject.CommonName != "Yubico Attestation Root 1" {
			t.Errorf("%s reaches no root", cert.Subject)
		}
		if strings.Contains(cert.Subject.CommonName, "PIV") && mayIssue(cert, 1) != nil {
			t.Errorf("%s may not issue an f9 certificate: %v", cert.Subject, mayIssue(cert, 1))
		}
	}
}

func TestConfiguredRefuses(t *testing.T) {
	m := newMaker(t)
	if _, err := Configured(toPEM(m.root)); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	leaf := m.card()
	slot, err := x509.ParseCertificate(leaf.statement("9a", newKey(t, elliptic.P256()).Public()))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty":            nil,
		"text":             []byte("no roots here"),
		"no root":          toPEM(leaf.cert),
		"not a CA":         toPEM(m.root, slot),
		"another block":    bytes.ReplaceAll(toPEM(m.root), []byte("CERTIFICATE"), []byte("PUBLIC KEY")),
		"text behind":      append(toPEM(m.root), "x"...),
		"altered root":     toPEM(&x509.Certificate{Raw: flip(m.root.Raw)}),
		"too many of them": bytes.Repeat(toPEM(m.root), maxEndorsements+1),
	} {
		if e, err := Configured(data); err == nil {
			t.Errorf("%s: no error, %v", name, e.Version())
		}
	}
}

func critical(c *x509.Certificate) {
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}})
}

// flip changes the last bit of a certificate, which belongs to its signature.
func flip(der []byte) []byte {
	der = slices.Clone(der)
	der[len(der)-1] ^= 1
	return der
}
