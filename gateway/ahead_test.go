// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/mls"
	"valise/wire"
)

// A waiting room is a gateway with alice, who writes, and bob, who is away and has a
// backlog. Both are in two conversations.
type waitingRoom struct {
	t          *testing.T
	gw         *testGateway
	alice, bob *testDevice
	a, b       *mls.Group // alice's side of both
	first      uint64     // the first number of the backlog
	sequence   uint64
	last       uint64 // number in bob's mailbox
}

func newWaitingRoom(t *testing.T, by network) *waitingRoom {
	r := &waitingRoom{t: t, gw: startGateway(t, gatewayOptions{network: by})}
	r.alice, r.bob, r.a, _ = pair(t, r.gw)
	r.b = r.alice.found()
	r.alice.add(r.b, r.alice.take("bob")...)
	r.bob.join()
	r.bob.ack(2)
	r.bob.settled(2)
	_ = r.bob.link.conn.CloseWithError(0, "")
	r.first, r.last = 3, 2
	return r
}

// send has alice write and returns the number that it gets at bob's.
func (r *waitingRoom) send(g *mls.Group, p wire.Precedence, text string) uint64 {
	r.t.Helper()
	r.sequence++
	r.alice.must(r.alice.sealedUnder(g, text, wire.Header{Sequence: r.sequence, Precedence: p}))
	r.last++
	return r.last
}

// routine puts 30 KiB messages in front: three of them are more than one write.
func (r *waitingRoom) routine(n int) {
	for range n {
		r.send(r.a, wire.Routine, strings.Repeat("r", 30<<10))
	}
}

func (r *waitingRoom) commit(g *mls.Group) uint64 {
	r.alice.add(g)
	r.last++
	return r.last
}

// back has bob come, and returns the numbers of what arrives, a copy with a minus sign,
// until everything has come in its place.
func (r *waitingRoom) back(resume *wire.Resume) (order []int, copies map[uint64]*wire.Deliver) {
	r.t.Helper()
	r.bob.connect(false, resume.Cursor)
	r.bob.resume(resume)
	copies = make(map[uint64]*wire.Deliver)
	for next := resume.Cursor + 1; next <= r.last; {
		m := r.bob.next()
		if m.Kind == wire.DeliverAhead {
			if m.Number < next || copies[m.Number] != nil {
				r.t.Errorf("a copy of %d after %d", m.Number, next-1)
			}
			copies[m.Number] = m
			order = append(order, -int(m.Number))
			continue
		}
		if m.Number != next {
			r.t.Fatalf("delivery %d came as %d", next, m.Number)
		}
		if c := copies[m.Number]; c != nil && (m.Kind != wire.DeliverContent || !bytes.Equal(c.Payload, m.Payload) || c.Epoch != m.Epoch || c.Sender != m.Sender || c.Time != m.Time || !bytes.Equal(c.Group, m.Group)) {
			r.t.Errorf("%d comes as %+v, its copy was %+v", m.Number, m, c)
		}
		order = append(order, int(m.Number))
		next++
	}
	r.bob.drained()
	r.bob.nothing(0)
	return order, copies
}

// before are the copies that came before a number did.
func before(order []int, number uint64) (copies []int) {
	for _, n := range order {
		if n == int(number) {
			return copies
		}
		if n < 0 {
			copies = append(copies, -n)
		}
	}
	return copies
}

// What is urgent comes before the backlog and again in its place, flash first; the rest
// comes in its place alone. Nothing comes ahead to a device that does not know of it.
func TestUrgentGoesAhead(t *testing.T) { overBoth(t, testUrgentGoesAhead) }

func testUrgentGoesAhead(t *testing.T, by network) {
	r := newWaitingRoom(t, by)
	r.routine(6)
	r.send(r.b, wire.Priority, "priority")
	immediate := r.send(r.b, wire.Immediate, "immediate")
	flash := r.send(r.b, wire.Flash, "flash")
	commit := r.commit(r.b)
	later := r.send(r.b, wire.Flash, "of the next epoch")
	r.routine(6)

	for _, where := range []string{"as it was stored", "again"} {
		order, copies := r.back(&wire.Resume{Cursor: 2, Ahead: true})
		if want := []int{int(flash), int(later), int(immediate)}; !slices.Equal(before(order, 3), want) || len(copies) != 3 {
			t.Errorf("%s: %v, want copies of %v first", where, order, want)
		}
		if copies[commit] != nil || copies[later].Epoch != copies[flash].Epoch+1 {
			t.Errorf("%s: a commit, or a message without its epoch, went ahead: %v", where, copies)
		}
	}
	if order, copies := r.back(&wire.Resume{Cursor: 2}); len(copies) > 0 {
		t.Errorf("ahead to a device that does not know of it: %v", order)
	}
	// What it says to have is not sent ahead again.
	if order, copies := r.back(&wire.Resume{Cursor: 2, Ahead: true, Taken: []uint64{immediate, later}}); len(copies) != 1 || copies[flash] == nil {
		t.Errorf("the copies of %v", order)
	}
	// What comes with the next write needs none.
	if order, copies := r.back(&wire.Resume{Cursor: immediate - 1, Ahead: true}); len(copies) > 0 {
		t.Errorf("copies of what was next: %v", order)
	}
}

// What is urgent and arrives while the device has a window full of the backlog does not
// wait for its acknowledgements.
func TestUrgentPassesTheWindow(t *testing.T) { overBoth(t, testUrgentPassesTheWindow) }

func testUrgentPassesTheWindow(t *testing.T, by network) {
	r := newWaitingRoom(t, by)
	const n = wire.DeliveryWindow + 20
	for range n {
		r.send(r.a, wire.Routine, "r")
	}
	r.bob.connect(false, 2)
	r.bob.resume(&wire.Resume{Cursor: 2, Ahead: true})
	for i := range wire.DeliveryWindow {
		if m := r.bob.next(); m.Number != uint64(i)+3 {
			t.Fatalf("delivery %d: %+v", i, m)
		}
	}
	r.send(r.a, wire.Priority, "this waits")
	r.bob.nothing(100 * time.Millisecond)
	flash := r.send(r.b, wire.Flash, "this does not")
	if m := r.bob.next(); m.Number != flash || m.Kind != wire.DeliverAhead {
		t.Fatalf("%+v", m)
	}
	r.bob.ack(wire.DeliveryWindow + 2)
	for i := wire.DeliveryWindow + 3; i <= int(flash); i++ {
		if m := r.bob.next(); m.Number != uint64(i) || m.Kind != wire.DeliverContent {
			t.Fatalf("delivery %d: %+v", i, m)
		}
	}
	r.bob.nothing(0)
	// With nothing in front of it, it comes once.
	number := r.send(r.b, wire.Flash, "at once")
	if m := r.bob.next(); m.Number != number || m.Kind != wire.DeliverContent {
		t.Errorf("%+v", m)
	}
	r.bob.nothing(0)
}

// So many copies go ahead and no more, until what they are copies of is acknowledged; of
// what is below flash half as many.
func TestCopiesAreBounded(t *testing.T) {
	r := newWaitingRoom(t, "")
	r.routine(3)
	for i := range 40 {
		r.send(r.b, wire.Immediate, fmt.Sprint(i))
	}
	for i := range 40 {
		r.send(r.b, wire.Flash, fmt.Sprint(i))
	}
	r.routine(3)
	count := func(resume *wire.Resume) (n int) {
		order, _ := r.back(resume)
		return len(before(order, r.first))
	}
	if n := count(&wire.Resume{Cursor: 2, Ahead: true}); n != 40 { // and nothing of the rest
		t.Errorf("%d copies of 40 that are flash and 40 that are not, want 40", n)
	}
	for i := range 20 {
		r.send(r.b, wire.Flash, fmt.Sprint(i))
	}
	if n := count(&wire.Resume{Cursor: 2, Ahead: true}); n != wire.MaxAhead {
		t.Errorf("%d copies of 60, want %d", n, wire.MaxAhead)
	}
	r = newWaitingRoom(t, "")
	r.routine(3)
	for i := range 40 {
		r.send(r.b, wire.Immediate, fmt.Sprint(i))
	}
	r.routine(3)
	if n := count(&wire.Resume{Cursor: 2, Ahead: true}); n != wire.MaxAhead/2 {
		t.Errorf("%d copies, want %d", n, wire.MaxAhead/2)
	}
}

// What a device may not have any more does not go ahead either; somebody who still may
// gets it. Nothing goes ahead of a mailbox in quarantine, or of what expired.
func TestNothingForbiddenGoesAhead(t *testing.T) {
	a := newArchive(t)
	const n, secretly, openly = 20, 22, 23 // more than one look into the store
	for _, local := range []string{"bob", "carol"} {
		to := a.person(local)
		g := a.talks(to)
		for range n {
			a.alice.must(a.alice.sealedUnder(g, strings.Repeat("r", 30<<10), wire.Header{Sequence: 1}))
		}
		label, err := a.doctrine.Label("SECRET").Marshal()
		if err != nil {
			t.Fatal(err)
		}
		secret := wire.Header{Sequence: 1, Labelled: true, Label: label, Policy: []byte(a.doctrine.ID), PolicyHash: a.state.Bundle.Hash[:], Precedence: wire.Flash}
		a.alice.must(a.alice.sealedUnder(g, "secret", secret))
		a.alice.must(a.alice.sealedUnder(g, "open", wire.Header{Sequence: 1, Precedence: wire.Flash}))
		want := []uint64{secretly, openly}
		if local == "bob" {
			a.lowers(to, a.upTo("DIFFUSION RESTREINTE"))
			want = []uint64{openly}
		}
		to.connect(false, 1)
		to.resume(&wire.Resume{Cursor: 1, Ahead: true})
		for _, n := range want {
			if m := to.next(); m.Number != n || m.Kind != wire.DeliverAhead {
				t.Errorf("%s: %d of kind %d, want %d ahead", local, m.Number, m.Kind, n)
			}
		}
		for n := uint64(2); n <= openly; n++ {
			kind := wire.DeliverContent
			if n == secretly && local == "bob" {
				kind = wire.DeliverWithheld
			}
			if m := to.next(); m.Number != n || m.Kind != kind {
				t.Errorf("%s: %d of kind %d, want %d of kind %d", local, m.Number, m.Kind, n, kind)
			}
		}
		to.drained()
		to.nothing(0)
	}
}

func TestExpiredMailDoesNotGoAhead(t *testing.T) {
	r := newWaitingRoom(t, "")
	r.routine(3)
	r.send(r.b, wire.Flash, "old")
	if err := r.gw.expireBefore(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	r.routine(3)
	young := r.send(r.b, wire.Flash, "young")
	r.bob.connect(false, 2)
	r.bob.resume(&wire.Resume{Cursor: 2, Ahead: true})
	var got []string
	for range 7 {
		m := r.bob.next()
		got = append(got, fmt.Sprintf("%d:%d", m.Number, m.Kind))
		if m.Number == young && m.Kind == wire.DeliverContent {
			break
		}
	}
	if want := "10:9 5:4 6:4 7:1 8:1 9:1 10:1"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %v", got, want)
	}
	if err := r.gw.cfg.Store.Quarantine(t.Context(), mailbox.Device(r.bob.id), true); err != nil {
		t.Fatal(err)
	}
	entries, err := r.gw.cfg.Store.Urgent(t.Context(), mailbox.Device(r.bob.id), mailbox.Flash, 0, 10, 1<<20)
	if err != nil || len(entries) > 0 {
		t.Errorf("%d entries of a mailbox in quarantine: %v", len(entries), err)
	}
}
