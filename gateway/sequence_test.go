// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"crypto/rand"
	"errors"
	"os"
	"testing"
	"time"

	"valise/wire"
)

// again sends the same bytes once more, under another request id.
func (d *testDevice) again(s wire.Submission, counter uint64) wire.Code {
	d.t.Helper()
	s.SetSubmissionCounter(counter)
	return d.code(s)
}

// spec/wire.md, Section 5: the same bytes are acknowledged again and done once,
// other bytes conflict, a gap is refused, and a refusal uses no counter up.
func TestExactlyOnce(t *testing.T) { overBoth(t, testExactlyOnce) }

func testExactlyOnce(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, bob, ga, gb := pair(t, gw)

	first := alice.sealed(ga, "first")
	alice.must(first)
	counter := alice.counter
	for range 3 {
		if code := alice.again(first, counter); code != wire.OK {
			t.Fatalf("the same bytes again: %v", code)
		}
	}
	other := alice.sealed(ga, "other")
	if code := alice.again(other, counter); code != wire.StateConflict {
		t.Errorf("other bytes under a used counter: %v", code)
	}
	gw.audit.want(t, eventRefusedRequest, "state_conflict")
	if code := alice.again(other, counter+2); code != wire.CounterGap {
		t.Errorf("a counter left out: %v", code)
	}
	foreign := alice.sealed(ga, "x")
	foreign.Group = []byte("no such group")
	if code := alice.submit(foreign); code == wire.OK {
		t.Error("a message for no group was taken")
	}
	alice.must(other) // counter+1 is still free

	if a, b := bob.read(gb), bob.read(gb); a != "first" || b != "other" {
		t.Errorf("bob read %q, %q", a, b)
	}
	bob.nothing(100 * time.Millisecond)
}

// Repeating works for every kind of submission, over connections and restarts,
// and long after the group has moved on.
func TestRepetitionOutlivesEverything(t *testing.T) {
	authority := newAuthority(t, "interieur.example")
	dir := t.TempDir()
	gw := startGateway(t, gatewayOptions{dir: dir, authority: authority})
	alice, bob := newDevice(t, gw, "alice"), newDevice(t, gw, "bob").ready()
	alice.connect(true, 0)
	kp, _ := alice.keyPackage(false)
	var done []wire.Submission
	must := func(s wire.Submission) {
		t.Helper()
		alice.must(s)
		done = append(done, s)
	}
	must(&wire.PutKeyPackages{Packages: [][]byte{kp.Message()}})
	g, create := alice.founding()
	must(create)
	p, commit := alice.commitOf(g, addProposals(alice.take("bob"))...)
	must(commit)
	if err := g.Apply(p.Staged); err != nil {
		t.Fatal(err)
	}
	must(alice.sealed(g, "hello"))
	p, commit = alice.commitOf(g)
	must(commit)
	if err := g.Apply(p.Staged); err != nil {
		t.Fatal(err)
	}

	check := func() {
		t.Helper()
		for i, s := range done {
			if code := alice.again(s, uint64(i+1)); code != wire.OK {
				t.Errorf("%T repeated: %v", s, code)
			}
		}
	}
	check()
	alice.connect(false, 0)
	check()
	gw.stop()
	gw = startGateway(t, gatewayOptions{dir: dir, authority: authority})
	alice.gw, bob.gw = gw, gw
	w := alice.connect(false, 0)
	if w.Counter != uint64(len(done)) || w.Incarnation != alice.incarnation || w.KeyPackages != 1 {
		t.Errorf("welcome after a restart: %+v", w)
	}
	check()

	bob.connect(false, 0)
	bob.listen(0)
	gb := bob.join()
	if text := bob.read(gb); text != "hello" {
		t.Errorf("bob read %q", text)
	}
	if text := bob.read(gb); text != "commit" {
		t.Errorf("bob read %q", text)
	}
	bob.nothing(100 * time.Millisecond)
}

// Many messages in flight: each has its answer, in order, and arrives once.
func TestPipelining(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob, ga, gb := pair(t, gw)
	const n = 300
	var answers []chan wire.Answer
	for i := range n {
		s := alice.sealed(ga, string(rune('a'+i%26)))
		s.SetSubmissionCounter(alice.counter + 1 + uint64(i))
		answers = append(answers, alice.link.start(s))
		if i%50 == 0 { // some twice while the first is under way
			answers = append(answers, alice.link.start(s))
		}
	}
	for i, c := range answers {
		if a, ok := <-c; !ok || a.(*wire.Result).Code != wire.OK {
			t.Fatalf("answer %d: %v", i, a)
		}
	}
	alice.counter += n
	for i := range n {
		if got := bob.read(gb); got != string(rune('a'+i%26)) {
			t.Fatalf("message %d is %q", i, got)
		}
	}
	bob.nothing(100 * time.Millisecond)
}

// A new incarnation starts at counter 0; the one before it is out for ever, and
// so is its claim to the mail.
func TestIncarnations(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob, ga, _ := pair(t, gw)
	old := alice.incarnation
	oldCounter := alice.counter

	_, _ = rand.Read(alice.incarnation[:])
	alice.counter = 0
	if w := alice.connect(true, 0); w.Incarnation != alice.incarnation || w.Counter != 0 {
		t.Fatalf("welcome: %+v", w)
	}
	gw.audit.want(t, eventBegan, "")
	// Beginning the same one again changes nothing: the answer may have been lost.
	alice.must(alice.sealed(ga, "from the new one"))
	if w := alice.connect(true, 0); w.Incarnation != alice.incarnation || w.Counter != 1 {
		t.Fatalf("welcome after beginning twice: %+v", w)
	}
	now := alice.incarnation

	for _, begin := range []bool{false, true} {
		alice.incarnation, alice.counter = old, oldCounter
		w := alice.connect(begin, 0)
		if w.Incarnation != now {
			t.Fatalf("an old incarnation came back (begin %v)", begin)
		}
		if code := alice.submit(alice.sealed(ga, "from a copy")); code != wire.OldIncarnation {
			t.Errorf("submission of an old incarnation: %v", code)
		}
		gw.audit.want(t, eventRefusedRequest, "old_incarnation")
		stream, err := alice.link.open(wire.StreamDelivery, &wire.Resume{})
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.SetReadDeadline(time.Now().Add(patience))
		if frame, err := wire.Read(stream); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the delivery stream of an old incarnation: %T, %v", frame, err)
		}
	}
	alice.incarnation, alice.counter = now, 1
	alice.connect(false, 0)
	alice.must(alice.sealed(ga, "still me"))
	_ = bob
}

// An older state shows itself in Hello, and the audit stream says so.
func TestOlderStateIsSeen(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, _, ga, _ := pair(t, gw)
	alice.must(alice.sealed(ga, "x"))
	w := alice.connect(false, 0) // the control: up to date
	if gw.audit.count(eventBehind, "older_state") != 0 || w.Behind(&wire.Hello{Incarnation: alice.incarnation, Counter: alice.counter}) {
		t.Fatal("an up-to-date device is called old")
	}
	alice.counter--
	alice.connect(false, 0)
	gw.audit.want(t, eventBehind, "older_state")
}

// One connection a device: the newer replaces the older.
func TestReplacement(t *testing.T) { overBoth(t, testReplacement) }

func testReplacement(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, _, ga, _ := pair(t, gw)
	first := alice.link
	alice.connect(false, 0)
	if code := first.closed(t); code != wire.CloseReplaced {
		t.Errorf("the older connection was closed with %d", code)
	}
	alice.must(alice.sealed(ga, "x"))
	// A crowd of connections of one device: the last one works.
	for range 5 {
		alice.connect(false, 0)
	}
	alice.must(alice.sealed(ga, "y"))
}
