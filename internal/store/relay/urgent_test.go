// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// urgent is content with a precedence.
func urgent(precedence uint8, from int, counter uint64, to ...int) *mailbox.Submission {
	sub := content(from, counter, fmt.Sprintf("%d from %d", counter, from), to...)
	sub.Precedence = precedence
	return sub
}

// pressed shows the numbers of a device's urgent mail.
func pressed(t testing.TB, s mailbox.Store, d int, precedence uint8, after uint64, count, bytes int) string {
	t.Helper()
	entries, err := s.Urgent(t.Context(), device(d), precedence, after, count, bytes)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, fmt.Sprintf("%d:%s", e.Number, e.Payload))
		if e.Kind != mailbox.Content || string(e.Group) != "g" || e.Sender != device(0) {
			t.Errorf("%+v", e)
		}
	}
	return strings.Join(out, ", ")
}

// What is urgent is found by its precedence, wherever it lies, under the numbers that it
// has in order; what is not urgent, was acknowledged, withheld, or is kept from its
// device, is not.
func TestUrgent(t *testing.T) { onEachForm(t, testUrgent) }

func testUrgent(t *testing.T, p place) {
	s := p.open(t, mailbox.Quota{})
	populate(t, s, 3)
	precedences := []uint8{0, 3, 1, 2, 3, 0, 2, 3, 7, 3} // numbers 1 to 10
	for i, precedence := range precedences {
		if o := apply(t, s, urgent(precedence, 0, uint64(i)+2, 1, 2)); o.Verdict != mailbox.Done {
			t.Fatalf("%d: %+v", i, o)
		}
	}
	commit := at(1000, 0, 12, mailbox.Commit, 1)
	commit.Precedence = mailbox.Flash
	if o := apply(t, s, commit); o.Verdict != mailbox.Done {
		t.Fatalf("%+v", o)
	}
	want := func(name string, precedence uint8, after uint64, count, bytes int, want string) {
		t.Helper()
		if got := pressed(t, s, 1, precedence, after, count, bytes); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	all := func() {
		t.Helper()
		want("flash", 3, 0, 100, 1<<20, "2:3 from 0, 5:6 from 0, 8:9 from 0, 10:11 from 0")
		want("immediate", 2, 0, 100, 1<<20, "4:5 from 0, 7:8 from 0")
		want("routine", 0, 0, 100, 1<<20, "")
		want("priority", 1, 0, 100, 1<<20, "")
		want("none such", 7, 0, 100, 1<<20, "")
		want("after a number", 3, 5, 100, 1<<20, "8:9 from 0, 10:11 from 0")
		want("so many", 3, 2, 2, 1<<20, "5:6 from 0, 8:9 from 0")
		want("so many bytes", 3, 2, 100, 1, "5:6 from 0")
	}
	all()
	s = p.reopen(t, s, mailbox.Quota{}) // from the journal, where there is one
	all()
	if j, ok := s.(*Journaled); ok { // and when it has been moved
		if err := j.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		all()
	}

	// Half moved, half not.
	if o := apply(t, s, urgent(3, 0, 13, 1)); o.Verdict != mailbox.Done || o.Placed[0].Number != 12 {
		t.Fatalf("%+v", o)
	}
	want("old and new", 3, 5, 100, 1<<20, "8:9 from 0, 10:11 from 0, 12:13 from 0")
	want("new", 3, 10, 100, 1<<20, "12:13 from 0")

	// What was withheld has left a notice under its number, which is not urgent.
	if _, err := s.Withhold(t.Context(), device(1), []uint64{8}); err != nil {
		t.Fatal(err)
	}
	want("withheld", 3, 5, 100, 1<<20, "10:11 from 0, 12:13 from 0")
	if err := s.Quarantine(t.Context(), device(1), true); err != nil {
		t.Fatal(err)
	}
	want("in quarantine", 3, 0, 100, 1<<20, "")
	if got := pressed(t, s, 2, 3, 5, 100, 1<<20); got != "8:9 from 0, 10:11 from 0" {
		t.Errorf("another device, which is not: %s", got)
	}
	if err := s.Quarantine(t.Context(), device(1), false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), nil, []mailbox.Ack{{Device: device(1), Number: 9}}); err != nil {
		t.Fatal(err)
	}
	want("acknowledged", 3, 0, 100, 1<<20, "10:11 from 0, 12:13 from 0")
	want("acknowledged", 2, 0, 100, 1<<20, "")
	s = p.reopen(t, s, mailbox.Quota{})
	want("acknowledged", 3, 0, 100, 1<<20, "10:11 from 0, 12:13 from 0")
	if losses, err := s.Expire(t.Context(), time.UnixMilli(2000), 100); err != nil || len(losses) == 0 {
		t.Fatalf("%+v, %v", losses, err)
	}
	want("expired", 3, 0, 100, 1<<20, "")
}

// Tidy forgets what was acknowledged and keeps the rest.
func TestUrgentIsTidied(t *testing.T) { onEachForm(t, testUrgentIsTidied) }

func testUrgentIsTidied(t *testing.T, p place) {
	s := p.open(t, mailbox.Quota{})
	populate(t, s, 2)
	for c := range uint64(4) {
		apply(t, s, urgent(3, 0, c+2, 1))
	}
	flush := func() {
		if j, ok := s.(*Journaled); ok {
			if err := j.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	flush()
	if n := urgentCount(t, s); n != 4 {
		t.Errorf("%d rows, want 4", n)
	}
	if _, err := s.Apply(t.Context(), nil, []mailbox.Ack{{Device: device(1), Number: 3}}); err != nil {
		t.Fatal(err)
	}
	flush()
	if n := urgentCount(t, s); n != 1 {
		t.Errorf("%d rows after an acknowledgement, want 1", n)
	}
	if got := pressed(t, s, 1, 3, 0, 10, 1<<20); got != "4:5 from 0" {
		t.Error(got)
	}
}

func urgentCount(t testing.TB, s mailbox.Store) (n int) {
	t.Helper()
	err := tablesOf(t, s).db.View(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT count(*) FROM urgent`).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
