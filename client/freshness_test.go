// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"valise/bulletin"
	"valise/identity"
	"valise/policy"
)

// steps are the ranks that a device has said it does not send.
func (d *device) steps() (out []int) {
	for _, ev := range d.all() {
		if ev.Kind == EventStandings {
			out = append(out, ev.Count)
		}
	}
	return out
}

// marked is what a message with this label bears.
func (d *device) marked(label string) mark {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	m, err := d.markOf(label, "")
	if err != nil {
		d.t.Fatal(err)
	}
	return m
}

// A gateway that shows no newer bulletin keeps a device from sending: the highest
// classification first, then lower ones, in the end everything. What waits goes out with
// the next bulletin.
func TestWithheldBulletins(t *testing.T) {
	c := newCabinet(t)
	c.tighten = bulletin.Tightening{First: 3 * time.Hour, All: 10 * time.Hour}
	clock := &dial{now: time.Now()}
	c.shelf.clock = clock.Now
	c.enact(1, c.folder())
	alice, bob := c.deviceWith("alice", clock.Now).obeys(1).reachable(), c.device("bob").obeys(1).reachable()
	id := alice.with(t, bob)
	other, err := alice.Start(context.Background(), "Other", []identity.Address{bob.address})
	if err != nil {
		t.Fatal(err)
	}
	limit := func(label string) time.Duration {
		m := alice.marked(label)
		l, err := policy.ParseLabel(m.Label)
		if err != nil {
			t.Fatal(err)
		}
		r, err := alice.law.bundle.Set.Resolve(l, policy.New, clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		return c.tighten.Limit(r.Rank())
	}
	high, low := limit("SECRET//FRA"), limit("UNMARKED")
	if high >= low {
		t.Fatalf("SECRET is refused after %v, UNMARKED after %v", high, low)
	}
	for conv, label := range map[ConversationID]string{id: "SECRET//FRA", other: "UNMARKED"} {
		if err := alice.write(conv, "fresh "+label, label); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(label string) bool {
		t.Helper()
		_, err := alice.Send(context.Background(), Draft{Conversation: id, Text: "at once", Label: label})
		var old *Outdated
		if err == nil || !errors.As(err, &old) {
			return false
		}
		if old.Reason != reasonStaleBulletin || old.Hint() == "" {
			t.Errorf("refused with %q, %q", old.Reason, old.Hint())
		}
		return true
	}

	clock.turn(high - time.Minute)
	if err := alice.write(id, "in time", "SECRET//FRA"); err != nil {
		t.Errorf("control: a minute before: %v", err)
	}
	c.stop()
	alice.until("is offline", func() bool { return alice.State().Name == StateOffline })
	waits, err := alice.Send(context.Background(), Draft{Conversation: id, Text: "waits", Label: "SECRET//FRA"})
	if err != nil {
		t.Fatal(err)
	}
	clock.turn(2 * time.Minute)
	c.start()
	alice.until("says that high ranks wait", func() bool { return len(alice.steps()) > 0 && slices.Max(alice.steps()) > 0 })
	alice.until("says that the message waits", func() bool { return count(alice.heldFor(), reasonStaleBulletin) == 1 })
	if o, err := alice.Outcome(context.Background(), waits); err != nil || o.State != OutcomeQueued || !strings.Contains(o.Reason, reasonStaleBulletin) || o.Hint == "" {
		t.Errorf("the message that waits: %+v, %v", o, err)
	}
	if !refused("SECRET//FRA") {
		t.Error("the highest classification is taken under a bulletin of three hours")
	}
	if err := alice.write(other, "control", "UNMARKED"); err != nil {
		t.Errorf("control: the lowest classification: %v", err)
	}
	// The wall clock is set back: it was running all the same.
	alice.mu.Lock()
	held := alice.standings.arrival
	alice.mu.Unlock()
	if age := held.Age(held.Set().Bulletin().Time, 5*time.Hour+alice.up()); age < 5*time.Hour {
		t.Errorf("with its clock set back the bulletin is %v old", age)
	}
	clock.turn(low - high)
	alice.bell.ring()
	alice.until("says that the lowest rank waits too", func() bool {
		steps := alice.steps()
		return len(steps) > 1 && steps[len(steps)-1] > steps[0]
	})
	if !refused("UNMARKED") {
		t.Error("the lowest classification is taken under a bulletin of ten hours")
	}
	if s, err := alice.Status(context.Background()); err != nil || s.Record.Refused < 2 {
		t.Errorf("status: %+v, %v", s.Record, err)
	}

	b := alice.law.bundle.Hash
	c.announce(b)
	clock.turn(freshPause)
	alice.bell.ring()
	if err := alice.Wait(context.Background(), waits); err != nil {
		t.Fatal(err)
	}
	bob.gets("waits", "control")
	if err := alice.write(id, "fresh again", "SECRET//FRA"); err != nil {
		t.Errorf("under a new bulletin: %v", err)
	}
	if got := alice.steps(); len(got) == 0 || got[len(got)-1] != 0 {
		t.Errorf("steps %v", got)
	}
	for _, text := range bob.texts() {
		if text == "at once" {
			t.Error("what was refused was sent")
		}
	}
}

// Where no bulletin was ever shown nothing is sent, if the authority keeps a record; a
// device of an authority without one waits for none.
func TestNoBulletinAtAll(t *testing.T) {
	w, s := ministry(t)
	w.tighten = bulletin.DefaultTightening
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	id := alice.with(t, bob)
	alice.until("says that nothing is sent", func() bool { return len(alice.steps()) == 1 })
	_, err := alice.Send(context.Background(), Draft{Conversation: id, Text: "unseen"})
	var old *Outdated
	if !errors.As(err, &old) || old.Reason != reasonNoBulletin {
		t.Errorf("a message without a bulletin: %v", err)
	}
	s.announce()
	alice.restart()
	alice.says(id, "seen")
	bob.gets("seen")

	plain := newWorld(t)
	plain.tighten = bulletin.DefaultTightening
	dora, emil := plain.device("dora").reachable(), plain.device("emil").reachable()
	dora.says(dora.with(t, emil), "no record here")
}
