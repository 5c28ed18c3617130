// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"valise/internal/store/relay"
)

// backsUp makes a backup of the running gateway's store. What it returns puts it in the
// place of the stopped gateway's.
func (w *world) backsUp() (restore func()) {
	w.t.Helper()
	var out bytes.Buffer
	path := filepath.Join(w.dir, relay.DatabaseName)
	if _, err := relay.WriteBackup(context.Background(), relay.Source{Path: path, Domain: domain, Scratch: w.t.TempDir()}, &out); err != nil {
		w.t.Fatal(err)
	}
	return func() {
		w.t.Helper()
		if err := os.Remove(path); err != nil {
			w.t.Fatal(err)
		}
		if _, _, err := relay.Restore(context.Background(), bytes.NewReader(out.Bytes()), w.dir, time.Now()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// The gateway is restored from a backup: what had been acknowledged since and not
// delivered comes once, nothing that had been delivered comes twice, who was removed since
// stays out, who came to the gateway since goes on too, and everybody can write to
// everybody.
func TestGatewayRestored(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol, mallory := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable(), w.device("mallory").reachable()
	conv := alice.with(t, bob, carol, mallory)
	alice.says(conv, "before")
	for _, d := range []*device{bob, carol, mallory} {
		d.gets("before")
	}
	w.quiet()
	carol.kill()
	alice.says(conv, "kept by the backup")
	bob.gets("before", "kept by the backup")
	restore := w.backsUp()

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := alice.Remove(ctx, conv, mallory.address); err != nil {
		t.Fatal(err)
	}
	mallory.until("is out", func() bool { return mallory.conversation(conv).State == stateLeft })
	alice.says(conv, "forgotten")
	bob.gets("before", "kept by the backup", "forgotten")
	dave := w.device("dave").reachable()
	side := alice.with(t, dave)
	alice.says(side, "only for dave")
	dave.gets("only for dave")
	heard := len(mallory.texts())
	was := alice.conversation(conv).Group
	w.stop()
	restore()
	w.start()
	carol.start()

	for _, d := range []*device{alice, bob, carol} {
		d.until("goes on in a successor", func() bool {
			c, hers := d.conversation(conv), alice.conversation(conv)
			return c.State == stateActive && !bytes.Equal(c.Group, was) && bytes.Equal(c.Group, hers.Group)
		})
	}
	carol.gets("before", "kept by the backup", "forgotten")
	bob.says(conv, "from bob")
	carol.says(conv, "from carol")
	alice.gets("from bob", "from carol")
	bob.gets("before", "kept by the backup", "forgotten", "from carol")
	carol.gets("before", "kept by the backup", "forgotten", "from bob")
	dave.says(side, "from dave")
	alice.gets("from bob", "from carol", "from dave")
	for _, d := range []*device{alice, bob, carol, mallory} {
		d.until("is told", func() bool { return d.event(EventRestored) != nil })
	}
	if ev := alice.event(EventSuccessor); ev.Reason != brokenRestored {
		t.Errorf("alice is told %q", ev.Reason)
	}
	if n := len(mallory.texts()); n != heard || mallory.conversation(conv).State != stateLeft {
		t.Errorf("who was removed since the backup is back: %d texts, %d before", n, heard)
	}
	if got := alice.texts(); slices.Contains(got, "before") {
		t.Errorf("alice gets her own: %q", got)
	}
}

// Three who came to the gateway only after its backup was made: it knows none of them, and
// their conversation goes on all the same, with what the third one had not fetched.
func TestForgottenByTheGateway(t *testing.T) {
	w := newWorld(t)
	restore := w.backsUp()
	alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	conv := alice.with(t, bob, carol)
	alice.says(conv, "before")
	bob.gets("before")
	carol.gets("before")
	bob.says(conv, "hello")
	alice.gets("hello")
	carol.gets("before", "hello")
	w.quiet()
	carol.kill()
	alice.says(conv, "forgotten")
	bob.gets("before", "forgotten")
	was := alice.conversation(conv).Group
	w.stop()
	restore()
	w.start()
	carol.start()
	carol.gets("before", "hello", "forgotten")
	goesOn(t, conv, was, alice, bob, carol)
	carol.says(conv, "from carol")
	alice.gets("hello", "from carol")
	bob.gets("before", "forgotten", "from carol")
}

// Who was away founds a successor first, with somebody in it whom the others have removed
// since the backup: they do not follow, and he comes to theirs.
func TestRivalOfWhoWasAway(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol, mallory := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable(), w.device("mallory").reachable()
	conv := alice.with(t, bob, carol, mallory)
	alice.says(conv, "before")
	for _, d := range []*device{bob, carol, mallory} {
		d.gets("before")
	}
	w.quiet()
	carol.kill()
	restore := w.backsUp()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := alice.Remove(ctx, conv, mallory.address); err != nil {
		t.Fatal(err)
	}
	alice.says(conv, "without mallory")
	bob.gets("before", "without mallory")
	mallory.until("is out", func() bool { return mallory.conversation(conv).State == stateLeft })
	was := alice.conversation(conv).Group
	alice.kill()
	bob.kill()
	w.stop()
	restore()
	w.start()
	carol.start()
	carol.until("leaves it to others", func() bool {
		c := carol.conversation(conv)
		return c.State == stateBroken && c.FoundAfter > time.Now().Unix()+60
	})
	carol.mu.Lock()
	next := carol.conversations[conv].edit()
	next.FoundAfter = 0 // the three minutes are over
	carol.foundAt[conv] = time.Now()
	err := carol.update(func(c *change) error { return c.put(next) })
	carol.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	carol.until("founds one", func() bool { return carol.conversation(conv).State == stateActive })
	rival := carol.conversation(conv).Group
	alice.start()
	bob.start()
	for _, d := range []*device{alice, bob, carol} {
		d.until("is in the one without mallory", func() bool {
			c, hers := d.conversation(conv), alice.conversation(conv)
			return c.State == stateActive && !bytes.Equal(c.Group, was) && !bytes.Equal(c.Group, rival) && bytes.Equal(c.Group, hers.Group)
		})
	}
	carol.gets("before", "without mallory")
	carol.says(conv, "from carol")
	alice.gets("from carol")
	bob.gets("before", "without mallory", "from carol")
	for _, c := range carol.Conversations() {
		if c.ID == conv && len(c.Members) != 3 {
			t.Errorf("carol sees %+v", c.Members)
		}
	}
}

// Who was removed since the backup reads nothing of what is written after a restore,
// although those who know of the removal are away, and somebody who does not has brought
// him back: what is written waits for them, and goes to their successor.
func TestRemovedReadsNothingAfterRestore(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol, mallory := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable(), w.device("mallory").reachable()
	conv := alice.with(t, bob, carol, mallory)
	alice.says(conv, "before")
	for _, d := range []*device{bob, carol, mallory} {
		d.gets("before")
	}
	w.quiet()
	restore := w.backsUp()
	side := alice.with(t, carol)
	alice.says(side, "seen by carol") // she knows something of what is forgotten, and not enough
	carol.gets("before", "seen by carol")
	carol.kill()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := alice.Remove(ctx, conv, mallory.address); err != nil {
		t.Fatal(err)
	}
	mallory.until("is out", func() bool { return mallory.conversation(conv).State == stateLeft })
	w.quiet(carol)
	was := alice.conversation(conv).Group
	alice.kill()
	bob.kill()
	w.stop()
	restore()
	w.start()
	carol.start()
	carol.until("has founded a successor", func() bool {
		c := carol.conversation(conv)
		return c.State == stateActive && !bytes.Equal(c.Group, was)
	})
	rival := carol.conversation(conv).Group
	waits := carol.queue(conv, "not for mallory")[0]
	carol.until("is told that it waits", func() bool { return count(carol.heldFor(), reasonUnheard) == 1 })
	if o, err := carol.Outcome(ctx, waits); err != nil || o.State != OutcomeQueued || o.Hint == "" {
		t.Errorf("what waits: %+v, %v", o, err)
	}
	for _, c := range carol.Conversations() {
		if c.ID == conv && !slices.Contains(c.People, mallory.address.String()) {
			t.Fatalf("mallory is not in the successor: %+v", c.Members)
		}
	}
	var mu sync.Mutex
	leaked := 0
	carol.setCrash(func(point string) error {
		if point != "submit" { // there the engine is locked
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if s := carol.slot; s != nil && s.Kind == intentContent && bytes.Equal(s.Group, rival) {
			if in, err := carol.intent(s.Intent); err != nil || in == nil || !in.Service {
				leaked++
			}
		}
		return nil
	})
	alice.start()
	bob.start()
	alice.gets("not for mallory")
	bob.gets("before", "not for mallory")
	if c := carol.conversation(conv); bytes.Equal(c.Group, rival) {
		t.Error("carol has stayed in the successor with mallory")
	}
	mu.Lock()
	defer mu.Unlock()
	if leaked > 0 {
		t.Error("what carol wrote was offered for the successor with mallory")
	}
	if got := mallory.texts(); slices.Contains(got, "not for mallory") {
		t.Errorf("mallory read %q", got)
	}
}

// Where nobody was removed and somebody does not come, a person's word lets the
// conversation go on.
func TestConfirmedAfterRestore(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	conv := alice.with(t, bob, carol)
	alice.says(conv, "before")
	bob.gets("before")
	carol.gets("before")
	restore := w.backsUp()
	alice.says(conv, "forgotten")
	bob.gets("before", "forgotten")
	carol.gets("before", "forgotten")
	w.quiet()
	was := alice.conversation(conv).Group
	carol.kill()
	if err := alice.Confirm(t.Context(), conv); err != errNothingToConfirm {
		t.Errorf("nothing to confirm: %v", err)
	}
	w.stop()
	restore()
	w.start()
	for _, d := range []*device{alice, bob} {
		d.until("goes on", func() bool {
			c := d.conversation(conv)
			return c.State == stateActive && !bytes.Equal(c.Group, was)
		})
	}
	waits := alice.queue(conv, "after")[0]
	alice.until("waits for carol alone", func() bool {
		return slices.Equal(alice.conversation(conv).Unheard, []string{carol.address.String()}) && alice.conversation(conv).Held == reasonUnheard
	})
	if err := alice.Confirm(t.Context(), conv); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := alice.Wait(ctx, waits); err != nil {
		t.Fatal(err)
	}
	bob.gets("before", "forgotten", "after")
	carol.start()
	carol.gets("before", "forgotten", "after")
	carol.says(conv, "here")
	bob.until("waits for nobody", func() bool { return len(bob.conversation(conv).Unheard) == 0 })
	bob.says(conv, "all here")
	alice.gets("here", "all here")
}

// What was asked for again goes only to those who could read it the first time: somebody
// who came in while it waited ends it.
func TestResendNotForNewcomers(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "for bob")
	bob.gets("for bob")
	var mu sync.Mutex
	sealed := 0
	alice.setCrash(func(point string) error {
		if point == "sealed" && alice.slot != nil && alice.slot.Kind == intentContent {
			mu.Lock()
			defer mu.Unlock()
			sealed++
		}
		return nil
	})
	again := func() int {
		t.Helper()
		alice.mu.Lock()
		var in *intent
		err := alice.update(func(c *change) error {
			sent, _, err := alice.sentTo(c, conv, 1)
			if err != nil || sent == nil {
				return errors.Join(err, errors.New("what was sent is not there"))
			}
			in = &intent{Kind: intentContent, Conversation: conv, Content: sent.Content, Mark: sent.Mark, Sequence: 1, Resend: true}
			return c.queue(in)
		})
		alice.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		alice.until("is done with it", func() bool {
			alice.mu.Lock()
			defer alice.mu.Unlock()
			_, waits := alice.backlog.of[in.Number]
			return !waits
		})
		mu.Lock()
		defer mu.Unlock()
		return sealed
	}
	if n := again(); n != 1 {
		t.Fatalf("control: sealed %d times for those who could read it", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := alice.Add(ctx, conv, carol.address); err != nil {
		t.Fatal(err)
	}
	if n := again(); n != 1 {
		t.Errorf("sealed %d times, the last one for somebody new", n)
	}
	alice.says(conv, "for all")
	carol.gets("for all")
	bob.gets("for bob", "for all")
	if got := carol.texts(); len(got) != 1 {
		t.Errorf("carol read %q", got)
	}
}
