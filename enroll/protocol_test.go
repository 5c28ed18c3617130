// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"valise/enroll/enrolltest"
	"valise/internal/store/authority"
)

func hexOf(b [32]byte) string { return hex.EncodeToString(b[:]) }

func TestDirectoryAndNonces(t *testing.T) { // RFC 8555, Sections 7.1.1 and 7.2
	s := newSite(t, options{})
	res, err := s.server.Client().Get(s.server.URL + "/acme/directory")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var dir struct {
		NewNonce, NewAccount, NewOrder string
		Meta                           struct{ ExternalAccountRequired bool }
	}
	if err := json.NewDecoder(res.Body).Decode(&dir); err != nil || !dir.Meta.ExternalAccountRequired {
		t.Errorf("%+v, %v", dir, err)
	}
	for method, want := range map[string]int{http.MethodHead: 200, http.MethodGet: 204} {
		req, err := http.NewRequestWithContext(t.Context(), method, dir.NewNonce, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want || res.Header.Get("Replay-Nonce") == "" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", method, res.StatusCode, res.Header)
		}
	}
}

func TestNonceRefusals(t *testing.T) { // RFC 8555, Section 6.5
	s := newSite(t, options{})
	c := s.registered("alice")
	other := newSite(t, options{})
	used := c.Nonce()
	if r := c.Send(c.KID, c.Sign(c.KID, nil, enrolltest.Headers{Nonce: used})); r.Status != 200 {
		t.Fatalf("control: %d %s", r.Status, r.Body)
	}
	fresh := c.Nonce()
	old := c.Nonce()
	s.clock.move(2 * time.Hour)
	late := func() string { n := old; return n }()
	for name, nonce := range map[string]string{
		"used": used, "another authority's": other.client().Nonce(), "changed": "A" + fresh[1:] + "A", "junk": "x", "expired": late,
	} {
		t.Run(name, func(*testing.T) {
			r := c.Send(c.KID, c.Sign(c.KID, nil, enrolltest.Headers{Nonce: nonce}))
			s.expect(r, 400, "badNonce", "bad_nonce")
			if next := r.Header.Get("Replay-Nonce"); next == "" {
				t.Error("the answer brings no nonce for another try")
			}
		})
	}
}

// One request sent twice, byte for byte.
func TestReplayedRequest(t *testing.T) {
	s := newSite(t, options{})
	c := s.registered("alice")
	url := s.server.URL + "/acme/new-order"
	body := c.Sign(url, []byte(`{"identifiers":[{"type":"permanent-identifier","value":"`+s.card().ID(t).String()+`"}]}`), enrolltest.Headers{})
	if r := c.Send(url, body); r.Status != http.StatusCreated {
		t.Fatalf("control: %d %s", r.Status, r.Body)
	}
	s.expect(c.Send(url, body), 400, "badNonce", "bad_nonce")
}

// A nonce is good for one request, also if that was refused before anything changed: at
// each place where it is used with the change that the request asks for.
func TestNonceOfARefusedRequest(t *testing.T) {
	s := newSite(t, options{})
	c := s.registered("alice")
	card := s.card()
	order, r := c.NewOrder(card.ID(t).String())
	if order == nil {
		t.Fatalf("control: %s", r.Body)
	}
	for name, x := range map[string]struct {
		url, refused, kind, reason string
		status                     int
	}{
		"order":     {s.server.URL + "/acme/new-order", `{"identifiers":[]}`, "rejectedIdentifier", "wrong_identifier", 403},
		"challenge": {order.ChallengeURL, `{"attObj":"!"}`, "malformed", "malformed_request", 400},
		"finalize":  {order.Finalize, `{"csr":"AA"}`, "orderNotReady", "order_not_ready", 403},
	} {
		t.Run(name, func(t *testing.T) {
			nonce := c.Nonce()
			body := c.Sign(x.url, []byte(x.refused), enrolltest.Headers{Nonce: nonce})
			s.expect(c.Send(x.url, body), x.status, x.kind, x.reason)
			s.expect(c.Send(x.url, body), 400, "badNonce", "bad_nonce")
			s.expect(c.Send(c.KID, c.Sign(c.KID, nil, enrolltest.Headers{Nonce: nonce})), 400, "badNonce", "bad_nonce")
		})
	}
}

// Whoever signs with a key that the account had before, or for an account that is
// closed, makes no order, also where the front remembers the account as it was.
func TestOrderOfAnAccountAsItWas(t *testing.T) {
	s := newSite(t, options{})
	c := s.registered("alice")
	url, device := s.server.URL+"/acme/new-order", s.card().ID(t).String()
	ask := func() *enrolltest.Response {
		return c.Post(url, map[string]any{"identifiers": []map[string]string{{"type": "permanent-identifier", "value": device}}})
	}
	if r := ask(); r.Status != http.StatusCreated {
		t.Fatalf("control: %d %s", r.Status, r.Body)
	}
	id, err := strconv.ParseInt(path.Base(c.KID), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	other := s.registered("bob")
	jwk := jose.JSONWebKey{Key: accountKey(t).Public()}
	raw, err := jwk.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	err = s.store.Update(t.Context(), func(tx *authority.Tx) error { // as another process would
		a, err := tx.Account(id)
		if err != nil {
			return err
		}
		return tx.ChangeAccountKey(id, a.Thumbprint, base64.RawURLEncoding.EncodeToString(sum), raw)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.expect(ask(), 400, "malformed", "bad_signature")

	c, url = other, s.server.URL+"/acme/new-order"
	device = s.card().ID(t).String()
	if r := ask(); r.Status != http.StatusCreated {
		t.Fatalf("control: %d %s", r.Status, r.Body)
	}
	if id, err = strconv.ParseInt(path.Base(c.KID), 10, 64); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Update(t.Context(), func(tx *authority.Tx) error { return tx.DeactivateAccount(id) }); err != nil {
		t.Fatal(err)
	}
	s.expect(ask(), 403, "unauthorized", "account_deactivated")
}

func TestJWSRefusals(t *testing.T) { // RFC 8555, Sections 6.2 and 6.4
	s := newSite(t, options{})
	c, other := s.registered("alice"), s.registered("bob")
	url := c.KID
	honest := func() []byte { return c.Sign(url, nil, enrolltest.Headers{}) }
	edit := func(change func(map[string]any)) []byte {
		var m map[string]any
		if err := json.Unmarshal(honest(), &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	protected := func(h map[string]any) []byte {
		return edit(func(m map[string]any) {
			b, err := json.Marshal(h)
			if err != nil {
				t.Fatal(err)
			}
			m["protected"] = base64.RawURLEncoding.EncodeToString(b)
		})
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signedBy := func(alg jose.SignatureAlgorithm, key any) []byte {
		opts := (&jose.SignerOptions{}).WithHeader("url", url).WithHeader("nonce", c.Nonce()).WithHeader("kid", c.KID)
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
		if err != nil {
			t.Fatal(err)
		}
		jws, err := signer.Sign([]byte{})
		if err != nil {
			t.Fatal(err)
		}
		return []byte(jws.FullSerialize())
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]struct {
		body   []byte
		status int
		kind   string
		reason string
	}{
		"another URL":       {c.Sign(url, nil, enrolltest.Headers{URL: url + "/orders"}), 401, "unauthorized", "bad_url"},
		"another host":      {c.Sign(url, nil, enrolltest.Headers{URL: strings.Replace(url, "127.0.0.1", "localhost", 1)}), 401, "unauthorized", "bad_url"},
		"another's kid":     {c.Sign(url, nil, enrolltest.Headers{KID: other.KID}), 400, "malformed", "bad_signature"},
		"unknown kid":       {c.Sign(url, nil, enrolltest.Headers{KID: s.server.URL + "/acme/account/999"}), 400, "accountDoesNotExist", "unknown_account"},
		"foreign kid":       {c.Sign(url, nil, enrolltest.Headers{KID: "https://elsewhere.example/acme/account/1"}), 400, "accountDoesNotExist", "unknown_account"},
		"padded kid":        {c.Sign(url, nil, enrolltest.Headers{KID: s.server.URL + "/acme/account/01"}), 400, "accountDoesNotExist", "unknown_account"},
		"jwk not kid":       {c.Sign(url, nil, enrolltest.Headers{JWK: true}), 400, "malformed", "malformed_request"},
		"both":              {c.Sign(url, nil, enrolltest.Headers{JWK: true, Extra: map[string]any{"kid": c.KID}}), 400, "malformed", "malformed_request"},
		"neither":           {protected(map[string]any{"alg": "ES256", "nonce": c.Nonce(), "url": url}), 400, "malformed", "malformed_request"},
		"no nonce":          {protected(map[string]any{"alg": "ES256", "kid": c.KID, "url": url}), 400, "malformed", "malformed_request"},
		"critical":          {protected(map[string]any{"alg": "ES256", "kid": c.KID, "url": url, "nonce": c.Nonce(), "crit": []string{"b64"}, "b64": false}), 400, "malformed", "malformed_request"},
		"alg none":          {protected(map[string]any{"alg": "none", "kid": c.KID, "url": url, "nonce": c.Nonce()}), 400, "badSignatureAlgorithm", "bad_signature_algorithm"},
		"RSA":               {signedBy(jose.RS256, rsaKey), 400, "badSignatureAlgorithm", "bad_signature_algorithm"},
		"MAC":               {signedBy(jose.HS256, bytes.Repeat([]byte{1}, 32)), 400, "badSignatureAlgorithm", "bad_signature_algorithm"},
		"another key":       {signedBy(jose.ES256, other.Key), 400, "malformed", "bad_signature"},
		"another curve":     {signedBy(jose.ES384, p384), 400, "badPublicKey", "bad_account_key"},
		"header outside":    {edit(func(m map[string]any) { m["header"] = map[string]string{"x": "y"} }), 400, "malformed", "malformed_request"},
		"many signatures":   {edit(func(m map[string]any) { m["signatures"] = []any{} }), 400, "malformed", "malformed_request"},
		"payload changed":   {edit(func(m map[string]any) { m["payload"] = "e30" }), 400, "malformed", "bad_signature"},
		"signature changed": {edit(func(m map[string]any) { m["signature"] = strings.Repeat("A", 86) }), 400, "malformed", "bad_signature"},
		"compact":           {[]byte("a.b.c"), 400, "malformed", "malformed_request"},
		"empty":             {nil, 400, "malformed", "malformed_request"},
		"two objects":       {append(honest(), honest()...), 400, "malformed", "malformed_request"},
		"too large":         {bytes.Repeat([]byte{' '}, 65<<10), 400, "malformed", "malformed_request"},
	} {
		t.Run(name, func(t *testing.T) {
			s.expect(c.Send(url, r.body), r.status, r.kind, r.reason)
			if r := c.Send(url, honest()); r.Status != 200 {
				t.Errorf("control: %d %s", r.Status, r.Body)
			}
		})
	}
	t.Run("content type", func(t *testing.T) {
		res, err := s.server.Client().Post(url, "application/json", bytes.NewReader(honest()))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != 400 || s.audit.last(t) != "malformed_request" {
			t.Errorf("%d %s", res.StatusCode, s.audit.last(t))
		}
	})
	t.Run("query", func(*testing.T) {
		s.expect(c.Send(url+"?x=1", c.Sign(url+"?x=1", nil, enrolltest.Headers{})), 401, "unauthorized", "bad_url")
	})
	t.Run("GET", func(t *testing.T) {
		res, err := s.server.Client().Get(url)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusMethodNotAllowed && res.StatusCode != http.StatusNotFound {
			t.Errorf("%d", res.StatusCode)
		}
	})
}

// An account key on P-384 signs with ES384.
func TestAccountKeyP384(t *testing.T) {
	s := newSite(t, options{})
	c := s.client()
	var err error
	if c.Key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	s.check(c.Enroll(s.invite("alice"), s.card()), "alice")
}

func TestRateLimit(t *testing.T) {
	s := newSite(t, options{perSecond: 0.001, burst: 3})
	var last *http.Response
	for range 4 {
		res, err := s.server.Client().Head(s.server.URL + "/acme/new-nonce")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if last != nil && last.StatusCode != 200 {
			t.Errorf("refused before the burst was over: %d", last.StatusCode)
		}
		last = res
	}
	if last.StatusCode != http.StatusTooManyRequests || last.Header.Get("Retry-After") == "" || s.audit.last(t) != "rate_limited" {
		t.Errorf("%d %s", last.StatusCode, s.audit.last(t))
	}
}

// The list of an account's orders (RFC 8555, Section 7.1.2.1).
func TestOrderList(t *testing.T) {
	s := newSite(t, options{})
	c := s.registered("alice")
	o, _ := c.NewOrder(s.card().ID(t).String())
	var list struct{ Orders []string }
	c.Post(c.KID+"/orders", nil).Into(t, &list)
	if len(list.Orders) != 1 || list.Orders[0] != o.URL {
		t.Errorf("%v", list.Orders)
	}
	s.expect(c.Post(c.KID+"/orders", map[string]int{}), 400, "malformed", "malformed_request")
}
