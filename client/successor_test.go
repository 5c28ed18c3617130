// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"valise/mls"
	"valise/wire"
)

// losesGroups makes the stopped gateway forget every group, and the mail of it.
func (w *world) losesGroups() {
	w.t.Helper()
	for _, table := range []string{"mailbox", "messages", "blobs", "group_records", "groups"} {
		w.sqlite("DELETE FROM " + table)
	}
	w.sqlite("UPDATE states SET held = 0, bytes = 0, last = acked")
}

func (d *device) conversation(id ConversationID) conversation {
	d.mu.Lock()
	defer d.mu.Unlock()
	if conv := d.conversations[id]; conv != nil {
		return *conv
	}
	return conversation{}
}

// goesOn waits until all are in the same group again, another one than before.
func goesOn(t *testing.T, id ConversationID, before []byte, all ...*device) {
	t.Helper()
	for _, d := range all {
		d.until("goes on in a successor", func() bool {
			c, first := d.conversation(id), all[0].conversation(id)
			return c.State == stateActive && !bytes.Equal(c.Group, before) && bytes.Equal(c.Group, first.Group)
		})
		if ev := d.event(EventSuccessor); ev == nil || ev.Conversation != id || ev.From == "" || len(ev.Members) != len(all) {
			t.Fatalf("%s is not told: %+v", d.address, ev)
		}
	}
}

// The gateway loses a group of two, with a message that it had acknowledged and not
// delivered, while another one is queued: the conversation goes on in a successor, and
// both arrive once.
func TestSuccessorOfTwo(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "before")
	bob.gets("before")
	bob.says(conv, "hello")
	alice.gets("hello")
	w.quiet()
	bob.kill()
	acknowledged := alice.says(conv, "acknowledged and lost")
	was := alice.conversation(conv).Group
	w.stop()
	queued, err := alice.Send(context.Background(), Draft{Conversation: conv, Text: "queued"})
	if err != nil {
		t.Fatal(err)
	}
	w.losesGroups()
	w.start()
	bob.start()
	bob.gets("before", "queued", "acknowledged and lost")
	goesOn(t, conv, was, alice, bob)
	bob.says(conv, "here too")
	alice.gets("hello", "here too")
	for _, ev := range bob.all() {
		if ev.Text == "queued" && ev.ID != queued || ev.Text == "acknowledged and lost" && ev.ID != acknowledged {
			t.Errorf("%q has another id than it was sent with", ev.Text)
		}
	}
	if n := len(bob.Conversations()); n != 1 {
		t.Errorf("bob has %d conversations", n)
	}
	if ev := alice.event(EventSuccessor); ev.Reason != brokenUnknown {
		t.Errorf("alice is told %q", ev.Reason)
	}
}

// five makes a conversation of five people in which all have spoken.
func five(t *testing.T, w *world) ([]*device, ConversationID) {
	t.Helper()
	var all []*device
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		all = append(all, w.device(name).reachable())
	}
	conv := all[0].with(t, all[1:]...)
	for i, d := range all {
		d.until("has the conversation", func() bool { return d.conversation(conv).State == stateActive })
		d.says(conv, fmt.Sprint("hello from ", i))
	}
	for i, d := range all {
		for j := range all {
			if i != j {
				d.gets(fmt.Sprint("hello from ", j))
			}
		}
	}
	w.quiet()
	return all, conv
}

// The same with five, of whom one is offline and others write at the same time.
func TestSuccessorOfFive(t *testing.T) {
	w := newWorld(t)
	all, conv := five(t, w)
	was := all[0].conversation(conv).Group
	all[4].kill()
	all[1].says(conv, "acknowledged and lost for e")
	for _, d := range all[:4] {
		if d != all[1] {
			d.gets("acknowledged and lost for e")
		}
	}
	w.quiet(all[4]) // or the gateway would go back behind what they have acknowledged
	w.stop()
	for i, d := range all[:4] {
		if _, err := d.Send(context.Background(), Draft{Conversation: conv, Text: fmt.Sprint("queued by ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	w.losesGroups()
	w.start()
	all[4].start()
	goesOn(t, conv, was, all...)
	for i, d := range all {
		for j := range all[:4] {
			if i != j {
				d.gets(fmt.Sprint("queued by ", j))
			}
		}
	}
	all[4].gets("acknowledged and lost for e")
	for _, d := range all[:4] {
		if d != all[1] {
			d.gets("acknowledged and lost for e") // still once
		}
	}
	all[4].says(conv, "end")
	for _, d := range all[:4] {
		d.gets("end")
	}
}

// Everybody founds a successor at the same moment: all end in the one with the
// smallest id, and nothing is lost or doubled.
func TestConcurrentFounders(t *testing.T) {
	w := newWorld(t)
	all, conv := five(t, w)
	was := all[0].conversation(conv).Group
	w.stop()
	w.losesGroups()
	for i, d := range all {
		d.mu.Lock()
		err := d.update(func(c *change) error { return d.brick(c, d.conversations[conv], brokenUnknown) })
		d.foundAt[conv] = time.Now()
		d.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Send(context.Background(), Draft{Conversation: conv, Text: fmt.Sprint("queued by ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	for i, d := range all {
		for j := range all {
			if i != j {
				d.gets(fmt.Sprint("queued by ", j))
			}
		}
	}
	goesOn(t, conv, was, all...)
	w.quiet()
	goesOn(t, conv, was, all...)
	abandoned := map[string]bool{}
	for _, d := range all {
		c := d.conversation(conv)
		for _, f := range c.Former {
			if !bytes.Equal(f, was) {
				abandoned[string(f)] = true
				if bytes.Compare(f, c.Group) < 0 && bytes.Equal(c.Predecessor, was) {
					t.Logf("%s: a smaller one was abandoned before it had members", d.address)
				}
			}
		}
	}
	t.Logf("%d other groups were founded and abandoned", len(abandoned))
	all[2].says(conv, "end")
	for _, d := range all {
		if d != all[2] {
			d.gets("end")
		}
	}
}

// The gateway goes back to an earlier epoch, in which carol was still a member: nobody
// follows it there; the conversation goes on without her.
func TestSuccessorAfterRollback(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	conv := alice.with(t, bob, carol)
	alice.says(conv, "before")
	bob.gets("before")
	carol.gets("before")
	w.quiet()
	w.backup()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := alice.Remove(ctx, conv, carol.address); err != nil {
		t.Fatal(err)
	}
	alice.says(conv, "without carol")
	bob.gets("without carol")
	w.quiet()
	was := alice.conversation(conv).Group
	w.stop()
	w.rollBack()
	w.start()
	alice.says(conv, "after")
	bob.gets("before", "without carol", "after")
	goesOn(t, conv, was, alice, bob)
	if slices.Contains(carol.texts(), "after") || len(bob.Conversations()[0].Members) != 2 {
		t.Fatal("carol is back")
	}
}

// backup keeps what the gateway has of its groups, and rollBack brings it back.
func (w *world) backup() {
	w.t.Helper()
	w.stop()
	defer w.start()
	w.sqlite("CREATE TABLE saved_groups AS SELECT * FROM groups")
	w.sqlite("CREATE TABLE saved_records AS SELECT * FROM group_records")
}

func (w *world) rollBack() {
	w.sqlite("DELETE FROM group_records")
	w.sqlite("UPDATE groups SET epoch = (SELECT epoch FROM saved_groups s WHERE s.id = groups.id), info = (SELECT info FROM saved_groups s WHERE s.id = groups.id)")
	w.sqlite("INSERT INTO group_records SELECT * FROM saved_records")
}

// What the gateway offers for a resync is not valid, so that no resync is possible:
// the conversation goes on in a successor.
func TestSuccessorWhereNoResyncIsPossible(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "before")
	bob.gets("before")
	w.quiet()
	was := alice.conversation(conv).Group
	w.stop()
	if n := w.sqlite("UPDATE groups SET info = CAST(substr(info, 1, length(info) - 1) || x'00' AS BLOB)"); n != 1 {
		t.Fatalf("%d groups were damaged", n)
	}
	w.start()
	alice.mu.Lock()
	err := alice.lose(alice.conversations[conv], "the test says so")
	alice.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	alice.says(conv, "after")
	bob.gets("before", "after")
	goesOn(t, conv, was, alice, bob)
}

// Alice's state is forked: what she sends opens for nobody else. Everybody is brought
// together again, and what she wrote arrives.
func TestForkedView(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "before")
	bob.gets("before")
	bob.says(conv, "bob was here")
	alice.gets("bob was here")
	w.quiet()
	forkOff(t, alice, bob, conv)
	w.quiet()
	for i := range 3 {
		alice.says(conv, fmt.Sprint("forked ", i))
	}
	bob.gets("before", "forked 0", "forked 1", "forked 2")
	bob.says(conv, "together")
	alice.gets("bob was here", "together")
	if !w.reported(reasonAltered) {
		t.Error("the fork was not reported")
	}
}

// The same with five: the one who is forked notices by two others' messages and comes
// back; for the others it is one member, and they stay where they are.
func TestForkedViewOfFive(t *testing.T) {
	w := newWorld(t)
	all, conv := five(t, w)
	was := all[0].conversation(conv).Group
	forkOff(t, all[0], all[1], conv)
	w.quiet()
	all[0].says(conv, "forked")
	for i := range forkMessages {
		all[1].says(conv, fmt.Sprint("one ", i))
		all[2].says(conv, fmt.Sprint("two ", i))
	}
	all[0].gets("one 0", "one 1", "two 0", "two 1")
	for _, d := range all[1:] {
		d.gets("forked")
	}
	all[0].says(conv, "together")
	for _, d := range all[1:] {
		d.gets("together")
		if !bytes.Equal(d.conversation(conv).Group, was) {
			t.Fatal("a group that one member could not follow was left")
		}
	}
}

// forkOff steps a device's group by a commit that nobody else sees; the others reach the
// same epoch by another one.
func forkOff(t *testing.T, d, other *device, id ConversationID) {
	t.Helper()
	stepAlone(t, d, id)
	other.mu.Lock()
	conv := other.conversations[id]
	err := other.healNow(conv, other.healings[string(conv.Group)])
	other.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	other.bell.ring()
	other.until("commits", func() bool { return other.epoch(id) == d.epoch(id) })
}

func stepAlone(t *testing.T, d *device, id ConversationID) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	group := d.conversations[id].Group
	g, err := d.group(group)
	if err != nil {
		t.Fatal(err)
	}
	p, err := g.PrepareCommit(mls.CommitParams{IgnorePending: true})
	if err == nil {
		err = d.update(func(c *change) error { return putDelta(c.Tx, group, p.Delta) })
	}
	if err != nil {
		t.Fatal(err)
	}
	d.forget(group)
}

// A fork that a resync does not mend ends in a successor. Two others' messages do not
// open; one's would not be enough.
func TestForkNeedsTwoMembers(t *testing.T) {
	w := newWorld(t)
	all, conv := five(t, w)
	me := all[0]
	me.mu.Lock()
	defer me.mu.Unlock()
	c0 := me.conversations[conv]
	g, err := me.group(c0.Group)
	if err != nil {
		t.Fatal(err)
	}
	hears := func(from *device) string {
		t.Helper()
		for range forkMessages {
			d := &wire.Deliver{Group: c0.Group, Epoch: g.Epoch(), Sender: from.Self()}
			if err := me.update(func(c *change) error {
				if conv := me.conversations[conv]; conv.State == stateActive {
					return me.unopened(c, conv, g, d)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		return me.conversations[conv].State
	}
	if state := hears(all[1]); state != stateActive {
		t.Fatalf("one member's messages make it %q", state)
	}
	if state := hears(all[2]); state != stateResync {
		t.Fatalf("two members' messages make it %q", state)
	}
	// As after a resync that did not help.
	if err := me.update(func(c *change) error { return c.put(c0) }); err != nil {
		t.Fatal(err)
	}
	hears(all[1])
	if state := hears(all[3]); state != stateBroken || me.conversations[conv].Broken != brokenForked {
		t.Fatalf("after a resync in vain it is %q", state)
	}
}

// founds makes a device found a group that claims to succeed another, of whomever the
// test wants, as a changed client could.
func (d *device) founds(id ConversationID, former []byte, with ...*device) {
	d.t.Helper()
	var people []string
	for _, o := range with {
		people = append(people, o.address.String())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.update(func(c *change) error {
		in := &intent{Kind: intentFound, Conversation: id, Addresses: people}
		if err := c.queue(in); err != nil {
			return err
		}
		conv := &conversation{ID: id, Group: former, Predecessor: former, State: stateBroken, Founding: in.Number, Started: 1}
		return c.put(conv)
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.bell.ring()
}

// A successor founded by a stranger is refused and reported, and so is one with a
// stranger in it; the same by a member with members alone is followed, here in a
// conversation of two.
func TestStrangersSuccessor(t *testing.T) {
	for _, c := range []struct {
		name              string
		founder, stranger string
		follows           bool
	}{
		{"by a stranger", "mallory", "", false},
		{"with a stranger", "bob", "mallory", false},
		{"by a member's other device", "second", "", false},
		{"by a member", "bob", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			by := map[string]*device{}
			for _, name := range []string{"alice", "bob", "mallory"} {
				by[name] = w.device(name).reachable()
			}
			alice, bob := by["alice"], by["bob"]
			conv := alice.with(t, bob)
			alice.says(conv, "before")
			bob.gets("before")
			by["second"] = w.device("bob").reachable() // which nobody has added
			w.quiet()
			was := alice.conversation(conv).Group
			with := []*device{alice}
			if c.stranger != "" {
				with = append(with, by[c.stranger])
			}
			by[c.founder].founds(conv, was, with...)
			if c.follows {
				alice.until("follows", func() bool { return alice.event(EventSuccessor) != nil })
				if bytes.Equal(alice.conversation(conv).Group, was) {
					t.Fatal("still in the former group")
				}
				return
			}
			alice.until("reports", func() bool { return w.reported(reasonTaken) })
			by[c.founder].says(conv, "come over here")
			w.quiet()
			if !bytes.Equal(alice.conversation(conv).Group, was) || slices.Contains(alice.texts(), "come over here") || alice.event(EventSuccessor) != nil {
				t.Fatal("alice followed")
			}
			if len(alice.Conversations()) != 1 {
				t.Fatalf("alice has %d conversations", len(alice.Conversations()))
			}
		})
	}
}

// One member founds a successor of a group in which nothing is wrong: the others wait
// until a second member speaks in it, and lose nothing of what was said before.
func TestSuccessorNeedsASecondMember(t *testing.T) {
	w := newWorld(t)
	all, conv := five(t, w)
	was := all[0].conversation(conv).Group
	for _, d := range all[2:] {
		d.until("rests", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.slot == nil })
	}
	all[0].founds(conv, was, all[1:]...)
	for _, d := range all[1:] {
		d.until("hears of it", func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.candidate(d.conversations[conv]) != nil
		})
		if d.event(EventSuccessor) != nil || len(d.Conversations()) != 1 {
			t.Fatalf("%s followed one member", d.address)
		}
	}
	all[0].says(conv, "is anybody there?")
	w.quiet()
	for _, d := range all[1:] {
		if d.event(EventSuccessor) != nil {
			t.Fatalf("%s followed one member's message", d.address)
		}
	}
	all[1].says(conv, "in the former group")
	all[2].gets("in the former group")
	// The second member finds its own state of the former group of no use.
	all[1].mu.Lock()
	err := all[1].update(func(c *change) error { return all[1].brick(c, all[1].conversations[conv], brokenForked) })
	all[1].mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	goesOn(t, conv, was, all...)
	for _, d := range all[1:] {
		d.gets("is anybody there?")
	}
	for _, d := range all[2:] {
		d.gets("in the former group")
	}
	all[3].says(conv, "end")
	for _, d := range append(slices.Clone(all[:3]), all[4]) {
		d.gets("end")
	}
}

func TestSuccessorNoteRoundTrip(t *testing.T) {
	n := &successorNote{Predecessor: []byte("group"), Since: 7}
	raw, err := n.marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseSuccessorNote(raw)
	if err != nil || got.Since != 7 || string(got.Predecessor) != "group" {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, bad := range map[string][]byte{
		"empty": {}, "version": append([]byte{2}, raw[1:]...), "more": append(slices.Clone(raw), 0), "cut": raw[:len(raw)-1],
		"from zero": append(slices.Clone(raw[:len(raw)-1]), 0), "no group": {1, 0, 0, 0, 0, 0, 0, 0, 0, 7},
	} {
		if _, err := parseSuccessorNote(bad); err == nil || !strings.Contains(err.Error(), "malformed") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseSuccessorNote(f *testing.F) {
	raw, _ := (&successorNote{Predecessor: []byte("group"), Since: 7}).marshal()
	f.Add(raw)
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := parseSuccessorNote(data)
		if err != nil {
			return
		}
		if again, err := n.marshal(); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x parses to %+v and encodes to %x, %v", data, n, again, err)
		}
	})
}
