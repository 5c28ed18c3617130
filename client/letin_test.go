// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"valise/bulletin"
	"valise/identity"
)

// While the authority's bulletin is too old for what a conversation may carry, nobody is
// let into it: the highest classification first, in the end nobody anywhere. Founding
// waits for the next bulletin; adding is refused, and what to do is said.
func TestNobodyLetInUnderOldBulletin(t *testing.T) {
	c := newCabinet(t)
	c.tighten = bulletin.Tightening{First: 3 * time.Hour, All: 10 * time.Hour}
	c.enact(1, c.folder())
	alice, bob := c.device("alice").obeys(1).reachable(), c.device("bob").obeys(1).reachable()
	carol, dan := c.device("carol").obeys(1).reachable(), c.device("dan").obeys(1).reachable()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	start := func(name string, who ...*device) ConversationID {
		t.Helper()
		var people []identity.Address
		for _, d := range who {
			people = append(people, d.address)
		}
		id, err := alice.Start(ctx, name, people)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	begun := func(id ConversationID) bool {
		conv := alice.conversation(id)
		alice.mu.Lock()
		defer alice.mu.Unlock()
		g, err := alice.group(conv.Group)
		return conv.State == stateActive && err == nil && g.Epoch() > 0
	}
	low := start("low", carol)
	high := start("high", bob)
	for _, id := range []ConversationID{low, high} {
		alice.until("has begun", func() bool { return begun(id) })
	}
	limit := func(class string) time.Duration {
		rank, ranks := alice.law.bundle.Set.Rank(c.doctrine.ID, class, time.Now())
		return c.tighten.Limit(rank, ranks)
	}
	step, next := limit("SECRET"), limit("UNMARKED")
	if step >= next || next >= c.tighten.All {
		t.Fatalf("SECRET until %v, UNMARKED until %v", step, next)
	}
	alice.hearsNothing(step)
	waits := start("waits", bob)
	mine, err := alice.Send(ctx, Draft{Conversation: waits, Text: "low words", Label: "UNMARKED"})
	if err != nil {
		t.Fatal(err)
	}
	alice.until("says that nobody is let in", func() bool { return alice.conversation(waits).Held == reasonStaleBulletin })
	if o, err := alice.Outcome(ctx, mine); err != nil || o.State != OutcomeQueued || !strings.Contains(o.Reason, "SECRET") || o.Hint == "" {
		t.Errorf("what waits to be written there: %+v, %v", o, err)
	}
	// Control: nobody there may read anything but UNMARKED.
	if err := alice.Add(ctx, low, bob.address); err != nil {
		t.Errorf("control: into a conversation with somebody of the lowest classification: %v", err)
	}
	lower := start("low too", carol)
	alice.until("control: begins one", func() bool { return begun(lower) })

	alice.hearsNothing(next - step)
	var old *Outdated
	plain := start("plain", dan)
	alice.until("control: begins one with somebody without a clearance", func() bool { return begun(plain) })
	if err := alice.Remove(ctx, low, bob.address); err != nil {
		t.Errorf("control: a removal: %v", err)
	}
	if err := alice.Add(ctx, low, bob.address); !errors.As(err, &old) || old.Marking != "UNMARKED" || !old.Adding || old.Hint() == "" {
		t.Errorf("somebody was let in under a bulletin of %v: %v", next, err)
	}
	alice.hearsNothing(c.tighten.All - next)
	if err := alice.Add(ctx, plain, carol.address); !errors.As(err, &old) || old.Reason != reasonStaleBulletin || old.Marking != "" {
		t.Errorf("somebody was let in under a bulletin of %v: %v", c.tighten.All, err)
	}

	b := alice.law.bundle.Hash
	c.announce(b)
	alice.looksAgain(0)
	if err := alice.Wait(ctx, mine); err != nil {
		t.Fatal(err)
	}
	bob.gets("low words")
	if err := alice.Add(ctx, low, bob.address); err != nil {
		t.Errorf("control: under a new bulletin: %v", err)
	}
	if got := alice.conversation(waits).Held; got != "" {
		t.Errorf("it is still said to wait: %s", got)
	}
}

// hearsNothing makes the bulletin that a device has so much older, by the clock that
// nobody sets, and has it ask for a newer one.
func (d *device) hearsNothing(silent time.Duration) {
	d.t.Helper()
	before := len(d.steps())
	d.looksAgain(silent)
	d.until("says that less is sent", func() bool { return len(d.steps()) > before })
}

// looksAgain makes a device ask for standings, that much later.
func (d *device) looksAgain(later time.Duration) {
	d.mu.Lock()
	d.began = d.began.Add(-later)
	d.standings.asked = time.Time{}
	d.mu.Unlock()
	d.bell.ring()
}

// Who was removed for their standing is not taken back under an old bulletin, although the
// message itself might go; under a new one it is.
func TestNobodyTakenBackUnderOldBulletin(t *testing.T) {
	c := newCabinet(t)
	c.tighten = bulletin.Tightening{First: 3 * time.Hour, All: 10 * time.Hour}
	state := c.enact(1, c.folder())
	alice, bob := c.device("alice").obeys(1).reachable(), c.device("bob").obeys(1).reachable()
	id := alice.with(t, bob)
	if err := alice.write(id, "one", "UNMARKED"); err != nil {
		t.Fatal(err)
	}
	bob.gets("one")
	c.announce(state.Bundle.Hash, bulletin.PersonStanding{Address: bob.address, State: bulletin.Suspended, Since: time.Now().UTC().Truncate(time.Second)})
	if err := alice.write(id, "two", "UNMARKED"); err == nil {
		t.Fatal("a message to nobody was sent")
	}
	c.announce(state.Bundle.Hash)
	bob.restart()
	bob.reachable()
	alice.looksAgain(0)
	alice.until("knows that bob is in good standing", func() bool {
		alice.mu.Lock()
		defer alice.mu.Unlock()
		return alice.standings.set.Number() == c.gateway.Standings().Number()
	})
	alice.hearsNothing(4 * time.Hour) // SECRET is refused, UNMARKED is not
	mine, err := alice.Send(context.Background(), Draft{Conversation: id, Text: "three", Label: "UNMARKED"})
	if err != nil {
		t.Fatal(err)
	}
	alice.until("says that nobody is taken back", func() bool { return alice.conversation(id).Held == reasonStaleBulletin })
	if o, err := alice.Outcome(context.Background(), mine); err != nil || o.State != OutcomeQueued || !strings.Contains(o.Reason, "nobody is let into") {
		t.Errorf("the message that waits: %+v, %v", o, err)
	}
	c.announce(state.Bundle.Hash)
	alice.looksAgain(0)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := alice.Wait(ctx, mine); err != nil {
		t.Fatal(err)
	}
	bob.gets("one", "three")
}
