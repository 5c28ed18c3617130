// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// signatures are the algorithms of account keys; bindings that of invitations. No
// other is ever verified, whatever a header says.
var (
	signatures = []jose.SignatureAlgorithm{jose.ES256, jose.ES384}
	bindings   = []jose.SignatureAlgorithm{jose.HS256}
)

// A message is a request's JWS (RFC 8555, Section 6.2), read but not verified.
type message struct {
	jws   *jose.JSONWebSignature
	alg   string
	nonce string
	url   string
	kid   string           // the account's URL, or
	jwk   *jose.JSONWebKey // the account's key: never both
}

// flattened is the only serialization that RFC 8555, Section 6.2 allows: one
// signature, no unprotected header.
type flattened struct{ protected, payload, signature *string }

// compact is the same message in compact serialization, which has no JSON around it to
// be read a second time.
func (f *flattened) compact() string { return *f.protected + "." + *f.payload + "." + *f.signature }

// parseFlattened takes exactly one object with exactly these members.
func parseFlattened(body []byte) (*flattened, error) {
	f := new(flattened)
	parts := map[string]**string{"protected": &f.protected, "payload": &f.payload, "signature": &f.signature}
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errNotFlattened
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, errNotFlattened
		}
		text, known := name.(string)
		part := parts[text]
		if !known || part == nil || *part != nil {
			return nil, errNotFlattened
		}
		value, err := d.Token()
		if err != nil {
			return nil, errNotFlattened
		}
		if s, ok := value.(string); ok {
			*part = &s
		} else {
			return nil, errNotFlattened
		}
	}
	if _, err := d.Token(); err != nil { // the end of the object
		return nil, errNotFlattened
	}
	if _, err := d.Token(); err != io.EOF || f.protected == nil || f.payload == nil || f.signature == nil {
		return nil, errNotFlattened
	}
	return f, nil
}

var errNotFlattened = Refuse(MalformedRequest, "the body is not a JWS in flattened JSON serialization")

// header is what we read of a protected header before its signature is verified.
// Unknown parameters are allowed, critical ones are not.
type header struct {
	Alg   string          `json:"alg"`
	KID   *string         `json:"kid"`
	JWK   json.RawMessage `json:"jwk"`
	Nonce *string         `json:"nonce"`
	URL   *string         `json:"url"`
	Crit  json.RawMessage `json:"crit"`
	B64   json.RawMessage `json:"b64"`
}

func parseMessage(body []byte) (*message, error) {
	h, f, err := parseHeader(body)
	if err != nil {
		return nil, err
	}
	if h.Alg != string(jose.ES256) && h.Alg != string(jose.ES384) {
		return nil, Refuse(BadAlgorithm, "account keys sign with ES256 or ES384")
	}
	jws, err := jose.ParseSignedCompact(f.compact(), signatures)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, Refuse(MalformedRequest, "the JWS is malformed")
	}
	if h.Nonce == nil || h.URL == nil {
		return nil, Refuse(MalformedRequest, "the JWS needs a nonce and a url in its protected header")
	}
	if (h.KID == nil) == (len(h.JWK) == 0) {
		return nil, Refuse(MalformedRequest, "the JWS needs either a kid or a jwk in its protected header, and not both")
	}
	m := &message{jws: jws, alg: h.Alg, nonce: *h.Nonce, url: *h.URL}
	if h.KID != nil {
		m.kid = *h.KID
		return m, nil
	}
	m.jwk = jws.Signatures[0].Protected.JSONWebKey
	return m, checkAccountKey(m.jwk, m.alg)
}

func parseHeader(body []byte) (*header, *flattened, error) {
	f, err := parseFlattened(body)
	if err != nil {
		return nil, nil, err
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(*f.protected)
	if err != nil {
		return nil, nil, Refuse(MalformedRequest, "the JWS's protected header is not base64url")
	}
	var h header
	if err := errors.Join(exactNames(raw, headerNames), json.Unmarshal(raw, &h)); err != nil {
		return nil, nil, Refuse(MalformedRequest, "the JWS's protected header is not a JSON object of the right types")
	}
	if len(h.Crit) != 0 || len(h.B64) != 0 {
		return nil, nil, Refuse(MalformedRequest, "the JWS has a critical header parameter, which is not supported")
	}
	return &h, f, nil
}

// checkAccountKey binds the algorithm to its curve (RFC 7518, Section 3.4).
func checkAccountKey(jwk *jose.JSONWebKey, alg string) error {
	want := elliptic.P256()
	if alg == string(jose.ES384) {
		want = elliptic.P384()
	}
	if jwk == nil || !jwk.Valid() || !jwk.IsPublic() {
		return Refuse(BadAccountKey, "the account key is not a valid public key")
	}
	key, ok := jwk.Key.(*ecdsa.PublicKey)
	if !ok || key.Curve != want {
		return Refuse(BadAccountKey, "the account key must be on P-256 for ES256, on P-384 for ES384")
	}
	return nil
}

// verify returns the payload if the key signed the message.
func (m *message) verify(key *jose.JSONWebKey) ([]byte, error) {
	if err := checkAccountKey(key, m.alg); err != nil {
		return nil, err
	}
	payload, err := m.jws.Verify(key.Key)
	if err != nil {
		return nil, Refuse(BadSignature, "the JWS's signature is wrong")
	}
	return payload, nil
}

// thumbprint is RFC 7638's, in base64url.
func thumbprint(key *jose.JSONWebKey) (string, error) {
	sum, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// A Binding is an external account binding (RFC 8555, Section 7.3.4): an
// invitation's key signs the account's key.
type Binding struct {
	KID string
	jws *jose.JSONWebSignature
}

// Verify reports whether the invitation's key made the binding.
func (b *Binding) Verify(key []byte) error {
	if len(key) < 16 {
		return errors.New("acme: the invitation's key is shorter than 128 bits")
	}
	_, err := b.jws.Verify(key)
	return err
}

// parseBinding checks everything about a binding but its MAC: it is for this URL
// and this account key.
func parseBinding(raw []byte, url string, account *jose.JSONWebKey) (*Binding, error) {
	h, f, err := parseHeader(raw)
	if err != nil {
		return nil, err
	}
	if h.Alg != string(jose.HS256) {
		return nil, Refuse(BadAlgorithm, "an invitation signs with HS256")
	}
	if h.KID == nil || *h.KID == "" || len(*h.KID) > maxKID || len(h.JWK) != 0 || h.Nonce != nil || h.URL == nil || *h.URL != url {
		return nil, Refuse(MalformedRequest, "the external account binding needs a kid and the url of this request, and no nonce")
	}
	jws, err := jose.ParseSignedCompact(f.compact(), bindings)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, Refuse(MalformedRequest, "the external account binding is malformed")
	}
	var bound jose.JSONWebKey
	if err := bound.UnmarshalJSON(jws.UnsafePayloadWithoutVerification()); err != nil || !bound.Valid() || !bound.IsPublic() {
		return nil, Refuse(MalformedRequest, "the external account binding does not hold a public key")
	}
	a, errA := thumbprint(&bound)
	b, errB := thumbprint(account)
	if errA != nil || errB != nil || a != b {
		return nil, Refuse(MalformedRequest, "the external account binding is for another account key")
	}
	return &Binding{KID: *h.KID, jws: jws}, nil
}

// headerNames are the members that we read of a protected header.
var headerNames = []string{"alg", "kid", "jwk", "nonce", "url", "crit", "b64"}

// exactNames refuses an object that has a name twice, or one of the known names in
// other letters (RFC 7515, Section 4: unique, and compared exactly). encoding/json
// takes "Protected" for "protected" and the last of two; the JOSE library does not,
// and what is read must be what is signed.
func exactNames(data []byte, known []string) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	seen := make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok || seen[name] {
			return errors.New("a malformed name, or one that stands twice")
		}
		seen[name] = true
		for _, k := range known {
			if name != k && strings.EqualFold(name, k) {
				return errors.New("a name in other letters")
			}
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
	}
	return nil
}
