// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/wire"
)

// expired reads a delivery that tells its recipient what it did not fetch.
func (d *testDevice) expired() (*wire.Deliver, *wire.ExpiredMail) {
	d.t.Helper()
	m := d.next()
	e, err := wire.ParseExpiredMail(m.Payload)
	if err != nil || m.Kind != wire.DeliverExpired {
		d.t.Fatalf("%+v, %v", m, err)
	}
	return m, e
}

// Mail over age expires, a commit does not; both ends are told by deliveries, which
// are kept until they are acknowledged, and the audit stream says so. The window
// goes on over the gap in the numbers.
func TestMailExpires(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob, ga, _ := pair(t, gw)
	bob.ack(1)
	bob.settled(1)
	_ = bob.link.conn.CloseWithError(0, "")
	for range 3 {
		alice.must(alice.sealed(ga, "x"))
	}
	alice.add(ga) // an empty commit
	alice.must(alice.sealed(ga, "y"))
	if err := gw.expireBefore(t.Context(), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	gw.audit.mu.Lock()
	for _, l := range gw.audit.lines {
		if l.event == eventExpired {
			t.Errorf("young mail expired: %v", l)
		}
	}
	gw.audit.mu.Unlock()
	if err := gw.expireBefore(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	line := gw.audit.want(t, eventExpired, "over_age")
	if line.attrs["recipient"] != bob.id.String() || line.attrs["sender"] != alice.id.String() || line.attrs["messages"] != "3" ||
		line.attrs["first"] != "2" || line.attrs["last"] != "4" || line.attrs["group"] != hexOf(ga.ID()) {
		t.Errorf("%v", line.attrs)
	}
	// The sender is connected, and told at once.
	notice := alice.next()
	told, err := wire.ParseUndeliveredMail(notice.Payload)
	if err != nil || notice.Kind != wire.DeliverUndelivered || notice.Sender != bob.id || len(told.Counters) != 4 || told.Incarnation != alice.incarnation {
		t.Fatalf("%+v, %+v, %v", notice, told, err)
	}
	alice.ack(notice.Number)
	alice.settled(notice.Number)

	for range 2 { // the second time as nothing was acknowledged
		bob.connect(false, 1)
		bob.listen(1)
		if m, e := bob.expired(); m.Number != 4 || e.First != 2 || m.Sender != alice.id {
			t.Errorf("%+v, %+v", m, e)
		}
		if m := bob.next(); m.Number != 5 || m.Kind != wire.DeliverCommit {
			t.Errorf("%+v", m)
		}
		if m, e := bob.expired(); m.Number != 6 || e.First != 6 {
			t.Errorf("%+v, %+v", m, e)
		}
		bob.drained()
	}
	bob.ack(3) // within the gap
	bob.ack(6)
	bob.settled(6)
	alice.must(alice.sealed(ga, "z"))
	if m := bob.next(); m.Number != 7 || m.Kind != wire.DeliverContent {
		t.Errorf("%+v", m)
	}
	bob.ack(8) // one too many
	if code := bob.link.closed(t); code != wire.CloseProtocol {
		t.Errorf("closed with %d", code)
	}
}

// A quarantined device's submission that passed admission before is refused by the
// store, in its transaction.
func TestQuarantineRefusesWhatWasAdmitted(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob, ga, _ := pair(t, gw)
	alice.must(alice.sealed(ga, "honest control"))
	bob.next()
	if err := gw.cfg.Store.Quarantine(t.Context(), mailbox.Device(alice.id), true); err != nil {
		t.Fatal(err)
	}
	if code := alice.submit(alice.sealed(ga, "late")); code != wire.NotAllowed {
		t.Errorf("the gateway answers %v", code)
	}
	gw.audit.want(t, eventRefusedRequest, wire.NotAllowed.String())
	bob.nothing(50 * time.Millisecond)
}

// A clock that is set, ahead or back, stops expiry until it has been steady for long
// enough; one that is corrected gradually does not.
func TestSteadyClock(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		jump  time.Duration // after ten hours
		slew  time.Duration // every hour
		wants int           // rounds out of 48 in which mail may expire
	}{{"honest control", 0, 0, 48}, {"corrected gradually", 0, 2 * time.Second, 48}, {"set ahead", 365 * 24 * time.Hour, 0, 24}, {"set back", -2 * time.Hour, 0, 24}} {
		clock := steadyClock{wall: start}
		wall, elapsed, n := start, time.Duration(0), 0
		for round := range 48 {
			elapsed += time.Hour
			wall = wall.Add(time.Hour + c.slew)
			if round == 10 {
				wall = wall.Add(c.jump)
			}
			if clock.steady(wall, elapsed) {
				n++
			}
		}
		if n != c.wants {
			t.Errorf("%s: mail may expire in %d rounds, want %d", c.name, n, c.wants)
		}
	}
}
