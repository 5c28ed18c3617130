// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/internal/testenv"
)

// The whole way of a device, its renewal and a token that is away, on PostgreSQL.
func TestEnrollOnPostgreSQL(t *testing.T) {
	s := newSite(t, options{database: testenv.Postgres(t).DSN})
	card, c := s.card(), s.client()
	first := s.check(c.Enroll(s.invite("alice"), card), "alice")
	if r := s.client().Register(identity.Invitation{URL: s.server.URL, KID: "unknown", Key: make([]byte, 32)}); r.Reason != "invitation_unknown" {
		t.Errorf("an unknown invitation: %d %s", r.Status, r.Reason)
	}
	s.clock.move(5 * 24 * time.Hour)
	s.away.Store(true)
	o, _ := c.NewOrder(card.ID(t).String())
	c.Attest(o, card.Answer(t, c.KeyAuthorization(o)))
	done, r := c.Finish(o, enrolltest.CSR(t, card.Key))
	if done == nil || done.Status != "processing" {
		t.Fatalf("without a token: %d %s", r.Status, r.Body)
	}
	s.away.Store(false)
	if err := s.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Post(o.URL, nil).Into(t, o)
	if o.Status != "valid" {
		t.Fatalf("order %s", o.Status)
	}
	if second := s.check(c.Fetch(o), "alice"); first.ID != second.ID || first.Leaf.SerialNumber.Cmp(second.Leaf.SerialNumber) == 0 {
		t.Errorf("renewed %v into %v", first.Leaf.SerialNumber, second.Leaf.SerialNumber)
	}
	if s.leaves() != 2 {
		t.Errorf("%d leaves", s.leaves())
	}
}

// Many at once, on PostgreSQL: what one invitation, nonce, challenge or order may do
// once, it does once, and nobody is sent away for another's transaction.
func TestConcurrencyOnPostgreSQL(t *testing.T) {
	s := newSite(t, options{database: testenv.Postgres(t).DSN})
	inv := s.invite("bob")
	var mu sync.Mutex
	accounts := 0
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { // one invitation, four keys
			r := s.client().Register(inv)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case r.Status == http.StatusCreated:
				accounts++
			case r.Reason != "invitation_used":
				t.Errorf("%d %s", r.Status, r.Body)
			}
		})
	}
	for range 6 {
		invitation, card := s.invite("alice"), s.card()
		wg.Go(func() { s.client().Enroll(invitation, card) })
	}
	wg.Wait()
	if accounts != 1 {
		t.Errorf("one invitation made %d accounts", accounts)
	}
	card, c := s.card(), s.registered("alice")
	o, _ := c.NewOrder(card.ID(t).String())
	c.Attest(o, card.Answer(t, c.KeyAuthorization(o)))
	csr := enrolltest.CSR(t, card.Key)
	for range 4 {
		wg.Go(func() {
			if done, r := c.Finish(o, csr); done == nil {
				t.Errorf("%d %s", r.Status, r.Body)
			}
		})
	}
	wg.Wait()
	c.Post(o.URL, nil).Into(t, o)
	if o.Status != "valid" || s.leaves() != 7 {
		t.Errorf("order %s, %d leaves", o.Status, s.leaves())
	}
}
