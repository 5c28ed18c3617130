// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"valise/internal/store/relay"
)

// expire lets the gateway, which is stopped for it, take out all content.
func (w *world) expire() {
	w.t.Helper()
	w.stop()
	store, err := relay.Open(context.Background(), relay.Config{Path: filepath.Join(w.dir, "relay.db")})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := store.Expire(context.Background(), time.Now().Add(time.Hour), 1000); err != nil {
		w.t.Error(err)
	}
	if err := store.Close(); err != nil {
		w.t.Error(err)
	}
	w.start()
}

// shows waits for an event.
func (d *device) shows(kind string) *Event {
	d.t.Helper()
	d.until("an event "+kind, func() bool { return d.event(kind) != nil })
	return d.event(kind)
}

// Both ends are shown what a device did not fetch in time: whose and how many, and to
// whom and which. Once, however often it is told and whenever the power goes; and
// what the sender still has is there in the end.
func TestExpiredMailIsShownToBothEnds(t *testing.T) {
	for _, crash := range []bool{false, true} {
		w := newWorld(t)
		alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
		conv := alice.with(t, bob)
		alice.says(conv, "before")
		bob.gets("before")
		w.quiet()
		bob.kill()
		var ids []MessageID
		for _, text := range []string{"one", "two", "three"} {
			ids = append(ids, alice.says(conv, text))
		}
		w.expire()
		sent := alice.shows(EventUnfetched)
		if sent.Count != 3 || !slices.Equal(sent.Messages, ids) || sent.Conversation != conv || !sent.Outgoing ||
			len(sent.Members) != 1 || sent.Members[0].Address != bob.address.String() || sent.Members[0].Device != bob.self {
			t.Errorf("alice is shown %+v", sent)
		}
		if crash {
			bob.crashes("stored", 1)
			if err := <-bob.ended; err == nil {
				t.Fatal("the engine did not stop")
			}
			bob.ended <- errKilled
			bob.restart()
		} else {
			bob.start()
		}
		got := bob.shows(EventExpired)
		if got.Count != 3 || got.From != alice.address.String() || got.Device != alice.self || got.Conversation != conv {
			t.Errorf("bob is shown %+v", got)
		}
		if have := bob.texts(); count(have, "one") != 0 {
			t.Errorf("what expired was delivered: %q", have)
		}
		alice.says(conv, "after")
		bob.gets("after")
		bob.gets("one", "two", "three") // asked for, as their numbers are missing
		for _, d := range []*device{alice, bob} {
			n := 0
			for _, ev := range d.all() {
				if ev.Kind == EventExpired || ev.Kind == EventUnfetched {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%s was shown %d notices", d.address, n)
			}
		}
	}
}

// What a device has behind its cursor is not counted again when the notice grows.
func TestExpiredMailIsCountedOnce(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "before")
	bob.gets("before")
	w.quiet()
	total := func() (n int) {
		for _, ev := range bob.all() {
			if ev.Kind == EventExpired {
				n += ev.Count
			}
		}
		return n
	}
	bob.kill()
	alice.says(conv, "one")
	alice.says(conv, "two")
	w.expire()
	acknowledged := bob.crash
	bob.crash = func(point string) error {
		if point == "stored" {
			return errKilled // before the Ack: the gateway keeps the notice
		}
		return nil
	}
	bob.start()
	<-bob.ended
	bob.ended <- errKilled
	bob.kill()
	bob.crash = acknowledged
	alice.says(conv, "three")
	w.expire()
	bob.start()
	bob.until("all three notices", func() bool { return total() >= 3 })
	alice.says(conv, "end")
	bob.gets("end")
	if n := total(); n != 3 {
		t.Errorf("%d messages were counted, want 3", n)
	}
}
