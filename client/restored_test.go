// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
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
