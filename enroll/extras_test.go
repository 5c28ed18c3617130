// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	acmezacme "github.com/mholt/acmez/v3/acme"
	xacme "golang.org/x/crypto/acme"

	"valise/enroll/acme"
	"valise/enroll/enrolltest"
	"valise/internal/store/authority"
)

// xclient is golang.org/x/crypto/acme on a site, with an account.
func (s *site) xclient(name string) *xacme.Client {
	s.t.Helper()
	inv := s.invite(name)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	c := &xacme.Client{Key: key, HTTPClient: s.server.Client(), DirectoryURL: s.server.URL + "/acme/directory"}
	if _, err := c.Register(s.t.Context(), &xacme.Account{
		ExternalAccountBinding: &xacme.ExternalAccountBinding{KID: inv.KID, Key: inv.Key},
	}, xacme.AcceptTOS); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// An account's key changes with x/crypto/acme, to P-384 and back with acmez; the old
// key is nobody's then.
func TestKeyRollover(t *testing.T) { // RFC 8555, Section 7.3.5
	s := newSite(t, options{})
	ctx := t.Context()
	c := s.xclient("alice")
	first := c.Key
	next, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AccountKeyRollover(ctx, next); err != nil {
		t.Fatal(err)
	}
	account, err := c.GetReg(ctx, "")
	if err != nil || account.Status != xacme.StatusValid {
		t.Errorf("under the new key: %+v, %v", account, err)
	}
	stale := &xacme.Client{Key: first, HTTPClient: s.server.Client(), DirectoryURL: c.DirectoryURL, KID: c.KID}
	if _, err := stale.AuthorizeOrder(ctx, []xacme.AuthzID{{Type: "permanent-identifier", Value: s.card().ID(t).String()}}); err == nil {
		t.Error("the old key still works")
	}
	z := &acmezacme.Client{Directory: c.DirectoryURL, HTTPClient: s.server.Client()}
	third := accountKey(t)
	if _, err := z.AccountKeyRollover(ctx, acmezacme.Account{Location: string(c.KID), PrivateKey: next}, third); err != nil {
		t.Fatal(err)
	}
	c.Key = third
	if account, err := c.GetReg(ctx, ""); err != nil || account.URI != string(c.KID) {
		t.Errorf("under the third key: %+v, %v", account, err)
	}
}

// changeKey sends an honest key change and, if it was accepted, uses the new key.
func changeKey(t *testing.T, s *site, c *enrolltest.Client, next *ecdsa.PrivateKey) *enrolltest.Response {
	t.Helper()
	url := s.server.URL + "/acme/key-change"
	r := c.Send(url, c.Sign(url, c.KeyChange(url, next), enrolltest.Headers{}))
	if r.Status == http.StatusOK {
		c.Key = next
	}
	return r
}

func TestKeyRolloverRefusals(t *testing.T) {
	s := newSite(t, options{})
	alice, bob := s.registered("alice"), s.registered("bob")
	// The other's key: 409 and where its account is (RFC 8555, Section 7.3.5).
	r := changeKey(t, s, alice, bob.Key)
	s.expect(r, 409, "malformed", "account_key_taken")
	if r.Location != bob.KID {
		t.Errorf("the answer names %q, want %q", r.Location, bob.KID)
	}
	// While evidence waits that is bound to the present key.
	card := s.card()
	o, _ := alice.NewOrder(card.ID(t).String())
	if ch, r := alice.Attest(o, card.Answer(t, alice.KeyAuthorization(o))); ch == nil || ch.Status != "valid" {
		t.Fatalf("attest: %s", r.Body)
	}
	s.expect(changeKey(t, s, alice, accountKey(t)), 409, "malformed", "account_key_in_use")
	if done, r := alice.Finish(o, enrolltest.CSR(t, card.Key)); done == nil || done.Status != "valid" {
		t.Fatalf("the order did not survive: %s", r.Body)
	}
	// The control: nothing waits any more; and the next order is under the new key.
	if r := changeKey(t, s, alice, accountKey(t)); r.Status != http.StatusOK {
		t.Fatalf("control: %d %s", r.Status, r.Body)
	}
	s.check(alice.Enroll(s.invite("alice"), card), "alice")
}

// certID is RFC 9773's name of a certificate, written by hand.
func certID(t *testing.T, der []byte) (acme.CertID, *x509.Certificate) {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return acme.CertID{KeyID: cert.AuthorityKeyId, Serial: cert.SerialNumber.Bytes()}, cert
}

func (s *site) renewalInfo(id string) (w struct {
	SuggestedWindow struct{ Start, End time.Time }
}, r *http.Response,
) {
	s.t.Helper()
	r, err := s.server.Client().Get(s.server.URL + "/acme/renewal-info/" + id)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(&w); err != nil {
		s.t.Fatal(err)
	}
	return w, r
}

func TestRenewalInfo(t *testing.T) { // RFC 9773, Sections 4 and 5
	s := newSite(t, options{})
	card := s.card()
	chain := s.client().Enroll(s.invite("alice"), card)
	id, cert := certID(t, chain[0])
	life := cert.NotAfter.Sub(cert.NotBefore)
	w, r := s.renewalInfo(id.String())
	if r.StatusCode != 200 || r.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
	if from := w.SuggestedWindow.Start.Sub(cert.NotBefore); from < life*2/3-time.Second || from > life*2/3 || !w.SuggestedWindow.End.After(w.SuggestedWindow.Start) || w.SuggestedWindow.End.After(cert.NotAfter) {
		t.Errorf("window %+v of a life from %s to %s", w, cert.NotBefore, cert.NotAfter)
	}
	// acmez reads the same.
	z := &acmezacme.Client{Directory: s.server.URL + "/acme/directory", HTTPClient: s.server.Client()}
	info, err := z.GetRenewalInfo(t.Context(), cert)
	if err != nil || !info.SuggestedWindow.Start.Equal(w.SuggestedWindow.Start) || info.UniqueIdentifier != id.String() {
		t.Errorf("%+v, %v", info, err)
	}
	// A changed appraisal policy wants the device back at once.
	s.policy.MinFirmware = "5.7.1"
	w, _ = s.renewalInfo(id.String())
	if !w.SuggestedWindow.End.Before(s.clock.now()) || !w.SuggestedWindow.Start.Before(w.SuggestedWindow.End) {
		t.Errorf("after a new policy: %+v", w)
	}
	// Whatever else is asked for: a problem document.
	other := id
	other.KeyID = bytes.Repeat([]byte{1}, 20)
	for name, c := range map[string]struct {
		id     string
		status int
	}{
		"unknown serial": {acme.CertID{KeyID: id.KeyID, Serial: []byte{1}}.String(), 404},
		"unknown issuer": {other.String(), 404},
		"malformed":      {"x", 400},
		"long":           {strings.Repeat("A", 500) + ".AQ", 400},
	} {
		if _, r := s.renewalInfo(c.id); r.StatusCode != c.status || r.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %v", name, r.StatusCode, r.Header)
		}
	}
}

func (s *site) orderReplacing(c *enrolltest.Client, device, replaces string) (*enrolltest.Order, *enrolltest.Response) {
	s.t.Helper()
	r := c.Post(s.server.URL+"/acme/new-order", map[string]any{
		"identifiers": []any{map[string]string{"type": "permanent-identifier", "value": device}}, "replaces": replaces,
	})
	if r.Status != http.StatusCreated {
		return nil, r
	}
	o := &enrolltest.Order{URL: r.Location}
	r.Into(s.t, o)
	c.FillOrder(o)
	return o, r
}

func TestReplaces(t *testing.T) { // RFC 9773, Section 5
	s := newSite(t, options{})
	card, stranger := s.card(), s.card()
	c, bob := s.registered("alice"), s.registered("bob")
	id, _ := certID(t, c.Enroll(s.invite("alice"), card)[0])
	device := card.ID(t).String()
	_, r := s.orderReplacing(bob, stranger.ID(t).String(), id.String())
	s.expect(r, 403, "unauthorized", "not_yours")
	_, r = s.orderReplacing(c, stranger.ID(t).String(), id.String())
	s.expect(r, 403, "rejectedIdentifier", "wrong_identifier")
	_, r = s.orderReplacing(c, device, acme.CertID{KeyID: id.KeyID, Serial: []byte{1}}.String())
	s.expect(r, 404, "malformed", "not_found")
	_, r = s.orderReplacing(c, device, "x")
	s.expect(r, 400, "malformed", "malformed_request")
	o, r := s.orderReplacing(c, device, id.String())
	var shown struct{ Replaces string }
	if r.Into(t, &shown); o == nil || shown.Replaces != id.String() {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	// Two orders may have the same aim until one of them is finalized.
	second, r := s.orderReplacing(c, device, id.String())
	if second == nil {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	if ch, r := c.Attest(o, card.Answer(t, c.KeyAuthorization(o))); ch == nil || ch.Status != "valid" {
		t.Fatalf("attest: %s", r.Body)
	}
	done, r := c.Finish(o, enrolltest.CSR(t, card.Key))
	if r.Into(t, &shown); done == nil || done.Status != "valid" || shown.Replaces != id.String() {
		t.Fatalf("finish: %s", r.Body)
	}
	_, r = s.orderReplacing(c, device, id.String())
	s.expect(r, 409, "alreadyReplaced", "already_replaced")
	if _, r := c.NewOrder(device); r.Status != http.StatusCreated {
		t.Errorf("control: %d %s", r.Status, r.Body)
	}
}

// What is wrong with each identifier, and with each rule of an appraisal.
func TestSubproblems(t *testing.T) { // RFC 8555, Section 6.7.1
	s := newSite(t, options{})
	c := s.registered("alice")
	type document struct {
		Subproblems []struct {
			Type, Detail string
			Identifier   struct{ Type, Value string }
		}
	}
	var doc document
	card := s.vendor.Card(t, enrolltest.CardConfig{Firmware: [3]byte{5, 4, 3}, PINPolicy: 1})
	r := c.Post(s.server.URL+"/acme/new-order", map[string]any{"identifiers": []any{
		map[string]string{"type": "permanent-identifier", "value": card.ID(t).String()},
		map[string]string{"type": "dns", "value": "example.com"},
		map[string]string{"type": "permanent-identifier", "value": "12345678"},
	}})
	s.expect(r, 403, "rejectedIdentifier", "wrong_identifier")
	if r.Into(t, &doc); len(doc.Subproblems) != 2 || !strings.HasSuffix(doc.Subproblems[0].Type, ":unsupportedIdentifier") ||
		doc.Subproblems[0].Identifier.Value != "example.com" || !strings.HasSuffix(doc.Subproblems[1].Type, ":rejectedIdentifier") {
		t.Errorf("%s", r.Body)
	}
	o, _ := c.NewOrder(card.ID(t).String())
	if ch, r := c.Attest(o, card.Answer(t, c.KeyAuthorization(o))); ch == nil || ch.Status != "invalid" {
		t.Fatalf("%s", r.Body)
	}
	var shown struct{ Error document }
	r = c.Post(o.URL, nil)
	if r.Into(t, &shown); len(shown.Error.Subproblems) < 2 || shown.Error.Subproblems[0].Identifier.Value != card.ID(t).String() {
		t.Errorf("%s", r.Body)
	}
}

// Orders end when nobody goes on with them.
func TestOrderExpiry(t *testing.T) { // RFC 8555, Section 7.1.6
	s := newSite(t, options{})
	c, card := s.registered("alice"), s.card()
	idle, _ := c.NewOrder(card.ID(t).String())
	ready, _ := c.NewOrder(card.ID(t).String())
	if ch, r := c.Attest(ready, card.Answer(t, c.KeyAuthorization(ready))); ch == nil || ch.Status != "valid" {
		t.Fatalf("attest: %s", r.Body)
	}
	s.clock.move(24*time.Hour + time.Minute)
	_, r := c.Attest(idle, card.Answer(t, c.KeyAuthorization(idle)))
	s.expect(r, 409, "malformed", "challenge_expired")
	_, r = c.Finish(ready, enrolltest.CSR(t, card.Key))
	s.expect(r, 409, "malformed", "order_expired")
	if err := s.store.Purge(t.Context(), s.clock.now()); err != nil {
		t.Fatal(err)
	}
	for _, o := range []*enrolltest.Order{idle, ready} {
		var got enrolltest.Order
		c.Post(o.URL, nil).Into(t, &got)
		if got.Status != authority.Invalid || got.Error == nil || got.Error.Reason != "order_expired" {
			t.Errorf("%+v", got)
		}
	}
	if s.leaves() != 0 {
		t.Error("something was issued")
	}
}

// Too many unfinished orders: when to come back.
func TestTooManyOrdersRetryAfter(t *testing.T) { // RFC 8555, Section 6.6
	s := newSite(t, options{})
	c, device := s.registered("alice"), s.card().ID(t).String()
	for {
		o, r := c.NewOrder(device)
		if o != nil {
			continue
		}
		s.expect(r, 429, "rateLimited", "too_many_orders")
		if r.Header.Get("Retry-After") == "" {
			t.Error("the answer does not say when to come back")
		}
		return
	}
}

func TestRevokeIsForOfficers(t *testing.T) { // RFC 8555, Section 7.6
	s := newSite(t, options{})
	c := s.registered("alice")
	s.expect(c.Post(s.server.URL+"/acme/revoke-cert", map[string]any{"certificate": "AAAA", "reason": 1}), 403, "unauthorized", "revocation_by_officers")
}
