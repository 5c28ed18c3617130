// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// innerJWS makes the inner JWS of RFC 8555, Section 7.3.5.
func innerJWS(t testing.TB, key *ecdsa.PrivateKey, account string, old any, extra map[string]any) []byte {
	t.Helper()
	payload, err := json.Marshal(map[string]any{"account": account, "oldKey": old})
	if err != nil {
		t.Fatal(err)
	}
	opts := &jose.SignerOptions{EmbedJWK: true}
	if _, set := extra["url"]; !set {
		opts = opts.WithHeader("url", base+pathKeyChange)
	}
	for name, value := range extra {
		opts = opts.WithHeader(jose.HeaderKey(name), value)
	}
	alg := jose.ES256
	if key.Curve == elliptic.P384() {
		alg = jose.ES384
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(jws.FullSerialize())
}

// Whatever the account's present key signs as a key change: only what the new key has
// signed for this account, this URL and this old key reaches the backend.
func TestKeyChangeRefusals(t *testing.T) { // RFC 8555, Section 7.3.5
	s, p, old := newPaper(t)
	fresh := func(c elliptic.Curve) *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	next, other := fresh(elliptic.P256()), fresh(elliptic.P256())
	account := base + pathAccount + "/1"
	jwk := func(k *ecdsa.PrivateKey) *jose.JSONWebKey { return &jose.JSONWebKey{Key: k.Public()} }
	// The control, once with each curve.
	for _, key := range []*ecdsa.PrivateKey{next, fresh(elliptic.P384())} {
		if w := post(s, pathKeyChange, signedBody(t, old, pathKeyChange, innerJWS(t, key, account, jwk(old), nil), false)); w.Code != http.StatusOK {
			t.Fatalf("control: %d %s", w.Code, w.Body)
		}
	}
	swapped := func(inner []byte) []byte {
		var m, n map[string]string
		if err := json.Unmarshal(inner, &m); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(innerJWS(t, other, account, jwk(old), nil), &n); err != nil {
			t.Fatal(err)
		}
		m["signature"] = n["signature"]
		out, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	honest := innerJWS(t, next, account, jwk(old), nil)
	for name, c := range map[string]struct {
		inner  []byte
		reason Reason
	}{
		"signed by another key": {swapped(honest), BadSignature},
		"another account":       {innerJWS(t, next, base+pathAccount+"/2", jwk(old), nil), NotYours},
		"another old key":       {innerJWS(t, next, account, jwk(other), nil), MalformedRequest},
		"no old key":            {innerJWS(t, next, account, nil, nil), MalformedRequest},
		"private old key":       {innerJWS(t, next, account, &jose.JSONWebKey{Key: old}, nil), MalformedRequest},
		"another URL":           {innerJWS(t, next, account, jwk(old), map[string]any{"url": base + pathNewOrder}), BadURL},
		"a nonce":               {innerJWS(t, next, account, jwk(old), map[string]any{"nonce": "n"}), MalformedRequest},
		"a critical header":     {innerJWS(t, next, account, jwk(old), map[string]any{"b64": true}), MalformedRequest},
		"no JWS":                {[]byte(`{"account":"x"}`), MalformedRequest},
		"nothing":               {[]byte{}, MalformedRequest},
		"a name twice":          {[]byte(strings.Replace(string(honest), `{`, `{"payload":"e30",`, 1)), MalformedRequest},
	} {
		t.Run(name, func(t *testing.T) {
			before := p.asked
			w := post(s, pathKeyChange, signedBody(t, old, pathKeyChange, c.inner, false))
			var doc problem
			if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || doc.Reason != c.reason || p.asked != before {
				t.Errorf("%d %s, %v, asked %d times", w.Code, w.Body, err, p.asked-before)
			}
		})
	}
}

func FuzzInner(f *testing.F) {
	_, _, old := newPaper(f)
	next, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(innerJWS(f, next, base+pathAccount+"/1", &jose.JSONWebKey{Key: old.Public()}, nil))
	f.Add([]byte(`{"protected":"eyJhbGciOiJFUzI1NiJ9","payload":"e30","signature":""}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseInner(raw)
		if err != nil {
			if asRefusal(err) == nil {
				t.Errorf("not a refusal: %v", err)
			}
			return
		}
		if m.jwk == nil || m.url == "" && !strings.Contains(string(raw), "protected") {
			t.Error("accepted without key or url")
		}
	})
}

// RFC 9773, Section 4.1's own example, and what differs from it in one thing.
func TestCertID(t *testing.T) {
	const example = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
	id, err := ParseCertID(example)
	if err != nil || id.String() != example || len(id.KeyID) != 20 || len(id.Serial) != 5 {
		t.Errorf("%+v, %v", id, err)
	}
	for name, bad := range map[string]string{
		"no dot": "aYhba4dGQEHhs3uEe6CuLN4ByNQ", "no serial": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.", "no key": ".AIdlQyE",
		"padding": example + "=", "negative": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.h2VDIQ", "too long an integer": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AABlQyE",
		"third part": example + ".AA", "loose bits": "aYhba4dGQEHhs3uEe6CuLN4ByNR.AIdlQyE", "zero": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AA",
		"long": strings.Repeat("AAAA", 100) + ".AIdlQyE",
	} {
		if id, err := ParseCertID(bad); err == nil {
			t.Errorf("%s was accepted: %+v", name, id)
		}
	}
}

func FuzzCertID(f *testing.F) {
	f.Add("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseCertID(s); err == nil && id.String() != s {
			t.Errorf("%q is read as %q", s, id)
		}
	})
}
