// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"valise/wire"
)

// A rush is alice with two conversations, of which one has a long backlog for bob, who is
// away, and the other something urgent behind it.
type rush struct {
	*world
	alice, bob, carol *device
	slow, fast        ConversationID
	long              []string // the backlog's texts
}

func newRush(t *testing.T) *rush {
	w := newWorld(t)
	r := &rush{world: w, alice: w.device("alice").reachable(), bob: w.device("bob").reachable(), carol: w.device("carol").reachable()}
	r.slow, r.fast = r.alice.with(t, r.bob), r.alice.with(t, r.bob, r.carol)
	r.alice.says(r.slow, "slow begins")
	r.alice.says(r.fast, "fast begins")
	r.bob.gets("slow begins", "fast begins")
	r.carol.gets("fast begins")
	w.quiet()
	r.bob.kill()
	return r
}

// backlog has alice write so many long texts.
func (r *rush) backlog(n int) {
	for range n {
		text := fmt.Sprintf("%d %s", len(r.long), strings.Repeat("r", 20<<10))
		r.alice.says(r.slow, text)
		r.long = append(r.long, text)
	}
}

func (d *device) urges(conv ConversationID, text string) {
	d.t.Helper()
	id, err := d.Send(context.Background(), Draft{Conversation: conv, Text: text, Precedence: "flash"})
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.Wait(context.Background(), id); err != nil {
		d.t.Fatal(err)
	}
}

// order are the first words of what bob has, without what he had before.
func (r *rush) order() []string {
	var short []string
	for _, text := range r.bob.texts()[2:] {
		word, _, _ := strings.Cut(text, " ")
		short = append(short, word)
	}
	return short
}

// unharmed wants nothing to have been refused, lost or asked for again.
func (r *rush) unharmed() {
	r.t.Helper()
	for _, ev := range r.bob.all() {
		if ev.Kind == EventRefused || ev.Kind == EventResynced || ev.Kind == EventExpired {
			r.t.Errorf("%+v", ev)
		}
	}
	for _, reason := range []string{reasonAltered, reasonReplayed, reasonSender} {
		if r.reported(reason) {
			r.t.Errorf("reported: %v", r.reports)
		}
	}
	r.bob.mu.Lock()
	defer r.bob.mu.Unlock()
	if n := len(r.bob.meta.Copies); n > 0 {
		r.t.Errorf("%d notes are left", n)
	}
}

// What is urgent is shown before the backlog, once, whatever instant the power goes at;
// what of the same sender stands behind it in its conversation comes after it, and the
// rest in its order.
func TestUrgentIsShownFirst(t *testing.T) {
	for _, at := range []string{"", "deliver 1", "stored 1", "deliver 2", "stored 2", "stored 3", "deliver 10"} {
		t.Run(at, func(t *testing.T) {
			r := newRush(t)
			r.backlog(8)
			r.alice.urges(r.fast, "urgent")
			r.alice.says(r.fast, "after")
			if point, nth := "", 0; at != "" {
				if _, err := fmt.Sscan(at, &point, &nth); err != nil {
					t.Fatal(err)
				}
				r.bob.crashes(point, nth)
				<-r.bob.ended
				r.bob.ended <- errKilled
				r.bob.restart()
			} else {
				r.bob.start()
			}
			r.bob.gets(append([]string{"urgent", "after"}, r.long...)...)
			want := "urgent 0 1 2 3 4 5 6 7 after"
			if got := strings.Join(r.order(), " "); got != want {
				t.Errorf("shown as %s, want %s", got, want)
			}
			r.quiet()
			r.unharmed()
			r.bob.says(r.fast, "thanks")
			r.alice.gets("thanks")
			r.carol.gets("urgent", "after", "thanks")
		})
	}
}

// The control: what is not urgent keeps its place, and so does what is urgent and behind
// a commit of its conversation, or behind something of its sender there.
func TestNotAheadOfItsOwnConversation(t *testing.T) {
	for name, c := range map[string]struct {
		say  func(r *rush)
		want string
	}{
		"not urgent": {func(r *rush) { r.alice.says(r.fast, "usual") }, "0 1 2 3 4 5 usual"},
		"behind its sender's": {func(r *rush) {
			r.alice.says(r.fast, "usual")
			r.alice.urges(r.fast, "urgent")
		}, "0 1 2 3 4 5 usual urgent"},
		"behind the first of its sender": {func(r *rush) {
			r.carol.says(r.fast, "first")
			r.carol.urges(r.fast, "urgent")
		}, "0 1 2 3 4 5 first urgent"},
		"behind a commit": {func(r *rush) {
			dave := r.device("dave").reachable()
			if err := r.alice.Add(context.Background(), r.fast, dave.address); err != nil {
				r.t.Fatal(err)
			}
			dave.until("is in", func() bool { return len(dave.Conversations()) == 1 })
			r.alice.urges(r.fast, "urgent")
			dave.gets("urgent")
		}, "0 1 2 3 4 5 urgent"},
		"behind another's": {func(r *rush) {
			r.carol.says(r.fast, "carol's")
			r.alice.urges(r.fast, "urgent")
		}, "urgent 0 1 2 3 4 5 carol's"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRush(t)
			r.backlog(6)
			c.say(r)
			r.bob.start()
			r.bob.gets(r.long...)
			r.bob.until("gets it all", func() bool { return strings.Join(r.order(), " ") == c.want })
			r.bob.says(r.fast, "thanks")
			r.alice.gets("thanks")
			r.unharmed()
		})
	}
}

// A line that takes nothing more holds the backlog up, not what becomes urgent meanwhile.
func TestUrgentOverASlowLine(t *testing.T) {
	r := newRush(t)
	r.backlog(120) // 2.4 MiB, more than is under way at a time
	reached, goOn := make(chan struct{}), make(chan struct{})
	n := 0
	r.bob.crash = func(point string) error {
		if point == "stored" {
			if n++; n == 3 {
				close(reached)
				<-goOn
			}
		}
		return nil
	}
	r.bob.start()
	<-reached
	r.alice.urges(r.fast, "urgent")
	close(goOn)
	r.bob.gets(append([]string{"urgent"}, r.long...)...)
	order := r.order()
	at := slices.Index(order, "urgent")
	if at < 3 || at > 90 {
		t.Errorf("shown at place %d of %d", at, len(order))
	}
	order = slices.Delete(order, at, at+1)
	for i, s := range order[:120] {
		if s != fmt.Sprint(i) {
			t.Fatalf("%s at place %d", s, i)
		}
	}
	r.quiet()
	r.unharmed()
}

// An older state that is copied back gets what it has not seen, once: one from before the
// copy was taken, and one from after it, which is behind by then.
func TestCopiedBackAroundACopy(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprint("taken ", after), func(t *testing.T) {
			r := newRush(t)
			r.backlog(6)
			r.alice.urges(r.fast, "urgent")
			before, err := os.ReadFile(r.bob.path())
			if err != nil {
				t.Fatal(err)
			}
			r.bob.crashes("stored", 1) // the copy
			<-r.bob.ended
			r.bob.ended <- errKilled
			if got := r.order(); !slices.Equal(got, []string{"urgent"}) {
				t.Fatalf("the first that was taken is %q", got)
			}
			r.bob.kill()
			if after {
				if before, err = os.ReadFile(r.bob.path()); err != nil {
					t.Fatal(err)
				}
				r.bob.start()
				r.bob.gets(r.long...)
				r.quiet()
				r.bob.kill()
			}
			if err := os.WriteFile(r.bob.path(), before, 0o600); err != nil {
				t.Fatal(err)
			}
			r.bob.start()
			r.bob.gets(append([]string{"urgent"}, r.long...)...)
			r.alice.says(r.fast, "on")
			r.bob.gets(append([]string{"urgent", "on"}, r.long...)...)
			if behind := r.bob.event(EventResynced) != nil; behind != after {
				t.Errorf("behind: %v", behind)
			}
			r.quiet()
			if !after {
				r.unharmed()
			}
		})
	}
}

// What was taken ahead and expires before the drain comes to it is not counted as lost; the
// rest of the backlog is.
func TestCopyThatExpires(t *testing.T) {
	r := newRush(t)
	r.backlog(4)
	r.alice.urges(r.fast, "urgent")
	r.bob.crashes("stored", 1) // the copy
	<-r.bob.ended
	r.bob.ended <- errKilled
	r.bob.kill()
	r.expire()
	r.bob.start()
	r.alice.says(r.fast, "after")
	r.bob.gets("urgent", "after")
	lost := map[ConversationID]int{}
	for _, ev := range r.bob.all() {
		if ev.Kind == EventExpired {
			lost[ev.Conversation] += ev.Count
		}
	}
	if lost[r.slow] != 4 || lost[r.fast] != 0 {
		t.Errorf("lost are %v, want 4 of %v", lost, r.slow)
	}
	if n := len(r.notes()); n > 0 {
		t.Errorf("%d notes are left", n)
	}
}

// deliveries are bob's, as the stopped gateway has them.
func (r *rush) deliveries() (list []*wire.Deliver) {
	r.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(r.dir, "relay.db"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(`SELECT b.number, m.kind, g.group_id, m.epoch, d.device, m.time, m.payload FROM mailbox b JOIN messages m ON m.id = b.message
		JOIN groups g ON g.id = m.grp JOIN devices d ON d.id = m.sender
		WHERE b.device = (SELECT id FROM devices WHERE address = $1) ORDER BY b.number`, r.bob.address.String())
	if err != nil {
		r.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		d := new(wire.Deliver)
		var sender []byte
		if err := rows.Scan(&d.Number, &d.Kind, &d.Group, &d.Epoch, &sender, &d.Time, &d.Payload); err != nil {
			r.t.Fatal(err)
		}
		copy(d.Sender[:], sender)
		list = append(list, d)
	}
	return list
}

// gives delivers to bob's engine, which reaches no gateway. Copies need none.
func (r *rush) gives(d wire.Deliver, kind wire.DeliveryKind, number uint64) {
	r.t.Helper()
	d.Kind, d.Number = kind, number
	if err := r.bob.deliver(context.Background(), nil, &d); err != nil {
		r.t.Fatal(err)
	}
}

// A gateway that sends copies of anything, in any order, as often as it likes and under
// numbers of its own, changes the order of conversations and of senders and nothing
// else. Notes are bounded.
func TestHostileCopies(t *testing.T) {
	for _, lies := range []bool{false, true} {
		t.Run(fmt.Sprint("other numbers ", lies), func(t *testing.T) { testHostileCopies(t, lies) })
	}
}

func testHostileCopies(t *testing.T, lies bool) {
	r := newRush(t)
	want := r.bustle()
	r.stop()
	all := r.deliveries()
	r.bob.start()
	dice := rand.New(rand.NewPCG(1, 2))
	storm := func(n int) {
		for range n {
			d := all[dice.IntN(len(all))]
			number := d.Number
			if lies && dice.IntN(4) == 0 {
				number += 1 + uint64(dice.IntN(9))
			}
			r.gives(*d, wire.DeliverAhead, number)
			if n := len(r.notes()); n > wire.MaxAhead {
				t.Fatalf("%d notes", n)
			}
		}
	}
	before := len(r.bob.texts())
	if lies {
		r.gives(*all[0], wire.DeliverAhead, all[0].Number+1) // the next of its sender
	}
	storm(30)
	for _, d := range all { // in the one order in which all that can be is taken
		r.gives(*d, wire.DeliverAhead, d.Number)
	}
	if taken := len(r.bob.texts()) - before; taken != wire.MaxAhead || len(r.notes()) != taken {
		t.Fatalf("%d copies were taken, %d are noted", taken, len(r.notes()))
	}
	if lies { // the rest is the real gateway's, which is told what was replayed
		r.start()
	}
	for _, d := range all {
		if !lies { // nothing is reported, for which there would be no gateway
			storm(2)
			r.gives(*d, d.Kind, d.Number)
		}
	}
	r.bob.gets(want...)
	for _, number := range r.notes() {
		if !lies || number <= all[len(all)-1].Number {
			t.Errorf("a note of %d is left", number)
		}
	}
	if r.reported(reasonReplayed) != lies {
		t.Errorf("reported: %q", r.reports)
	}
	have := r.bob.texts()
	for _, word := range []string{"alice", "carol", "usual"} {
		other := func(text string) bool { return !strings.HasPrefix(text, word+" ") }
		if got, want := slices.DeleteFunc(slices.Clone(have), other), slices.DeleteFunc(slices.Clone(want), other); !slices.Equal(got, want) {
			t.Errorf("%s: %q", word, got)
		}
	}
}

// bustle has everybody write, much of it urgent.
func (r *rush) bustle() (texts []string) {
	for i := range 60 {
		text := fmt.Sprint("alice ", i)
		r.alice.urges(r.fast, text)
		texts = append(texts, text)
		if i%6 == 0 {
			text = fmt.Sprint("carol ", i)
			r.carol.urges(r.fast, text)
			texts = append(texts, text)
		}
		if i%20 == 0 {
			text = fmt.Sprint("usual ", i)
			r.alice.says(r.slow, text)
			texts = append(texts, text)
		}
	}
	return texts
}

func (r *rush) notes() (numbers []uint64) {
	r.bob.mu.Lock()
	defer r.bob.mu.Unlock()
	for _, c := range r.bob.meta.Copies {
		numbers = append(numbers, c.Number)
	}
	return numbers
}
