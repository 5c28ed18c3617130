// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"testing"
)

func ecPublic(t *testing.T, curve elliptic.Curve, encoded []byte) *ecdsa.PublicKey {
	t.Helper()
	point, ok := parseField(encoded, 0x86)
	if !ok {
		t.Fatalf("no point in %x", encoded)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// SP 800-73-4 Part 2, Appendix A.4 and A.5: ECDSA and ECDH.
func TestCurves(t *testing.T) {
	for alg, curve := range map[byte]elliptic.Curve{algP256: elliptic.P256(), algP384: elliptic.P384()} {
		c := newClient(t, Config{})
		c.admin()
		public := ecPublic(t, curve, c.generate(0x9a, alg, pinNever, touchNever))
		size := (curve.Params().BitSize + 7) / 8
		digest := randomBytes(size)
		signature, sw := c.use(0x9a, alg, 0x81, digest)
		if sw != swOK || !ecdsa.VerifyASN1(public, digest, signature) {
			t.Errorf("%v: signature %x, %04x", curve, signature, sw)
		}
		private, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := private.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		secret, sw := c.use(0x9a, alg, 0x85, point)
		mine, err := private.ECDH()
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := public.ECDH()
		if err != nil {
			t.Fatal(err)
		}
		if want, err := mine.ECDH(theirs); err != nil || sw != swOK || !bytes.Equal(secret, want) {
			t.Errorf("%v: secret %x, %04x, %v", curve, secret, sw, err)
		}
		point[len(point)-1] ^= 1 // no longer on the curve
		for what, input := range map[string][]byte{"point off the curve": point, "no point": {}, "infinity": {0}} {
			if _, sw := c.use(0x9a, alg, 0x85, input); sw != swWrongData {
				t.Errorf("%v: %s: %04x", curve, what, sw)
			}
		}
		for _, input := range [][]byte{{}, randomBytes(size + 1)} {
			if _, sw := c.use(0x9a, alg, 0x81, input); sw != swWrongData {
				t.Errorf("%v: digest of %d bytes: %04x", curve, len(input), sw)
			}
		}
		if _, sw := c.use(0x9a, alg^(algP256^algP384), 0x81, digest); sw != swWrongParameters {
			t.Errorf("%v: another algorithm: %04x", curve, sw)
		}
	}
}

// SP 800-73-4 Part 2, Appendix A.4: RSA without padding.
func TestRSA(t *testing.T) {
	c := newClient(t, Config{})
	c.admin()
	encoded := c.generate(0x9d, algRSA2048, pinNever, touchNever)
	fields, ok := parseFields(encoded)
	if !ok || !matchesTags(fields, 0x81, 0x82) {
		t.Fatalf("public key %x", encoded)
	}
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(fields[0].value), E: int(new(big.Int).SetBytes(fields[1].value).Int64())}
	block := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, 256-3-51)...)
	digest := sha256.Sum256([]byte("hello"))
	info := append([]byte{0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20}, digest[:]...)
	block = append(append(block, 0), info...)
	signature, sw := c.use(0x9d, algRSA2048, 0x81, block)
	if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature); err != nil || sw != swOK {
		t.Errorf("signature: %v, %04x", err, sw)
	}
	for _, input := range [][]byte{block[1:], bytes.Repeat([]byte{0xff}, 256), {}} {
		if _, sw := c.use(0x9d, algRSA2048, 0x81, input); sw != swWrongData {
			t.Errorf("input of %d bytes: %04x", len(input), sw)
		}
	}
	if _, sw := c.use(0x9d, algRSA2048, 0x85, block); sw != swWrongData {
		t.Errorf("key agreement with RSA: %04x", sw)
	}
}

// Firmware 5.7 brought Ed25519 and X25519; older cards refuse them.
func TestEdwards(t *testing.T) {
	c := newClient(t, Config{Firmware: Version{5, 7, 0}})
	c.admin()
	point, _ := parseField(c.generate(0x9a, algEd25519, pinNever, touchNever), 0x86)
	message := randomBytes(700)
	signature, sw := c.use(0x9a, algEd25519, 0x81, message)
	if sw != swOK || !ed25519.Verify(point, message, signature) {
		t.Errorf("signature %x, %04x", signature, sw)
	}
	point, _ = parseField(c.generate(0x9d, algX25519, pinNever, touchNever), 0x86)
	peer, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ecdh.X25519().NewPublicKey(point)
	if err != nil {
		t.Fatal(err)
	}
	want, err := peer.ECDH(public)
	if err != nil {
		t.Fatal(err)
	}
	if secret, sw := c.use(0x9d, algX25519, 0x85, peer.PublicKey().Bytes()); sw != swOK || !bytes.Equal(secret, want) {
		t.Errorf("secret %x, %04x", secret, sw)
	}
	if _, sw := c.use(0x9d, algX25519, 0x85, make([]byte, 32)); sw != swWrongData {
		t.Errorf("point of low order: %04x", sw)
	}
	old := newClient(t, Config{})
	old.admin()
	for _, alg := range []byte{algEd25519, algX25519, algRSA3072, algRSA4096, 0x55} {
		old.want(swWrongData, insGenerate, 0, 0x9a, []byte{0xac, 3, 0x80, 1, alg})
	}
}

// SP 800-73-4 Part 1, Table 4b and Part 2, Section 3.2.4: when a key asks for
// the PIN. Each case signs twice after the steps; want is the second status
// too.
func TestPINPolicy(t *testing.T) {
	login := func(c *client) { c.login() }
	finger := func(c *client) { c.must(insVerify, 0, refFinger, []byte{3, 0}) }
	nothing := func(*client) {}
	for _, tc := range []struct {
		name          string
		slot          byte
		policies      []byte
		step          func(*client)
		first, second status
	}{
		{"9a default, no PIN", 0x9a, nil, nothing, swSecurity, swSecurity},
		{"9a default", 0x9a, nil, login, swOK, swOK},
		{"9d default", 0x9d, nil, login, swOK, swOK},
		{"82 default, no PIN", 0x82, nil, nothing, swSecurity, swSecurity},
		{"95 default", 0x95, nil, login, swOK, swOK},
		{"9c default", 0x9c, nil, login, swOK, swSecurity},
		{"9c default, no PIN", 0x9c, nil, nothing, swSecurity, swSecurity},
		{"9c once", 0x9c, []byte{pinOnce, touchNever}, login, swOK, swOK},
		{"9e default, no PIN", 0x9e, nil, nothing, swOK, swOK},
		{"9e always, no PIN", 0x9e, []byte{pinAlways, touchNever}, nothing, swSecurity, swSecurity},
		{"9a always", 0x9a, []byte{pinAlways, touchNever}, login, swOK, swSecurity},
		{"9a never, no PIN", 0x9a, []byte{pinNever, touchNever}, nothing, swOK, swOK},
		{"match once", 0x9a, []byte{pinMatchOnce, touchNever}, finger, swOK, swOK},
		{"match once by PIN", 0x9a, []byte{pinMatchOnce, touchNever}, login, swOK, swOK},
		{"match always", 0x9a, []byte{pinMatchAlways, touchNever}, finger, swOK, swSecurity},
		{"match always, no finger", 0x9a, []byte{pinMatchAlways, touchNever}, nothing, swSecurity, swSecurity},
		{"a finger is no PIN", 0x9a, []byte{pinOnce, touchNever}, finger, swSecurity, swSecurity},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newClient(t, Config{Bio: true})
			c.admin()
			c.generate(tc.slot, algP256, tc.policies...)
			tc.step(c)
			for _, want := range []status{tc.first, tc.second} {
				if _, sw := c.use(tc.slot, algP256, 0x81, make([]byte, 32)); sw != want {
					t.Errorf("status %04x, want %04x", sw, want)
				}
			}
		})
	}
	plain := newClient(t, Config{})
	plain.admin()
	for _, policies := range [][]byte{{pinMatchOnce, 1}, {6, 1}, {1, 4}} {
		plain.want(swWrongData, insGenerate, 0, 0x9a, []byte{0xac, 9, 0x80, 1, algP256, 0xaa, 1, policies[0], 0xab, 1, policies[1]})
	}
}

// A touch policy is stored and attested. Nobody can touch a virtual card: it
// acts as if touched, or, if made so, as if never touched.
func TestTouchPolicy(t *testing.T) {
	for untouched, want := range map[bool]status{false: swOK, true: swSecurity} {
		c := newClient(t, Config{Untouched: untouched})
		c.admin()
		c.generate(0x9a, algP256, pinNever, touchCached)
		if _, sw := c.use(0x9a, algP256, 0x81, make([]byte, 32)); sw != want {
			t.Errorf("untouched %v: %04x", untouched, sw)
		}
		c.generate(0x9a, algP256, pinNever, touchNever)
		if _, sw := c.use(0x9a, algP256, 0x81, make([]byte, 32)); sw != swOK {
			t.Errorf("untouched %v, no touch needed: %04x", untouched, sw)
		}
	}
}

// SP 800-73-4 Part 2, Section 3.3.2.
func TestGenerateMalformed(t *testing.T) {
	c := newClient(t, Config{})
	c.admin()
	for _, slot := range []byte{0x00, 0x81, 0x96, 0x9b, 0x9f, slotAttestation} {
		c.want(swWrongParameters, insGenerate, 0, slot, []byte{0xac, 3, 0x80, 1, algP256})
	}
	for _, data := range [][]byte{
		nil,
		{0xac},
		{0xac, 0},
		{0xac, 2, 0x80, 0},
		{0xac, 3, 0x81, 1, algP256},
		{0xac, 3, 0x80, 1, algP256, 0},
		{0xac, 6, 0x80, 1, algP256, 0xac, 1, 1},
		{0xac, 5, 0x80, 1, algP256, 0xaa, 0},
	} {
		c.want(swWrongData, insGenerate, 0, 0x9a, data)
	}
	if _, sw := c.use(0x9a, algP256, 0x81, make([]byte, 32)); sw != swNoReference {
		t.Errorf("empty slot: %04x", sw)
	}
	if _, sw := c.use(slotAttestation, algP384, 0x81, make([]byte, 32)); sw != swWrongParameters {
		t.Errorf("the attestation key signs: %04x", sw)
	}
}

// Key metadata, as Yubico describes it.
func TestMetadata(t *testing.T) {
	c := newClient(t, Config{})
	c.admin()
	public := c.generate(0x9c, algP384, pinAlways, touchCached)
	want := append([]byte{1, 1, algP384, 2, 2, pinAlways, touchCached, 3, 1, originGenerated}, appendField(nil, 4, public)...)
	if got := c.must(insGetMetadata, 0, 0x9c, nil); !bytes.Equal(got, want) {
		t.Errorf("metadata %x, want %x", got, want)
	}
	c.want(swNoReference, insGetMetadata, 0, 0x9a, nil)
	c.want(swWrongParameters, insGetMetadata, 1, 0x9c, nil)
	c.verify("111111")
	if got := c.must(insGetMetadata, 0, refPIN, nil); !bytes.Equal(got, []byte{1, 1, 0xff, 5, 1, 1, 6, 2, 3, 2}) {
		t.Errorf("metadata of the PIN: %x", got)
	}
	if got := c.must(insGetMetadata, 0, slotAttestation, nil); !bytes.HasPrefix(got, []byte{1, 1, algP384}) {
		t.Errorf("metadata of F9: %x", got)
	}
}

// statementOf returns the attestation of a slot, checked up to the root.
func (c *client) statementOf(slot byte, root *Root) (*x509.Certificate, status) {
	c.t.Helper()
	der, sw := c.send(insAttest, slot, 0, nil)
	if sw != swOK {
		return nil, sw
	}
	statement, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	object, _ := parseField(c.must(insGetData, 0x3f, 0xff, []byte{0x5c, 3, 0x5f, 0xff, 0x01}), 0x53)
	fields, _ := parseFields(object)
	f9, err := x509.ParseCertificate(fields[0].value)
	if err != nil {
		c.t.Fatal(err)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root.Certificate)
	between.AddCert(f9)
	if _, err := statement.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		c.t.Errorf("slot %02x: %v", slot, err)
	}
	if !bytes.Equal(statement.RawIssuer, f9.RawSubject) || !statement.NotBefore.Equal(f9.NotBefore) || !statement.NotAfter.Equal(f9.NotAfter) {
		c.t.Errorf("slot %02x: issuer or dates are not those of F9", slot)
	}
	return statement, swOK
}

// Attestation says key, slot, firmware, serial number, policies, form factor.
func TestAttest(t *testing.T) {
	root := testRoot(t)
	c := newClient(t, Config{Serial: 0x01020304, FormFactor: 4, Firmware: Version{5, 7, 2}, Root: root})
	c.admin()
	public := ecPublic(t, elliptic.P384(), c.generate(0x84, algP384, pinAlways, touchCached))
	statement, _ := c.statementOf(0x84, root)
	if !public.Equal(statement.PublicKey) {
		t.Error("another key is attested")
	}
	if statement.Subject.CommonName != "YubiKey PIV Attestation 84" {
		t.Errorf("subject %s", statement.Subject)
	}
	if n := statement.SerialNumber.BitLen(); n > 127 || n < 120 {
		t.Errorf("serial number has %d bits", n)
	}
	for _, want := range []struct {
		id    asn1.ObjectIdentifier
		value []byte
	}{
		{oidFirmware, []byte{5, 7, 2}},
		{oidSerial, []byte{2, 4, 1, 2, 3, 4}},
		{oidPolicy, []byte{pinAlways, touchCached}},
		{oidFormFactor, []byte{4}},
	} {
		found := false
		for _, e := range statement.Extensions {
			found = found || e.Id.Equal(want.id) && bytes.Equal(e.Value, want.value) && !e.Critical
		}
		if !found {
			t.Errorf("no extension %v with %x", want.id, want.value)
		}
	}
	again, _ := c.statementOf(0x84, root)
	if again.SerialNumber.Cmp(statement.SerialNumber) == 0 {
		t.Error("two statements have one serial number")
	}
	c.want(swWrongData, insAttest, 0x9a, 0, nil)
	c.want(swWrongParameters, insAttest, slotAttestation, 0, nil)
	c.want(swWrongParameters, insAttest, 0x84, 1, nil)
}

// A key that came from outside works and cannot be attested, in a slot whose
// generated key could; and it stays so after power and file.
func TestImportedKeyIsNotAttested(t *testing.T) {
	c, path := newFileClient(t)
	c.admin()
	c.generate(0x9a, algP256, pinNever, touchNever)
	c.must(insAttest, 0x9a, 0, nil)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := private.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	c.must(insImport, algP256, 0x9a, append(appendField(nil, 6, scalar), 0xaa, 1, pinNever, 0xab, 1, touchNever))
	digest := randomBytes(32)
	if signature, sw := c.use(0x9a, algP256, 0x81, digest); sw != swOK || !ecdsa.VerifyASN1(&private.PublicKey, digest, signature) {
		t.Errorf("imported key: %04x", sw)
	}
	c.want(swWrongData, insAttest, 0x9a, 0, nil)
	c.card.Close()
	card, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	again := &client{t, card}
	again.powerUp()
	again.want(swWrongData, insAttest, 0x9a, 0, nil)
	if got := again.must(insGetMetadata, 0, 0x9a, nil); !bytes.Contains(got, []byte{3, 1, originImported}) {
		t.Errorf("metadata %x", got)
	}
}

func TestImportMalformed(t *testing.T) {
	c := newClient(t, Config{Firmware: Version{5, 7, 0}})
	c.admin()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	crt := func(edit func([][]byte)) []byte {
		values := [][]byte{
			key.Primes[0].FillBytes(make([]byte, 128)), key.Primes[1].FillBytes(make([]byte, 128)),
			key.Precomputed.Dp.FillBytes(make([]byte, 128)), key.Precomputed.Dq.FillBytes(make([]byte, 128)),
			key.Precomputed.Qinv.FillBytes(make([]byte, 128)),
		}
		edit(values)
		var b []byte
		for i, v := range values {
			b = appendField(b, uint32(i+1), v)
		}
		return b
	}
	for what, data := range map[string][]byte{
		"composite":       crt(func(v [][]byte) { v[0][127] ^= 2 }),
		"even":            crt(func(v [][]byte) { v[0][127] ^= 1 }),
		"zero":            crt(func(v [][]byte) { clear(v[0]) }),
		"same prime":      crt(func(v [][]byte) { v[1] = v[0] }),
		"short":           crt(func(v [][]byte) { v[4] = v[4][1:] }),
		"other exponent":  crt(func(v [][]byte) { v[2][127] ^= 1 }),
		"missing value":   crt(func(v [][]byte) {})[:520],
		"nothing":         nil,
		"policy first":    {0xaa, 1, 1, 6, 0},
		"policy is a lie": append(crt(func([][]byte) {}), 0xaa, 1, 9),
	} {
		if _, sw := c.send(insImport, algRSA2048, 0x9a, data); sw != swWrongData {
			t.Errorf("%s: %04x", what, sw)
		}
	}
	c.must(insImport, algRSA2048, 0x9a, crt(func([][]byte) {}))
	order := elliptic.P256().Params().N.Bytes()
	for _, scalar := range [][]byte{nil, make([]byte, 32), order, randomBytes(31)} {
		c.want(swWrongData, insImport, algP256, 0x9a, appendField(nil, 6, scalar))
	}
	c.want(swWrongData, insImport, algEd25519, 0x9a, appendField(nil, 7, randomBytes(31)))
	c.want(swWrongData, insImport, algX25519, 0x9a, appendField(nil, 7, randomBytes(32)))
	c.must(insImport, algX25519, 0x9d, appendField(nil, 8, randomBytes(32)))
	c.want(swWrongParameters, insImport, 0x55, 0x9a, nil)
	c.want(swWrongParameters, insImport, algP256, slotAttestation, appendField(nil, 6, randomBytes(32)))
}

// SP 800-73-4 Part 2, Section 3.2.4 with "always": one VERIFY serves one private key
// operation in 9c, the very next one; whatever uses a key in between, or another
// VERIFY that fails, takes it away. Status 6982 otherwise.
func TestFreshPINServesOneSignature(t *testing.T) {
	c := newClient(t, Config{})
	c.admin()
	c.generate(0x9c, algP384)
	c.generate(0x9a, algP384)
	sign := func(slot byte, want status) {
		t.Helper()
		if _, sw := c.use(slot, algP384, 0x81, make([]byte, 48)); sw != want {
			t.Errorf("slot %02x: status %04x, want %04x", slot, sw, want)
		}
	}
	sign(0x9c, 0x6982) // no PIN at all
	c.login()
	sign(0x9c, swOK)
	sign(0x9c, 0x6982) // the PIN is spent
	sign(0x9a, swOK)   // and for 9a it is not
	c.login()
	sign(0x9a, swOK)
	sign(0x9c, 0x6982) // a use of another key came between
	c.login()
	if sw := c.verify("000000"); sw == swOK {
		t.Fatal("a wrong PIN was accepted")
	}
	sign(0x9c, 0x6982) // a refused PIN ends the login
	c.login()
	if _, sw := c.use(0x9c, algP384, 0x85, make([]byte, 97)); sw == swOK {
		t.Error("a point of zeros was agreed with")
	}
	sign(0x9c, 0x6982) // a failed use spends it too
	c.login()
	sign(0x9c, swOK)
}

// A card without a sensor takes no key that wants to be touched.
func TestNoSensor(t *testing.T) {
	for noSensor, want := range map[bool]status{false: swOK, true: swWrongData} {
		c := newClient(t, Config{NoSensor: noSensor})
		c.admin()
		for _, touch := range []byte{touchAlways, touchCached} {
			c.want(want, insGenerate, 0, 0x9c, []byte{0xac, 9, 0x80, 1, algP256, 0xaa, 1, pinAlways, 0xab, 1, touch})
		}
		c.generate(0x9c, algP256, pinAlways, touchNever) // control
	}
}
