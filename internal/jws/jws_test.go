// SPDX-License-Identifier: Apache-2.0

package jws

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// RFC 7515, Section 3.1, both ways with another implementation.
func TestAgreesWithGoJose(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		key := newKey(t, curve)
		payload := []byte(`{"n":1}`)
		raw, err := Sign(t.Context(), key, Header{Typ: "valise-test+jws", KID: "k"}, payload)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := jose.ParseSignedCompact(string(raw), []jose.SignatureAlgorithm{jose.ES256, jose.ES384})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := theirs.Verify(&key.PublicKey); err != nil || !bytes.Equal(got, payload) {
			t.Errorf("%v: go-jose says %q, %v", curve.Params().Name, got, err)
		}
		m, err := Parse(raw, 1<<10)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Verify(&key.PublicKey); err != nil || !bytes.Equal(m.Payload, payload) {
			t.Errorf("%q, %v", m.Payload, err)
		}
		if err := m.Verify(&newKey(t, curve).PublicKey); !errors.Is(err, ErrSignature) {
			t.Errorf("another key: %v", err)
		}
		m.input[len(m.input)-1] ^= 1
		if err := m.Verify(&key.PublicKey); !errors.Is(err, ErrSignature) {
			t.Errorf("changed payload: %v", err)
		}
	}
}

// The algorithm belongs to the key: a header that names another is refused.
func TestAlgorithmFollowsFromTheKey(t *testing.T) {
	small, large := newKey(t, elliptic.P256()), newKey(t, elliptic.P384())
	raw, err := Sign(t.Context(), small, Header{Typ: "x"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(raw, 1<<10)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(&large.PublicKey); !errors.Is(err, ErrSignature) {
		t.Errorf("P-384 key for ES256: %v", err)
	}
	if err := m.Verify(&small.PublicKey); err != nil {
		t.Error(err)
	}
	if err := m.Verify([]byte("an HMAC key")); err == nil {
		t.Error("verified with something that is no key")
	}
}

// Of the two signatures that ECDSA has for everything, one counts.
func TestUpperHalfRefused(t *testing.T) {
	key := newKey(t, elliptic.P256())
	for range 8 { // half of what a key answers needs turning
		raw, err := Sign(t.Context(), key, Header{Typ: "x"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Parse(raw, 1<<10)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Verify(&key.PublicKey); err != nil {
			t.Fatal(err)
		}
		s := new(big.Int).SetBytes(m.signature[32:])
		s.Sub(key.Curve.Params().N, s).FillBytes(m.signature[32:])
		if err := m.Verify(&key.PublicKey); !errors.Is(err, ErrSignature) {
			t.Errorf("the other signature: %v", err)
		}
	}
}

// lying signs with another key than it shows.
type lying struct {
	crypto.Signer
	other crypto.Signer
}

func (l lying) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	return l.other.Sign(r, digest, o)
}

func TestSignVerifiesTheAnswer(t *testing.T) {
	a, b := newKey(t, elliptic.P256()), newKey(t, elliptic.P256())
	if _, err := Sign(t.Context(), lying{a, b}, Header{Typ: "x"}, nil); !errors.Is(err, ErrSignature) {
		t.Errorf("got %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	signature := strings.Repeat("A", 86) // 64 bytes
	good := part(`{"alg":"ES256","typ":"x"}`) + "." + part("{}") + "." + signature
	if _, err := Parse([]byte(good), 1<<10); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	for name, raw := range map[string]string{
		"too long":         good + strings.Repeat("A", 1<<10),
		"two parts":        strings.Join(strings.Split(good, ".")[:2], "."),
		"four parts":       good + ".",
		"line break":       good[:4] + "\n" + good[4:],
		"padding":          good + "==",
		"trailing bits":    good[:len(good)-1] + "B",
		"none":             part(`{"alg":"none","typ":"x"}`) + "." + part("{}") + ".",
		"hmac":             part(`{"alg":"HS256","typ":"x"}`) + "." + part("{}") + "." + signature,
		"no typ":           part(`{"alg":"ES256","typ":""}`) + "." + part("{}") + "." + signature,
		"unknown member":   part(`{"alg":"ES256","typ":"x","jwk":{}}`) + "." + part("{}") + "." + signature,
		"critical":         part(`{"alg":"ES256","typ":"x","crit":["b64"]}`) + "." + part("{}") + "." + signature,
		"twice":            part(`{"alg":"ES256","alg":"ES256","typ":"x"}`) + "." + part("{}") + "." + signature,
		"order":            part(`{"typ":"x","alg":"ES256"}`) + "." + part("{}") + "." + signature,
		"case":             part(`{"Alg":"ES256","typ":"x"}`) + "." + part("{}") + "." + signature,
		"space":            part(`{"alg":"ES256","typ":"x"} `) + "." + part("{}") + "." + signature,
		"empty chain":      part(`{"alg":"ES256","typ":"x","x5c":[]}`) + "." + part("{}") + "." + signature,
		"kid and chain":    part(`{"alg":"ES256","typ":"x","kid":"k","x5c":["AA=="]}`) + "." + part("{}") + "." + signature,
		"long chain":       part(`{"alg":"ES256","typ":"x","x5c":["AA==","AA==","AA==","AA==","AA=="]}`) + "." + part("{}") + "." + signature,
		"signature length": part(`{"alg":"ES384","typ":"x"}`) + "." + part("{}") + "." + signature,
	} {
		if _, err := Parse([]byte(raw), 1<<10); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestDecodeIsCanonical(t *testing.T) {
	type body struct {
		Name  string  `json:"name"`
		Count uint64  `json:"count"`
		List  []int64 `json:"list,omitempty"`
	}
	if err := Decode([]byte(`{"name":"a<&\"é","count":18446744073709551615,"list":[1]}`), new(body)); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	for name, text := range map[string]string{
		"missing member": `{"name":"a"}`,
		"null":           `null`,
		"null member":    `{"name":"a","count":null}`,
		"exponent":       `{"name":"a","count":1e1}`,
		"escape":         `{"name":"\u0061","count":1}`,
		"escaped slash":  `{"name":"\/","count":1}`,
		"bad utf-8":      "{\"name\":\"\xff\",\"count\":1}",
		"more":           `{"name":"a","count":1}{}`,
		"empty":          ``,
	} {
		if err := Decode([]byte(text), new(body)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	key := newKey(f, elliptic.P256())
	raw, err := Sign(f.Context(), key, Header{Typ: "valise-test+jws", X5C: [][]byte{{1}, {2}}}, []byte(`{}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte("e30.e30."))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := Parse(raw, 1<<16)
		if err != nil {
			return
		}
		header, err := Encode(m.Header)
		if err != nil {
			t.Fatal(err)
		}
		again := encoding.EncodeToString(header) + "." + encoding.EncodeToString(m.Payload) + "." + encoding.EncodeToString(m.signature)
		if again != string(raw) {
			t.Errorf("%q comes back as %q", raw, again)
		}
	})
}
