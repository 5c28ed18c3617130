// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/identity"
	"valise/wire"
)

// small is a world in which a mailbox holds so many deliveries.
func small(t *testing.T, messages int) *world {
	t.Helper()
	w := newWorld(t)
	w.stop()
	w.quota = mailbox.Quota{Messages: messages}
	w.start()
	return w
}

// held are the reasons for which a device was told that something waits.
func (d *device) heldFor() (reasons []string) {
	for _, ev := range d.all() {
		if ev.Kind == EventHeld {
			reasons = append(reasons, ev.Reason)
		}
	}
	return reasons
}

// queue hands messages over and does not wait for them.
func (d *device) queue(conv ConversationID, texts ...string) (ids []MessageID) {
	d.t.Helper()
	for _, text := range texts {
		id, err := d.Send(context.Background(), Draft{Conversation: conv, Text: text})
		if err != nil {
			d.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// offers keeps the bytes that a device offers for each intent.
type offers struct {
	mu   sync.Mutex
	seen map[uint64][]string
}

func (d *device) offers() *offers {
	o := &offers{seen: map[uint64][]string{}}
	d.setCrash(func(point string) error {
		if point != "submit" || d.slot == nil || d.slot.Kind != intentContent {
			return nil
		}
		if f, err := d.slot.frame(); err == nil {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.seen[d.slot.Intent] = append(o.seen[d.slot.Intent], string(f.(*wire.Send).Message))
		}
		return nil
	})
	return o
}

// Somebody's full mailbox holds up what is written to them and nothing else, however much
// of it there is. The sender is told, once; what waited goes out by itself, in order, and
// is not sealed again for each try.
func TestFullMailboxHoldsOneConversation(t *testing.T) {
	w := small(t, 25)
	clock := &dial{now: time.Now()}
	alice, bob, carol := w.deviceWith("alice", clock.Now).reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	full, other := alice.with(t, bob), alice.with(t, carol)
	alice.says(full, "hello")
	bob.gets("hello")
	w.quiet()
	bob.kill()
	seen := alice.offers()
	var texts []string
	for i := range 25 + queueRead + 8 {
		texts = append(texts, fmt.Sprint("waits ", i))
	}
	ids := alice.queue(full, texts...)
	alice.says(other, "goes on")
	carol.gets("goes on")
	alice.until("is told", func() bool { return len(alice.heldFor()) > 0 })
	stuck := slices.IndexFunc(ids, func(id MessageID) bool {
		o, err := alice.Outcome(context.Background(), id)
		return err == nil && o.State == OutcomeQueued && strings.Contains(o.Reason, "mailbox_full") && o.Hint != ""
	})
	if stuck < 1 {
		t.Errorf("no message says why it waits: %d", stuck)
	}
	for _, ev := range alice.all() {
		if ev.Kind == EventHeld && (len(ev.Members) != 1 || ev.Members[0].Address != bob.address.String()) {
			t.Errorf("it is said to wait for %+v", ev.Members)
		}
	}
	for range 3 { // in vain
		before := len(seen.of(stuck + 1))
		clock.turn(restMost)
		alice.bell.ring()
		alice.until("tries again", func() bool { return len(seen.of(stuck+1)) > before })
		alice.says(other, "still goes on")
	}
	bob.start()
	alice.until("has sent it all", func() bool {
		clock.turn(restMost)
		alice.bell.ring()
		o, err := alice.Outcome(context.Background(), ids[len(ids)-1])
		return err == nil && o.State == OutcomeSent
	})
	bob.gets(texts...)
	if got := slices.DeleteFunc(bob.texts(), func(s string) bool { return s == "hello" }); !slices.Equal(got, texts) {
		t.Errorf("bob read %q", got)
	}
	if n := count(alice.heldFor(), "mailbox_full"); n == 0 || n > 6 {
		t.Errorf("alice was told %d times", n)
	}
	for _, c := range alice.Conversations() {
		if c.Held != "" {
			t.Errorf("%s is still said to wait: %s", c.ID, c.Held)
		}
	}
	for number, list := range seen.all() {
		if distinct := len(slices.Compact(slices.Sorted(slices.Values(list)))); distinct != 1 {
			t.Errorf("message %d was sealed %d times for %d tries", number, distinct, len(list))
		}
	}
}

// of is what was offered for the n-th content, all for all of them.
func (o *offers) of(n int) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var numbers []uint64
	for number := range o.seen {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	if n > len(numbers) || n < 1 {
		return nil
	}
	return o.seen[numbers[n-1]]
}

func (o *offers) all() map[uint64][]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := map[uint64][]string{}
	for k, v := range o.seen {
		out[k] = slices.Clone(v)
	}
	return out
}

// Who does not read any more can be taken out although a message to them waits; the others
// get it then.
func TestRemovalOvertakesWhatWaits(t *testing.T) {
	w := small(t, 6)
	clock := &dial{now: time.Now()} // stands still: nothing is tried again by itself
	alice, bob, carol := w.deviceWith("alice", clock.Now).reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	id, err := alice.Start(context.Background(), "Group", []identity.Address{bob.address, carol.address})
	if err != nil {
		t.Fatal(err)
	}
	alice.says(id, "hello")
	bob.gets("hello")
	carol.gets("hello")
	w.quiet()
	bob.kill()
	texts := []string{"1", "2", "3", "4", "5", "6", "7", "8"}
	alice.queue(id, texts...)
	alice.until("is told", func() bool { return len(alice.heldFor()) > 0 })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := alice.Remove(ctx, id, bob.address); err != nil {
		t.Fatal(err)
	}
	carol.gets(texts...)
}

// Rests double up to a bound, end when something goes through, and do not wake anybody
// once they are over.
func TestRests(t *testing.T) {
	clock := &dial{now: time.Now()}
	e := &Engine{cfg: Config{Now: clock.Now}, pauses: map[ConversationID]rest{}}
	conv := &conversation{ID: NewConversationID()}
	for i, want := range []time.Duration{5, 10, 20, 40, 80, 160, 300, 300} {
		e.pause(conv.ID, wire.MailboxFull)
		wait, ok := e.untilPauseEnds()
		if !ok || wait != want*time.Second || !e.paused(conv) {
			t.Fatalf("rest %d: %v, %v", i, wait, ok)
		}
		clock.turn(wait)
		if wait, ok := e.untilPauseEnds(); ok || e.paused(conv) {
			t.Errorf("a rest that is over: the pump wakes in %v", wait)
		}
	}
	e.pause(conv.ID, wire.MailboxFull)
	e.wake()
	if !e.paused(conv) {
		t.Error("news of the authority end a rest that a full mailbox is the reason for")
	}
	e.goesOn(conv.ID)
	if e.pause(conv.ID, wire.RemovalDue); e.pauses[conv.ID].wait != retryRefused {
		t.Errorf("after something went through it rests for %v", e.pauses[conv.ID].wait)
	}
	if e.wake(); e.paused(conv) {
		t.Error("news of the authority do not end a rest that waits for them")
	}
	clock.turn(2*restMost + time.Second)
	if e.untilPauseEnds(); len(e.pauses) > 0 {
		t.Error("an old rest is kept for ever")
	}
}

// A taking back that is refused for good is not tried for ever: the message that it was
// for fails, with the reason and what to do, and the next one is free to go.
func TestTakingBackRefused(t *testing.T) {
	w, s := ministry(t)
	s.announce()
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	id := alice.with(t, bob)
	alice.says(id, "one")
	bob.gets("one")
	s.announce(suspended(bob))
	mine := alice.queue(id, "two")[0]
	if err := alice.Wait(context.Background(), mine); err == nil {
		t.Fatal("a message to nobody was sent")
	}
	s.announce()
	bob.restart()
	bob.reachable()
	var mu sync.Mutex
	tries := 0
	alice.setCrash(func(point string) error {
		if point == "submit" && alice.slot != nil && alice.slot.For != 0 {
			mu.Lock()
			defer mu.Unlock()
			if tries++; tries <= 2 { // the operator is faster
				w.gateway.SetDenied(map[identity.DeviceID]bool{bob.Self(): true})
			}
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	mine = alice.queue(id, "three")[0]
	var hint interface{ Hint() string }
	err := alice.Wait(ctx, mine)
	if err == nil || !strings.Contains(err.Error(), "recipient_refused") || !strings.Contains(err.Error(), bob.address.String()) || !errors.As(err, &hint) || hint.Hint() == "" {
		t.Errorf("a message for which nobody may be taken back: %v", err)
	}
	mu.Lock()
	if tries != 1 {
		t.Errorf("it was tried %d times", tries)
	}
	tries = 2
	mu.Unlock()
	if !slices.ContainsFunc(alice.all(), func(ev Event) bool {
		return ev.Kind == EventFailed && ev.ID == mine && ev.Text == "three" && ev.Hint != ""
	}) {
		t.Error("no event says that it failed")
	}
	// Control: he is let in again.
	w.gateway.SetDenied(nil)
	bob.restart()
	bob.reachable()
	alice.says(id, "four")
	bob.gets("four")
	if got := bob.texts(); count(got, "three") != 0 {
		t.Errorf("bob read %q", got)
	}
}
