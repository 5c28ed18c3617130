// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"strings"
	"testing"

	"valise/enroll/enrolltest"
)

// An order that waits for the token is tried every two seconds; the audit stream is
// told once, or a night without the token fills the disk.
func TestWaitingOrderIsAnnouncedOnce(t *testing.T) {
	s := newSite(t, options{})
	card, c := s.card(), s.registered("alice")
	o, _ := c.NewOrder(card.ID(t).String())
	c.Attest(o, card.Answer(t, c.KeyAuthorization(o)))
	s.away.Store(true)
	c.Finish(o, enrolltest.CSR(t, card.Key))
	for range 5 {
		if err := s.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	count := func(event string) int {
		s.audit.mu.Lock()
		defer s.audit.mu.Unlock()
		return strings.Count(s.audit.b.String(), `"event":"`+event+`"`)
	}
	if n := count("issuing"); n != 1 {
		t.Errorf("announced %d times", n)
	}
	s.away.Store(false)
	if err := s.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if count("issuing") != 1 || count("certificate issued") != 1 {
		t.Errorf("announced %d times, issued %d times", count("issuing"), count("certificate issued"))
	}
}
