// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/http"
	"strings"
	"testing"
	"time"

	"valise/enroll/enrolltest"
	"valise/internal/store/authority"
)

// expect checks a refusal: its reason in the answer and in the audit stream.
func (s *site) expect(r *enrolltest.Response, status int, kind, reason string) {
	s.t.Helper()
	if r.Status != status || r.Reason != reason || r.Type != "urn:ietf:params:acme:error:"+kind {
		s.t.Errorf("got %d %s, want %d %s %s", r.Status, r.Body, status, kind, reason)
	}
	if got := s.audit.last(s.t); got != reason {
		s.t.Errorf("the audit stream says %q, want %q", got, reason)
	}
}

func TestInvitationRefusals(t *testing.T) {
	s := newSite(t, options{})
	url := s.server.URL + "/acme/new-account"
	for name, c := range map[string]struct {
		do     func(c *enrolltest.Client) *enrolltest.Response
		status int
		kind   string
		reason string
	}{
		"used": {func(c *enrolltest.Client) *enrolltest.Response {
			inv := s.invite("alice")
			if r := s.client().Register(inv); r.Status != http.StatusCreated {
				t.Fatalf("control: %d", r.Status)
			}
			return c.Register(inv)
		}, 403, "unauthorized", "invitation_used"},
		"expired": {func(c *enrolltest.Client) *enrolltest.Response {
			inv := s.invite("alice")
			s.clock.move(24*time.Hour + time.Minute)
			return c.Register(inv)
		}, 403, "unauthorized", "invitation_expired"},
		"unknown": {func(c *enrolltest.Client) *enrolltest.Response {
			inv := s.invite("alice")
			inv.KID = "nobody"
			return c.Register(inv)
		}, 403, "unauthorized", "invitation_unknown"},
		"wrong key": {func(c *enrolltest.Client) *enrolltest.Response {
			inv := s.invite("alice")
			inv.Key[0] ^= 1
			return c.Register(inv)
		}, 403, "unauthorized", "invitation_key"},
		"none": {func(c *enrolltest.Client) *enrolltest.Response {
			return c.RegisterWith(map[string]any{})
		}, 403, "externalAccountRequired", "invitation_required"},
		"for another account key": {func(c *enrolltest.Client) *enrolltest.Response {
			inv := s.invite("alice")
			other := s.client()
			return c.RegisterWith(map[string]any{"externalAccountBinding": c.Binding(url, inv.KID, inv.Key, other.Key)})
		}, 400, "malformed", "malformed_request"},
		"for another URL": {func(c *enrolltest.Client) *enrolltest.Response {
			inv := s.invite("alice")
			return c.RegisterWith(map[string]any{"externalAccountBinding": c.Binding(url+"x", inv.KID, inv.Key, c.Key)})
		}, 400, "malformed", "malformed_request"},
		"off the roster": {func(c *enrolltest.Client) *enrolltest.Response {
			s.roster("address,name,unit,clearance\ncarol@interieur.example,Carol,,\n")
			inv := s.invite("carol")
			s.remove("carol")
			return c.Register(inv)
		}, 403, "unauthorized", "not_on_roster"},
		"only an existing one": {func(c *enrolltest.Client) *enrolltest.Response {
			return c.RegisterWith(map[string]any{"onlyReturnExisting": true})
		}, 400, "accountDoesNotExist", "unknown_account"},
	} {
		t.Run(name, func(t *testing.T) {
			s.expect(c.do(s.client()), c.status, c.kind, c.reason)
			if r := s.client().Register(s.invite("alice")); r.Status != http.StatusCreated {
				t.Errorf("control: %d %s", r.Status, r.Body)
			}
		})
	}
	t.Run("same key again", func(t *testing.T) { // RFC 8555, Section 7.3.1
		c := s.client()
		first := c.Register(s.invite("alice"))
		again := c.RegisterWith(map[string]any{"onlyReturnExisting": true})
		if again.Status != http.StatusOK || again.Location != first.Location {
			t.Errorf("%d %s", again.Status, again.Location)
		}
	})
}

func (s *site) remove(name string) {
	s.t.Helper()
	err := s.store.Update(s.t.Context(), func(tx *authority.Tx) error { return tx.RemovePerson(address(s.t, name)) })
	if err != nil {
		s.t.Fatal(err)
	}
}

// Evidence that is not accepted: the order comes to an end with the reason, and
// nothing was signed.
func TestEvidenceRefusals(t *testing.T) {
	s := newSite(t, options{})
	stranger := enrolltest.NewVendor(t)
	for name, c := range map[string]struct {
		card   func() *enrolltest.Card
		object func(c *enrolltest.Client, o *enrolltest.Order, card *enrolltest.Card) []byte
		reason string
	}{
		"unknown root": {card: func() *enrolltest.Card { return stranger.Card(t, enrolltest.CardConfig{}) }, reason: "unknown_root"},
		"old firmware": {card: func() *enrolltest.Card {
			return s.vendor.Card(t, enrolltest.CardConfig{Firmware: [3]byte{5, 4, 3}})
		}, reason: "firmware_too_old"},
		"no PIN": {card: func() *enrolltest.Card {
			return s.vendor.Card(t, enrolltest.CardConfig{PINPolicy: 1})
		}, reason: "pin_policy"},
		"policies unstated": {card: func() *enrolltest.Card {
			return s.vendor.Card(t, enrolltest.CardConfig{Leave: 8})
		}, reason: "unstated"},
		"another key": {card: s.card, object: func(c *enrolltest.Client, o *enrolltest.Order, _ *enrolltest.Card) []byte {
			return s.card().Answer(t, c.KeyAuthorization(o))
		}, reason: "key_mismatch"},
		"a software key": {card: func() *enrolltest.Card {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			return &enrolltest.Card{Key: key, Evidence: s.card().Evidence}
		}, reason: "key_mismatch"},
		"replayed answer": {card: s.card, object: func(c *enrolltest.Client, _ *enrolltest.Order, card *enrolltest.Card) []byte {
			earlier, _ := c.NewOrder(card.ID(t).String())
			return card.Answer(t, c.KeyAuthorization(earlier))
		}, reason: "challenge_mismatch"},
		"another account's answer": {card: s.card, object: func(_ *enrolltest.Client, o *enrolltest.Order, card *enrolltest.Card) []byte {
			return card.Answer(t, s.client().KeyAuthorization(o))
		}, reason: "challenge_mismatch"},
		"not CBOR": {card: s.card, object: func(*enrolltest.Client, *enrolltest.Order, *enrolltest.Card) []byte {
			return []byte("junk")
		}, reason: "malformed_evidence"},
	} {
		t.Run(name, func(t *testing.T) {
			client, card := s.registered("alice"), c.card()
			o, r := client.NewOrder(card.ID(t).String())
			if o == nil {
				t.Fatalf("%d %s", r.Status, r.Body)
			}
			object := card.Answer(t, client.KeyAuthorization(o))
			if c.object != nil {
				object = c.object(client, o, card)
			}
			ch, r := client.Attest(o, object)
			if ch == nil || ch.Status != "invalid" || ch.Error.Reason != c.reason || ch.Error.Type != "urn:ietf:params:acme:error:badAttestationStatement" {
				t.Fatalf("%d %s", r.Status, r.Body)
			}
			if got := s.audit.last(t); got != c.reason {
				t.Errorf("the audit stream says %q", got)
			}
			client.Post(o.URL, nil).Into(t, o)
			if o.Status != "invalid" || o.Error == nil || o.Error.Reason != c.reason {
				t.Errorf("order %s %+v", o.Status, o.Error)
			}
			if _, r := client.Finish(o, enrolltest.CSR(t, card.Key)); r.Reason != "order_not_ready" {
				t.Errorf("finalize: %d %s", r.Status, r.Reason)
			}
			// The control has another card under the same account.
			s.check(client.Enroll(s.invite("alice"), s.card()), "alice")
		})
	}
}

func TestChallengeIsUsedOnce(t *testing.T) {
	s := newSite(t, options{})
	card, c := s.card(), s.registered("alice")
	for name, object := range map[string]func(*enrolltest.Order) []byte{
		"after success": func(o *enrolltest.Order) []byte { return card.Answer(t, c.KeyAuthorization(o)) },
		"after failure": func(*enrolltest.Order) []byte { return []byte("junk") },
	} {
		t.Run(name, func(t *testing.T) {
			o, _ := c.NewOrder(card.ID(t).String())
			if ch, r := c.Attest(o, object(o)); ch == nil {
				t.Fatalf("first: %d %s", r.Status, r.Body)
			}
			_, r := c.Attest(o, card.Answer(t, c.KeyAuthorization(o)))
			s.expect(r, http.StatusConflict, "malformed", "challenge_reused")
		})
	}
}

func TestCSRRefusals(t *testing.T) {
	s := newSite(t, options{})
	card := s.card()
	san := func(raw ...asn1.RawValue) pkix.Extension {
		value, err := asn1.Marshal(raw)
		if err != nil {
			t.Fatal(err)
		}
		return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}
	}
	name := func(tag int, s string) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(s)}
	}
	honest := enrolltest.CSR(t, card.Key, san(name(1, "alice@interieur.example"), name(6, card.ID(t).URL().String())))
	spoiled := bytes.Clone(honest)
	spoiled[len(spoiled)-1] ^= 1
	for title, c := range map[string]struct {
		csr    []byte
		kind   string
		status int
		reason string
	}{
		"another key":       {enrolltest.CSR(t, s.card().Key), "badCSR", 400, "csr_key_mismatch"},
		"another person":    {enrolltest.CSR(t, card.Key, san(name(1, "bob@interieur.example"))), "rejectedIdentifier", 403, "wrong_identifier"},
		"another device":    {enrolltest.CSR(t, card.Key, san(name(6, s.card().ID(t).URL().String()))), "rejectedIdentifier", 403, "wrong_identifier"},
		"a DNS name":        {enrolltest.CSR(t, card.Key, san(name(2, "gateway.example"))), "rejectedIdentifier", 403, "wrong_identifier"},
		"spoiled signature": {spoiled, "badCSR", 400, "bad_csr"},
		"junk":              {[]byte("junk"), "badCSR", 400, "bad_csr"},
		"too large":         {bytes.Repeat([]byte{'x'}, 9<<10), "badCSR", 400, "bad_csr"},
	} {
		t.Run(title, func(t *testing.T) {
			client := s.registered("alice")
			o, _ := client.NewOrder(card.ID(t).String())
			if _, r := client.Finish(o, honest); r.Reason != "order_not_ready" {
				t.Errorf("before the challenge: %d %s", r.Status, r.Reason)
			}
			client.Attest(o, card.Answer(t, client.KeyAuthorization(o)))
			_, r := client.Finish(o, c.csr)
			s.expect(r, c.status, c.kind, c.reason)
			done, r := client.Finish(o, honest) // the order is still ready
			if done == nil || done.Status != "valid" {
				t.Errorf("control: %d %s", r.Status, r.Body)
			}
		})
	}
}

func TestOrderRefusals(t *testing.T) {
	s := newSite(t, options{})
	card := s.card()
	alice := s.registered("alice")
	bob := s.registered("bob")
	o, _ := alice.NewOrder(card.ID(t).String())
	for what, url := range map[string]string{"order": o.URL, "authorization": o.Authorizations[0], "challenge": o.ChallengeURL} {
		r := bob.Post(url, nil)
		s.expect(r, 404, "malformed", "not_found")
		if r := alice.Post(url, nil); r.Status != 200 {
			t.Errorf("control: %s: %d", what, r.Status)
		}
	}
	if _, r := bob.Attest(o, card.Answer(t, alice.KeyAuthorization(o))); r.Reason != "not_found" {
		t.Errorf("another account's challenge: %d %s", r.Status, r.Reason)
	}
	s.expect(bob.Post(alice.KID, nil), 403, "unauthorized", "not_yours")
	s.expect(alice.Post(strings.Replace(o.URL, "/order/", "/certificate/", 1), nil), 404, "malformed", "not_found")
	for name, id := range map[string]any{
		"dns":       []any{map[string]string{"type": "dns", "value": card.ID(t).String()}},
		"upper":     []any{map[string]string{"type": "permanent-identifier", "value": strings.ToUpper(card.ID(t).String())}},
		"none":      []any{},
		"two":       []any{map[string]string{"type": "permanent-identifier", "value": card.ID(t).String()}, map[string]string{"type": "permanent-identifier", "value": card.ID(t).String()}},
		"a serial":  []any{map[string]string{"type": "permanent-identifier", "value": "12345678"}},
		"an object": []any{map[string]any{"type": "permanent-identifier", "value": nil}},
	} {
		t.Run(name, func(*testing.T) {
			s.expect(alice.Post(s.server.URL+"/acme/new-order", map[string]any{"identifiers": id}), 403, "rejectedIdentifier", "wrong_identifier")
		})
	}
	t.Run("somebody else's card", func(t *testing.T) {
		s.check(s.registered("alice").Enroll(s.invite("alice"), card), "alice")
		_, r := bob.NewOrder(card.ID(t).String())
		s.expect(r, 403, "rejectedIdentifier", "device_taken")
		s.check(bob.Enroll(s.invite("bob"), s.card()), "bob")
	})
	t.Run("off the roster", func(t *testing.T) {
		s.remove("bob")
		_, r := bob.NewOrder(s.card().ID(t).String())
		s.expect(r, 403, "unauthorized", "not_on_roster")
	})
	t.Run("too many", func(t *testing.T) {
		c := s.registered("alice")
		var r *enrolltest.Response
		for range 9 {
			_, r = c.NewOrder(s.card().ID(t).String())
		}
		s.expect(r, 429, "rateLimited", "too_many_orders")
	})
}

// Whoever is taken off the roster while an order runs gets nothing, whatever was
// accepted before.
func TestRemovedWhileTokenWasAway(t *testing.T) {
	s := newSite(t, options{})
	card, c := s.card(), s.registered("bob")
	o, _ := c.NewOrder(card.ID(t).String())
	c.Attest(o, card.Answer(t, c.KeyAuthorization(o)))
	s.away.Store(true)
	c.Finish(o, enrolltest.CSR(t, card.Key)) // recorded, not signed
	s.remove("bob")
	s.away.Store(false)
	if err := s.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Post(o.URL, nil).Into(t, o)
	if o.Status != "invalid" || o.Error.Reason != "not_on_roster" {
		t.Errorf("order %s %+v", o.Status, o.Error)
	}
}

func TestAccountDeactivation(t *testing.T) { // RFC 8555, Section 7.3.6
	s := newSite(t, options{})
	c := s.registered("alice")
	if r := c.Post(c.KID, map[string]string{"status": "deactivated"}); r.Status != 200 || !bytes.Contains(r.Body, []byte(`"deactivated"`)) {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	_, r := c.NewOrder(s.card().ID(t).String())
	s.expect(r, 403, "unauthorized", "account_deactivated")
	s.expect(c.RegisterWith(map[string]any{"onlyReturnExisting": true}), 403, "unauthorized", "account_deactivated")
}
