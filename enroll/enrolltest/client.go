// SPDX-License-Identifier: Apache-2.0

package enrolltest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"valise/identity"
)

// A Client speaks ACME by hand, so that a test can get any single thing wrong. The
// honest path is tested with other people's clients as well.
type Client struct {
	HTTP *http.Client
	Base string // https://HOST:PORT
	Key  *ecdsa.PrivateKey
	KID  string // the account's URL, once there is one
	t    testing.TB
}

// NewClient returns a client with a fresh account key.
func NewClient(t testing.TB, hc *http.Client, base string) *Client {
	t.Helper()
	return &Client{HTTP: hc, Base: base, Key: newKey(t, elliptic.P256()), t: t}
}

// A Response answers a request. Reason and Type are those of a problem document.
type Response struct {
	Status   int
	Header   http.Header
	Body     []byte
	Location string
	Type     string `json:"type"`
	Reason   string `json:"reason"`
	Detail   string `json:"detail"`
}

// Into decodes the body.
func (r *Response) Into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(r.Body, v); err != nil {
		t.Fatalf("%v in %s", err, r.Body)
	}
}

// Nonce fetches a nonce.
func (c *Client) Nonce() string {
	c.t.Helper()
	res, err := c.HTTP.Head(c.Base + "/acme/new-nonce")
	if err != nil {
		c.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.Header.Get("Replay-Nonce")
}

// Headers are what a JWS's protected header says; empty fields get honest values.
type Headers struct {
	URL   string
	Nonce string
	KID   string
	JWK   bool // embed the key instead of the kid
	Extra map[string]any
}

// Sign returns a JWS (RFC 8555, Section 6.2).
func (c *Client) Sign(url string, payload []byte, h Headers) []byte {
	c.t.Helper()
	if h.URL == "" {
		h.URL = url
	}
	if h.Nonce == "" {
		h.Nonce = c.Nonce()
	}
	if h.KID == "" && !h.JWK {
		h.KID = c.KID
	}
	alg := jose.ES256
	if c.Key.Curve == elliptic.P384() {
		alg = jose.ES384
	}
	opts := (&jose.SignerOptions{EmbedJWK: h.JWK}).WithHeader("url", h.URL).WithHeader("nonce", h.Nonce)
	for name, value := range h.Extra {
		opts = opts.WithHeader(jose.HeaderKey(name), value)
	}
	key := jose.JSONWebKey{Key: c.Key}
	if !h.JWK {
		key.KeyID = h.KID
	}
	return flattenedJWS(c.t, jose.SigningKey{Algorithm: alg, Key: key}, opts, payload)
}

func flattenedJWS(t testing.TB, key jose.SigningKey, opts *jose.SignerOptions, payload []byte) []byte {
	t.Helper()
	signer, err := jose.NewSigner(key, opts)
	if err != nil {
		t.Fatal(err)
	}
	if payload == nil {
		payload = []byte{} // POST-as-GET has an empty payload, not none
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(jws.FullSerialize())
}

// Send posts a body as it is.
func (c *Client) Send(url string, body []byte) *Response {
	c.t.Helper()
	res, err := c.HTTP.Post(url, "application/jose+json", bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	out := &Response{Status: res.StatusCode, Header: res.Header, Location: res.Header.Get("Location")}
	if out.Body, err = io.ReadAll(res.Body); err != nil {
		c.t.Fatal(err)
	}
	if res.Header.Get("Content-Type") == "application/problem+json" {
		status := out.Status
		out.Into(c.t, out)
		out.Status = status
	}
	return out
}

// Post signs a value as JSON with the account's kid and sends it; nil is POST-as-GET.
func (c *Client) Post(url string, v any) *Response {
	c.t.Helper()
	return c.Send(url, c.Sign(url, payload(c.t, v), Headers{}))
}

func payload(t testing.TB, v any) []byte {
	t.Helper()
	if v == nil {
		return []byte{}
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Binding returns an external account binding (RFC 8555, Section 7.3.4) of a key.
func (c *Client) Binding(url, kid string, mac []byte, bound *ecdsa.PrivateKey) json.RawMessage {
	c.t.Helper()
	jwk, err := (&jose.JSONWebKey{Key: bound.Public()}).MarshalJSON()
	if err != nil {
		c.t.Fatal(err)
	}
	key := jose.SigningKey{Algorithm: jose.HS256, Key: mac}
	return flattenedJWS(c.t, key, (&jose.SignerOptions{}).WithHeader("url", url).WithHeader("kid", kid), jwk)
}

// Register makes an account with an invitation.
func (c *Client) Register(inv identity.Invitation) *Response {
	c.t.Helper()
	url := c.Base + "/acme/new-account"
	return c.RegisterWith(map[string]any{
		"termsOfServiceAgreed": true, "externalAccountBinding": c.Binding(url, inv.KID, inv.Key, c.Key),
	})
}

// RegisterWith sends any payload to new-account and keeps the kid.
func (c *Client) RegisterWith(v any) *Response {
	c.t.Helper()
	url := c.Base + "/acme/new-account"
	r := c.Send(url, c.Sign(url, payload(c.t, v), Headers{JWK: true}))
	if r.Status == http.StatusCreated || r.Status == http.StatusOK {
		c.KID = r.Location
	}
	return r
}

// An Order is an order object with its authorization's challenge.
type Order struct {
	URL            string
	Status         string   `json:"status"`
	Finalize       string   `json:"finalize"`
	Authorizations []string `json:"authorizations"`
	Certificate    string   `json:"certificate"`
	Error          *struct {
		Type   string `json:"type"`
		Reason string `json:"reason"`
	} `json:"error"`
	ChallengeURL string
	Token        string
}

// NewOrder asks for a certificate for a device.
func (c *Client) NewOrder(device string) (*Order, *Response) {
	c.t.Helper()
	r := c.Post(c.Base+"/acme/new-order", map[string]any{
		"identifiers": []any{map[string]string{"type": "permanent-identifier", "value": device}},
	})
	if r.Status != http.StatusCreated {
		return nil, r
	}
	o := &Order{URL: r.Location}
	r.Into(c.t, o)
	c.FillOrder(o)
	return o, r
}

// FillOrder fetches the authorization of an order for its challenge.
func (c *Client) FillOrder(o *Order) {
	c.t.Helper()
	var authz struct {
		Challenges []struct {
			Type, URL, Token string
		}
	}
	r := c.Post(o.Authorizations[0], nil)
	if r.Status != http.StatusOK {
		c.t.Fatalf("authorization: %d %s", r.Status, r.Body)
	}
	r.Into(c.t, &authz)
	o.ChallengeURL, o.Token = authz.Challenges[0].URL, authz.Challenges[0].Token
}

// KeyChange is the inner JWS of an honest change to another account key (RFC 8555,
// Section 7.3.5).
func (c *Client) KeyChange(url string, next *ecdsa.PrivateKey) []byte {
	c.t.Helper()
	alg := jose.ES256
	if next.Curve == elliptic.P384() {
		alg = jose.ES384
	}
	inner := payload(c.t, map[string]any{"account": c.KID, "oldKey": &jose.JSONWebKey{Key: c.Key.Public()}})
	return flattenedJWS(c.t, jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: next}},
		(&jose.SignerOptions{EmbedJWK: true}).WithHeader("url", url), inner)
}

// KeyAuthorization is RFC 8555, Section 8.1's.
func (c *Client) KeyAuthorization(o *Order) string {
	c.t.Helper()
	sum, err := (&jose.JSONWebKey{Key: c.Key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		c.t.Fatal(err)
	}
	return o.Token + "." + base64.RawURLEncoding.EncodeToString(sum)
}

// Challenge is a challenge object.
type Challenge struct {
	Status string
	Error  *struct{ Type, Reason string }
}

// Attest answers an order's challenge with an attestation object.
func (c *Client) Attest(o *Order, object []byte) (*Challenge, *Response) {
	c.t.Helper()
	r := c.Post(o.ChallengeURL, map[string]string{"attObj": base64.RawURLEncoding.EncodeToString(object)})
	if r.Status != http.StatusOK {
		return nil, r
	}
	ch := new(Challenge)
	r.Into(c.t, ch)
	return ch, r
}

// Finish sends a CSR.
func (c *Client) Finish(o *Order, csr []byte) (*Order, *Response) {
	c.t.Helper()
	r := c.Post(o.Finalize, map[string]string{"csr": base64.RawURLEncoding.EncodeToString(csr)})
	if r.Status != http.StatusOK {
		return nil, r
	}
	done := &Order{URL: o.URL}
	r.Into(c.t, done)
	return done, r
}

// Fetch downloads a chain, DER, leaf first.
func (c *Client) Fetch(o *Order) [][]byte {
	c.t.Helper()
	r := c.Post(o.Certificate, nil)
	var chain [][]byte
	for block, rest := pem.Decode(r.Body); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	return chain
}

// Enroll does the whole of it for an honest card and returns the chain.
func (c *Client) Enroll(inv identity.Invitation, card *Card) [][]byte {
	c.t.Helper()
	if c.KID == "" {
		if r := c.Register(inv); r.Status != http.StatusCreated {
			c.t.Fatalf("register: %d %s", r.Status, r.Body)
		}
	}
	o, r := c.NewOrder(card.ID(c.t).String())
	if o == nil {
		c.t.Fatalf("order: %d %s", r.Status, r.Body)
	}
	if ch, r := c.Attest(o, card.Answer(c.t, c.KeyAuthorization(o))); ch == nil || ch.Status != "valid" {
		c.t.Fatalf("attest: %d %s", r.Status, r.Body)
	}
	done, r := c.Finish(o, CSR(c.t, card.Key))
	if done == nil || done.Status != "valid" {
		c.t.Fatalf("finalize: %d %s", r.Status, r.Body)
	}
	return c.Fetch(done)
}
