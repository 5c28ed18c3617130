// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"valise/identity"
)

// Ten devices of seven people in one conversation, three of them with two devices:
// everybody writes, everybody reads everything else once, in every view.
func TestGroupOfTenDevices(t *testing.T) {
	w := newWorld(t)
	var all []*device
	for _, name := range []string{"a", "a", "b", "b", "c", "c", "d", "e", "f", "g"} {
		all = append(all, w.device(name))
	}
	var people []identity.Address
	for _, d := range all {
		d.reachable()
		if d.address != all[0].address {
			people = append(people, d.address)
		}
	}
	conv, err := all[0].Start(context.Background(), "crisis cell", people)
	if err != nil {
		t.Fatal(err)
	}
	all[0].says(conv, "welcome")
	for _, d := range all[1:] {
		d.gets("welcome")
		if d.byGroup == nil || len(d.Conversations()) != 1 || d.Conversations()[0].Name != "crisis cell" || len(d.Conversations()[0].Members) != 10 {
			t.Fatalf("%s sees %+v", d.address, d.Conversations())
		}
	}
	var wg sync.WaitGroup
	for i, d := range all {
		wg.Go(func() { d.says(conv, fmt.Sprint("from ", i)) })
	}
	wg.Wait()
	for i, d := range all {
		for j := range all {
			if i != j {
				d.gets(fmt.Sprint("from ", j))
			}
		}
	}
}

func (d *device) event(kind string) *Event {
	for _, ev := range d.all() {
		if ev.Kind == kind {
			return &ev
		}
	}
	return nil
}

// A person's new device is added by a member, everybody sees it, and it reads what
// comes after; a removed person's devices read nothing more and are told.
func TestAddAndRemove(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	conv := alice.with(t, bob, carol)
	alice.says(conv, "before")
	bob.gets("before")
	carol.gets("before")

	second := w.device("bob").reachable()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := alice.Add(ctx, conv, bob.address); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*device{bob, carol} {
		d.until("sees the new device", func() bool {
			ev := d.event(EventAdded)
			return ev != nil && slices.ContainsFunc(ev.Members, func(m Member) bool { return m.Device == second.Self() }) && ev.From == alice.address.String()
		})
	}
	second.until("joins", func() bool { return second.event(EventJoined) != nil })
	epoch := second.event(EventJoined).Epoch
	for _, d := range []*device{alice, bob, carol} {
		var led []uint64
		for _, ev := range d.all() {
			if ev.Kind == EventAdded {
				led = append(led, ev.Epoch)
			}
		}
		if len(led) == 0 || led[len(led)-1] != epoch || epoch < 2 {
			t.Errorf("the newcomer joined in epoch %d; for %s the changes led to %v", epoch, d.address, led)
		}
	}
	carol.says(conv, "to four")
	for _, d := range []*device{alice, bob, second} {
		d.gets("to four")
	}
	second.says(second.with(t, alice, carol), "from the second device")
	for _, d := range []*device{alice, bob, carol} {
		d.gets("from the second device")
	}
	if slices.Contains(second.texts(), "before") {
		t.Fatal("the new device read what was sent before it came")
	}

	if err := alice.Remove(ctx, conv, carol.address); err != nil {
		t.Fatal(err)
	}
	carol.until("is told", func() bool { return carol.event(EventLeft) != nil })
	alice.says(conv, "without carol")
	bob.gets("without carol")
	second.gets("without carol")
	if _, err := carol.Send(ctx, Draft{Conversation: conv, Text: "still there?"}); err == nil {
		t.Fatal("a removed member could send")
	}
	if slices.Contains(carol.texts(), "without carol") {
		t.Fatal("a removed member reads on")
	}
}

// Members change the group at the same moment: the gateway lets one commit win, the
// others are made anew, and messages in between are sealed again. All arrive once.
func TestCommitRaces(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	var joiners []*device
	for i := range 3 {
		joiners = append(joiners, w.device(fmt.Sprint("joiner", i)).reachable())
	}
	conv := alice.with(t, bob, carol)
	alice.says(conv, "start")
	bob.gets("start")
	carol.gets("start")
	members := []*device{alice, bob, carol}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var wg sync.WaitGroup
	var want [][]string
	for i, d := range members {
		var mine []string
		for j := range 5 {
			mine = append(mine, fmt.Sprintf("race %d.%d", i, j))
		}
		want = append(want, mine)
		wg.Go(func() {
			if err := d.Add(ctx, conv, joiners[i].address); err != nil {
				t.Errorf("%s adds: %v", d.address, err)
			}
		})
		wg.Go(func() {
			for _, text := range mine {
				d.says(conv, text)
			}
		})
	}
	wg.Wait()
	for i, d := range members {
		for j := range members {
			if i != j {
				d.gets(want[j]...)
			}
		}
		d.until("has all six", func() bool { return len(d.Conversations()[0].Members) == 6 })
	}
	alice.says(conv, "end")
	for _, d := range append(joiners, bob, carol) {
		d.gets("end")
	}
}

// Two conversations begun at the same moment by both sides are both usable, and both
// sides go on in the same one.
func TestStartedByBothSides(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	a, b := alice.with(t, bob), bob.with(t, alice)
	alice.says(a, "from alice")
	bob.says(b, "from bob")
	alice.gets("from bob")
	bob.gets("from alice")
	if x, y := alice.with(t, bob), bob.with(t, alice); x != y {
		t.Fatalf("alice goes on in %s, bob in %s", x, y)
	}
}

// A device is removed while it is away with a message of its own under way. Back again, it
// is told that it may not send, before it has seen what waits: it still reads what was
// written to it until then, and leaves with the commit that removed it.
func TestRemovedWhileSending(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	conv := alice.with(t, bob, carol)
	alice.says(conv, "before")
	carol.gets("before")
	carol.crashes("sealed", 1)
	id, err := carol.Send(t.Context(), Draft{Conversation: conv, Text: "too late"})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-carol.ended; err == nil {
		t.Fatal("carol's engine did not stop")
	}
	carol.ended <- errKilled
	alice.says(conv, "she has not seen this")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := alice.Remove(ctx, conv, carol.address); err != nil {
		t.Fatal(err)
	}

	// The answer to what was under way comes before the first delivery is dealt with.
	answered := make(chan struct{})
	var once sync.Once
	carol.crash = func(point string) error {
		switch point {
		case "answered":
			once.Do(func() { close(answered) })
		case "deliver":
			select {
			case <-answered:
			case <-time.After(patience):
			}
		}
		return nil
	}
	carol.restart()
	carol.gets("before", "she has not seen this")
	carol.until("leaves", func() bool { return carol.event(EventLeft) != nil })
	carol.until("tells what became of the message", func() bool {
		o, err := carol.Outcome(t.Context(), id)
		return err == nil && o.State == OutcomeRefused && o.Reason == ErrNotMember.Error()
	})
	alice.says(conv, "without her")
	bob.gets("before", "she has not seen this", "without her")
	if slices.Contains(bob.texts(), "too late") || slices.Contains(carol.texts(), "without her") {
		t.Errorf("bob has %q, carol %q", bob.texts(), carol.texts())
	}
}
