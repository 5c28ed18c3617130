// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"slices"
	"testing"

	"valise/client/vault"
)

// spoils changes what a stopped device's vault has of a group, by a writer that has its
// key: a fault of this software, not of the disk.
func (d *device) spoils(group []byte) {
	d.t.Helper()
	id := d.Self()
	v, err := vault.Open(context.Background(), d.path(), id, d.unlock)
	if err != nil {
		d.t.Fatal(err)
	}
	defer v.Lock()
	err = v.Update(context.Background(), func(tx *vault.Tx) error {
		cells, err := tx.List(tableGroup, group)
		if err != nil {
			return err
		}
		if len(cells) == 0 {
			return errNoGroup
		}
		for _, c := range cells {
			if err := tx.Put(tableGroup, group, c.Row, []byte("spoilt")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// A conversation whose state is of no use any more comes back by a resync: what was sent
// meanwhile arrives once, what waits goes out, and other conversations do not notice.
func TestDamagedConversation(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	conv, other := alice.with(t, bob), carol.with(t, bob)
	alice.says(conv, "one")
	carol.says(other, "uno")
	bob.gets("one", "uno")
	bob.says(conv, "back")
	alice.gets("back")
	w.quiet()
	bob.kill()
	group := bob.conversation(conv).Group
	bob.spoils(group)
	alice.says(conv, "two")
	bob.start()
	if _, err := bob.Send(context.Background(), Draft{Conversation: conv, Text: "queued"}); err != nil {
		t.Logf("while its state is damaged: %v", err)
	}
	carol.says(other, "due")
	bob.gets("one", "uno", "two", "due")
	bob.until("is back in it", func() bool {
		c := bob.conversation(conv)
		return c.State == stateActive && slices.Equal(c.Group, group)
	})
	bob.says(conv, "from bob")
	alice.gets("back", "from bob")
	alice.says(conv, "three")
	bob.gets("three")
	if bob.event(EventLost) != nil || bob.event(EventResynced) != nil {
		t.Errorf("bob is told of a loss: %+v", bob.all())
	}
	select {
	case err := <-bob.ended:
		t.Errorf("bob's engine has ended: %v", err)
		bob.ended <- err
	default:
	}
}

// Who came in and went out while a device was out of step is shown when it is back: it has
// seen no commit that says so.
func TestResyncShowsWhoIsThere(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol, dave := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable(), w.device("dave").reachable()
	conv := alice.with(t, bob, dave)
	alice.says(conv, "one")
	bob.gets("one")
	bob.says(conv, "from bob")
	alice.gets("from bob")
	w.quiet()
	bob.kill()
	bob.spoils(bob.conversation(conv).Group)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := errors.Join(alice.Add(ctx, conv, carol.address), alice.Remove(ctx, conv, dave.address)); err != nil {
		t.Fatal(err)
	}
	bob.start()
	alice.says(conv, "two")
	bob.gets("two")
	shown := map[string]string{}
	for _, ev := range bob.all() {
		if ev.Reason == ReasonResynced && len(ev.Members) == 1 && ev.From == "" {
			shown[ev.Kind] = ev.Members[0].Address
		}
	}
	if shown[EventAdded] != carol.address.String() || shown[EventRemoved] != dave.address.String() || len(shown) != 2 {
		t.Errorf("bob is shown %q", shown)
	}
}

// A vault that does not give a group's state is not taken for a damaged group.
func TestAlteredVaultIsNotMended(t *testing.T) {
	id := []byte("group")
	var damaged *damagedGroup
	for _, err := range []error{vault.ErrAltered, vault.ErrLocked, errVault} {
		if got := loadFailed(id, err); errors.As(got, &damaged) || !errors.Is(got, err) {
			t.Errorf("%v became %v", err, got)
		}
	}
	if got := loadFailed(id, errors.New("mls: malformed")); !errors.As(got, &damaged) {
		t.Errorf("control: %v", got)
	}
}

// Who answers that a message is lost says so in the end: what nobody can send again is
// asked for maxTries times, told once, and holds up nothing.
func TestLostAfterAllTries(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "one")
	bob.gets("one")
	w.quiet()
	bob.kill()
	alice.says(conv, "altered on its way")
	// Alice cannot send it again: it is forgotten there.
	alice.mu.Lock()
	err := alice.update(func(c *change) error { return c.Delete(tableSent, conv[:], vault.Numbered(2)) })
	alice.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.alter()
	w.start()
	bob.start()
	bob.until("has asked", func() bool { return bob.asked(alice, conv, 2) >= 1 })
	for try := 2; try <= maxTries; try++ {
		bob.mu.Lock()
		err := bob.update(func(c *change) error { return bob.askAgain(c, bob.conversations[conv], alice.Self(), false) })
		bob.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if n := bob.asked(alice, conv, 2); n != try || bob.event(EventLost) != nil {
			t.Fatalf("asked %d times, want %d: %+v", n, try, bob.event(EventLost))
		}
	}
	for range 2 { // told once
		bob.mu.Lock()
		err := bob.update(func(c *change) error { return bob.askAgain(c, bob.conversations[conv], alice.Self(), false) })
		bob.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	lost := 0
	for _, ev := range bob.all() {
		if ev.Kind == EventLost {
			lost++
			if ev.Sequence != 2 || ev.Device != alice.Self() || ev.Conversation != conv {
				t.Errorf("told of %+v", ev)
			}
		}
	}
	if lost != 1 || bob.asked(alice, conv, 2) != 0 {
		t.Errorf("told %d times, asked %d more", lost, bob.asked(alice, conv, 2))
	}
	alice.says(conv, "three")
	bob.gets("one", "three")
	bob.says(conv, "from bob")
	alice.gets("from bob")
	if got := bob.texts(); len(got) != 2 {
		t.Errorf("bob read %q", got)
	}
}

// asked is how often a device has asked for a sender's message, 0 if it does not any more.
func (d *device) asked(from *device, conv ConversationID, n uint64) int {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	var p *peer
	err := d.update(func(c *change) (err error) { p, err = c.peer(conv, from.Self()); return err })
	if err != nil {
		d.t.Fatal(err)
	}
	return p.Missing[n]
}
