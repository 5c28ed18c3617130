// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"valise/internal/testenv"
)

// certsOnly writes RFC 5652's degenerate SignedData.
func certsOnly(t testing.TB, certs ...[]byte) []byte {
	t.Helper()
	return signedData(t, certs, nil)
}

// signedData writes a certs-only PKCS #7; extra is put behind the certificates.
func signedData(t testing.TB, certs [][]byte, extra []byte) []byte {
	t.Helper()
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidSignedData)
		b.AddASN1(context0, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(tag.SET, func(*cryptobyte.Builder) {})
				b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidData) })
				b.AddASN1(context0, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(certs, nil)) })
				b.AddBytes(extra)
				b.AddASN1(tag.SET, func(*cryptobyte.Builder) {})
			})
		})
	})
	der, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// twoKeys returns the certificates of a card with keys in 9a and 9d, and its
// maker.
func twoKeys(t testing.TB) (*maker, [][]byte) {
	m := newMaker(t)
	c := m.card()
	return m, [][]byte{
		c.statement("9d", newKey(t, elliptic.P256()).Public()),
		c.cert.Raw,
		c.statement("9a", newKey(t, elliptic.P384()).Public()),
	}
}

// Every form of a file gives the same evidence.
func TestParseFileForms(t *testing.T) {
	m, certs := twoKeys(t)
	var text []byte
	for _, der := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	p7 := certsOnly(t, certs...)
	for name, data := range map[string][]byte{
		"PEM":              text,
		"PEM with text":    append([]byte("my card:\n"), text...),
		"DER":              bytes.Join(certs, nil),
		"PKCS #7":          p7,
		"PKCS #7 in PEM":   pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: p7}),
		"CMS in PEM":       pem.EncodeToMemory(&pem.Block{Type: "CMS", Bytes: p7}),
		"PEM of all twice": slices.Concat(text, text),
	} {
		got, err := ParseFile(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ev, err := Assemble(got)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		claims, err := Verify(ev, nil, m.endorsements(), judgedAt)
		if err != nil || claims.Key.Slot.Value != "9a" || claims.KeyManagement.Slot.Value != "9d" || claims.SameCard != True {
			t.Errorf("%s: %+v, %v", name, claims, err)
		}
	}
}

func TestParseFileRefuses(t *testing.T) {
	_, certs := twoKeys(t)
	one := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certs[0]})
	p7 := certsOnly(t, certs...)
	crls := []byte{0xa1, 0}
	for name, test := range map[string]struct {
		data []byte
		want Reason
	}{
		"empty":               {nil, ReasonNoEvidence},
		"text":                {[]byte("hello"), ReasonMalformed},
		"too large":           {make([]byte, MaxFileSize+1), ReasonMalformed},
		"a request":           {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte{1}}), ReasonUnknownFormat},
		"a broken block":      {append(slices.Clone(one), one[:80]...), ReasonMalformed},
		"a cut certificate":   {certs[0][:100], ReasonMalformed},
		"too many":            {bytes.Repeat(one, maxFileCertificates+1), ReasonMalformed},
		"PKCS #7 cut":         {p7[:len(p7)-1], ReasonMalformed},
		"PKCS #7 and more":    {append(slices.Clone(p7), 0), ReasonMalformed},
		"PKCS #7 with a CRL":  {signedData(t, certs, crls), ReasonMalformed},
		"PKCS #7, no content": {p7[:20], ReasonMalformed},
		"empty PKCS #7":       {certsOnly(t), ReasonNoEvidence},
	} {
		if certs, err := ParseFile(test.data); ReasonOf(err) != test.want {
			t.Errorf("%s: %d certificates, error %v, want %s", name, len(certs), err, test.want)
		}
	}
}

func TestAssembleRefuses(t *testing.T) {
	m, certs := twoKeys(t)
	if _, err := Assemble(certs); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	other := m.card()
	another := other.statement("82", newKey(t, elliptic.P256()).Public())
	for name, test := range map[string]struct {
		certs [][]byte
		want  Reason
	}{
		"nothing":        {nil, ReasonUnknownFormat},
		"no slot":        {[][]byte{certs[1]}, ReasonUnknownFormat},
		"no f9":          {[][]byte{certs[0]}, ReasonMalformed},
		"f9 of another":  {[][]byte{certs[0], other.cert.Raw}, ReasonMalformed},
		"no DER":         {[][]byte{[]byte("x")}, ReasonMalformed},
		"oversized":      {[][]byte{make([]byte, MaxCertificateSize+1)}, ReasonMalformed},
		"three keys":     {append(slices.Clone(certs), another, other.cert.Raw), ReasonMalformed},
		"two keys in 9d": {[][]byte{certs[0], certs[1], other.statement("9d", newKey(t, elliptic.P256()).Public()), other.cert.Raw}, ReasonMalformed},
	} {
		if _, err := Assemble(test.certs); ReasonOf(err) != test.want {
			t.Errorf("%s: error %v, want %s", name, err, test.want)
		}
	}
}

// Evidence of real cards: one is sound and refused for its firmware's sake
// alone, the other's card certificate is no CA.
func TestRealCards(t *testing.T) {
	show := func(card testenv.PublishedCard) (*Claims, error) {
		certs, err := ParseFile(testenv.Published(t, card))
		if err != nil {
			t.Fatal(err)
		}
		ev, err := Assemble(certs)
		if err != nil {
			t.Fatal(err)
		}
		return Verify(ev, nil, BuiltIn(), judgedAt)
	}
	claims, err := show(testenv.YubiKey543)
	if err != nil {
		t.Fatal(err)
	}
	k := claims.Key
	if k.Firmware.String() != "5.4.3" || k.Serial.String() != "15732500" || k.PINPolicy.String() != "once" || k.TouchPolicy.String() != "never" || k.FormFactor.String() != "usb-c-nano" || !k.BuiltIn {
		t.Errorf("claims %+v", k)
	}
	policy := &AppraisalPolicy{KeyManagement: KeyManagementOptional, MinFirmware: "5.4.0"}
	if r := policy.Appraise(claims, Input{Archived: true, Now: judgedAt}); r.Reason() != ReasonFirmware {
		t.Errorf("reason %q, want %q", r.Reason(), ReasonFirmware)
	}
	policy.AcceptVulnerableFirmware = true
	if r := policy.Appraise(claims, Input{Archived: true, Now: judgedAt}); !r.Accepted() {
		t.Errorf("with the leak accepted by name: %s", r.Reason())
	}
	if _, err := show(testenv.YubiKey437); ReasonOf(err) != ReasonMalformed {
		t.Errorf("error %v, want %s", err, ReasonMalformed)
	}
}

// OpenSSL's PKCS #7 holds what the PEM file holds.
func TestParseOpenSSLFile(t *testing.T) {
	openssl := testenv.Need(t, "openssl", "openssl")
	published := testenv.Published(t, testenv.YubiKey543)
	cmd := exec.Command(openssl, "crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin")
	cmd.Stdin = bytes.NewReader(published)
	converted, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := ParseFile(published)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(converted)
	if block == nil {
		t.Fatalf("openssl wrote %q", converted)
	}
	for name, form := range map[string][]byte{"PEM": converted, "DER": block.Bytes} {
		if got, err := ParseFile(form); err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%s: %d certificates (%v), want the %d of the PEM file", name, len(got), err, len(want))
		}
	}
}

// Other vendors' evidence is told from ours, and nothing in it crashes.
func TestOtherVendors(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(testenv.Vectors(t, "attest"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen++
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, form := range [][]byte{data, decoded(data)} {
			certs, err := ParseFile(form)
			if err == nil {
				_, err = Assemble(certs)
			}
			if err == nil || !strings.Contains(err.Error(), "not YubiKey PIV evidence") {
				t.Errorf("%s: %v", filepath.Base(path), err)
			}
		}
		return nil
	})
	if err != nil || seen == 0 {
		t.Fatalf("%d files, %v", seen, err)
	}
}

// decoded returns base64 text decoded, and anything else as it is.
func decoded(data []byte) []byte {
	if raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data))); err == nil {
		return raw
	}
	return data
}

// What ParseFile and Assemble accept is certificates, all of which stood in
// the file, and Verify copes with any of it.
func FuzzParseFile(f *testing.F) {
	m, certs := twoKeys(f)
	f.Add(bytes.Join(certs, nil))
	f.Add(certsOnly(f, certs...))
	f.Add(signedData(f, certs, []byte{0xa1, 0}))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certs[1]}))
	endorsements := m.endorsements()
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := ParseFile(data)
		if err != nil {
			return
		}
		for _, der := range certs {
			if !bytes.Contains(data, []byte("-----BEGIN ")) && !bytes.Contains(data, der) {
				t.Error("a certificate that is not in the file")
			}
		}
		if ev, err := Assemble(certs); err == nil {
			claims, err := Verify(ev, nil, endorsements, judgedAt)
			if (claims == nil) == (err == nil) {
				t.Error("neither claims nor error")
			}
		}
	})
}

// The reader of a slot's certificate copes with any bytes: either claims or a
// reason.
func FuzzSlotCertificate(f *testing.F) {
	m := newMaker(f)
	c := m.card()
	f.Add(c.statement("9a", newKey(f, elliptic.P256()).Public()))
	f.Add(c.statement("82", newKey(f, elliptic.P384()).Public(), extension(8, nil), extension(10, []byte{1})))
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		claims, err := pivClaims(cert)
		if (claims == nil) != (ReasonOf(err) != "") {
			t.Errorf("claims %v, error %v", claims, err)
		}
		if claims != nil {
			new(AppraisalPolicy).Appraise(&Claims{Key: *claims}, Input{Now: judgedAt})
		}
	})
}
