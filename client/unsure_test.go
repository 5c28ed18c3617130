// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"valise/identity"
	"valise/wire"
)

// damages spoils what the stopped gateway has of a group, so that it can do nothing in it;
// what it returns mends it.
func (w *world) damages(group []byte) (mend func()) {
	w.t.Helper()
	change := func(query string) {
		w.t.Helper()
		if n := w.sqlite(query+` WHERE grp = (SELECT id FROM groups WHERE group_id = ?)`, group); n == 0 {
			w.t.Fatal("nothing of the group is stored")
		}
	}
	change(`UPDATE group_records SET value = CAST(x'ff' || value AS BLOB)`)
	return func() { w.t.Helper(); change(`UPDATE group_records SET value = substr(value, 2)`) }
}

// What the gateway cannot do, however often it is offered, holds up its conversation and
// nothing else. Its person sees why it waits and can take it back; the next message has
// its place.
func TestUnavailableHoldsOneConversation(t *testing.T) {
	w := newWorld(t)
	clock := &dial{now: time.Now()}
	alice, bob, carol := w.deviceWith("alice", clock.Now).reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	stuck, other := alice.with(t, bob), alice.with(t, carol)
	alice.says(stuck, "one")
	bob.gets("one")
	alice.says(other, "first")
	w.quiet()
	w.stop()
	mend := w.damages(alice.conversation(stuck).Group)
	w.start()

	ids := alice.queue(stuck, "taken back", "two")
	goes := alice.queue(other, "goes on")[0]
	tick := func(what string, ok func() bool) {
		t.Helper()
		alice.until(what, func() bool { alice.skips(clock); return ok() })
	}
	tick("goes on in the other conversation", func() bool {
		o, err := alice.Outcome(context.Background(), goes)
		return err == nil && o.State == OutcomeSent
	})
	carol.gets("first", "goes on")
	tick("is told", func() bool { return count(alice.heldFor(), "unavailable") == 1 })
	o, err := alice.Outcome(context.Background(), ids[0])
	if err != nil || o.State != OutcomeQueued || !strings.Contains(o.Reason, "unavailable") || !strings.Contains(o.Hint, "valise withdraw") {
		t.Errorf("the message that waits: %+v, %v", o, err)
	}
	// While it is offered it cannot be taken back; between two tries it can.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	back := make(chan error, 1)
	go func() { back <- alice.Withdraw(ctx, ids[0]) }()
	tick("takes it back", func() bool { return len(back) > 0 })
	if err := <-back; err != nil {
		t.Fatal(err)
	}
	if o, err := alice.Outcome(ctx, ids[0]); err != nil || o.State != OutcomeRefused || o.Reason != errTakenBack.Error() {
		t.Errorf("what was taken back: %+v, %v", o, err)
	}
	if err := alice.Withdraw(ctx, ids[0]); err != errGivenUp {
		t.Errorf("taken back twice: %v", err)
	}
	if err := alice.Withdraw(ctx, goes); err != errSentAlready {
		t.Errorf("what was sent is taken back: %v", err)
	}
	w.stop()
	mend()
	w.start()
	tick("has sent the rest", func() bool {
		o, err := alice.Outcome(ctx, ids[1])
		return err == nil && o.State == OutcomeSent
	})
	bob.gets("one", "two")
	alice.says(stuck, "three")
	bob.gets("three")
	if got := bob.texts(); len(got) != 3 || bob.event(EventLost) != nil || bob.sequence(alice.Self(), stuck) != 3 {
		t.Errorf("bob read %q, up to number %d", got, bob.sequence(alice.Self(), stuck))
	}
	if c := alice.conversation(stuck); c.Held != "" {
		t.Errorf("it is still said to wait: %s", c.Held)
	}
}

// skips turns a device's clock to where it goes on, if it is online and has nothing to do.
func (d *device) skips(clock *dial) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait := d.hold.Sub(d.now())
	ready := slices.ContainsFunc(d.backlog.heads(), func(h head) bool { return !d.paused(d.conversations[h.conv]) })
	if pause, ok := d.untilPauseEnds(); wait <= 0 && ok && d.slot == nil && !ready {
		wait = pause
	}
	if d.link != nil && wait > 0 {
		clock.turn(wait)
		d.bell.ring()
	}
}

// sequence is the last number of a sender that a device has seen, if it misses none.
func (d *device) sequence(from identity.DeviceID, conv ConversationID) uint64 {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	var p *peer
	err := d.update(func(c *change) (err error) { p, err = c.peer(conv, from); return err })
	if err != nil || len(p.Missing) > 0 {
		d.t.Fatalf("%+v, %v", p, err)
	}
	return p.Last
}

// A submission that was done although the gateway said that it could not is not made a
// second time: Welcome tells, and the same bytes are acknowledged.
func TestDoneAlthoughUnavailable(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	id := alice.with(t, bob)
	alice.says(id, "one")
	var mu sync.Mutex
	looked, kept := false, false
	alice.setCrash(func(point string) error {
		s := alice.slot
		if point != "answered" || s == nil || s.Kind != intentContent {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if looked {
			return nil
		}
		looked = true
		alice.unsure = unsure{counter: s.Counter, tries: unsureTries, asked: true}
		if err := alice.sureBy(&wire.Welcome{Counter: s.Counter}); err != nil {
			return err
		}
		kept = alice.slot == s
		return nil
	})
	alice.says(id, "two")
	bob.gets("one", "two")
	mu.Lock()
	defer mu.Unlock()
	if !looked || !kept {
		t.Errorf("looked %v, kept %v", looked, kept)
	}
}

// Everything that waits in a conversation can be taken back at once, but for what is being
// offered.
func TestWithdrawAll(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	id := alice.with(t, bob)
	alice.says(id, "one")
	bob.gets("one")
	w.stop()
	alice.until("is offline", func() bool { return alice.State().Name == StateOffline })
	ids := alice.queue(id, "two", "three")
	if n, err := alice.WithdrawAll(context.Background(), id); n != 2 || err != nil {
		t.Fatalf("%d taken back, %v", n, err)
	}
	var mu sync.Mutex
	stayed := false
	alice.setCrash(func(point string) error {
		if point != "submit" || alice.slot == nil || alice.slot.Kind != intentContent {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		ended, err := alice.endIntent(alice.slot.Intent)
		stayed = !ended && err == nil
		return err
	})
	w.start()
	alice.says(id, "four")
	mu.Lock()
	defer mu.Unlock()
	if !stayed {
		t.Error("what was being offered was taken back")
	}
	bob.gets("one", "four")
	if got := bob.texts(); len(got) != 2 || bob.sequence(alice.Self(), id) != 2 {
		t.Errorf("bob read %q", got)
	}
	if o, err := alice.Outcome(context.Background(), ids[1]); err != nil || o.State != OutcomeRefused {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := alice.WithdrawAll(context.Background(), NewConversationID()); err != errNoConversation {
		t.Error(err)
	}
}

// KeyPackages that the gateway could not take are made anew, the last resort among them.
func TestUnpublishedKeyPackages(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	alice.mu.Lock()
	if err := alice.offer(1, true); err != nil {
		t.Fatal(err)
	}
	s := alice.slot
	if err := alice.postpone(s, &wire.Result{Code: wire.Unavailable}); err != nil {
		t.Fatal(err)
	}
	published, slot := alice.meta.LastResort, alice.slot
	alice.goesOn(ConversationID{})
	alice.mu.Unlock()
	if published != 0 || slot != nil {
		t.Errorf("a last resort that was not taken counts as published: %d, %v", published, slot)
	}
	alice.bell.ring()
	if err := alice.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	bob.says(bob.with(t, alice), "hello")
	alice.gets("hello")
}

// Who may not be added when a conversation begins leaves nobody in it: what was written
// into it fails, and is not sent to nobody.
func TestFoundingRefused(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	denied := false
	alice.setCrash(func(point string) error {
		if point == "submit" && alice.slot != nil && alice.slot.Kind == slotCommit && !denied {
			denied = true
			w.gateway.SetDenied(map[identity.DeviceID]bool{bob.Self(): true})
		}
		return nil
	})
	id := alice.with(t, bob)
	mine := alice.queue(id, "to nobody")[0]
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := alice.Wait(ctx, mine); err == nil || !strings.Contains(err.Error(), "recipient_refused") {
		t.Errorf("a message to nobody: %v", err)
	}
	if c := alice.conversation(id); c.State != stateFailed || c.Why == "" {
		t.Errorf("the conversation: %+v", c)
	}
	w.gateway.SetDenied(nil)
	bob.restart()
	bob.reachable()
	again := alice.with(t, bob)
	if again == id {
		t.Fatal("a conversation that could not begin is gone on with")
	}
	alice.says(again, "control")
	bob.gets("control")
}
