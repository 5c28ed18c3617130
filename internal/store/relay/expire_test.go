// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/wire"
)

// at is a message of a given age.
func at(ms int64, from int, counter uint64, kind mailbox.Kind, to ...int) *mailbox.Submission {
	sub := content(from, counter, fmt.Sprintf("%d/%d", from, counter), to...)
	sub.Time, sub.Messages[0].Kind = time.UnixMilli(ms), kind
	return sub
}

// shown writes a mailbox as number, kind, sender and what the entry says.
func shown(t *testing.T, s mailbox.Store, d int) string {
	t.Helper()
	var all []string
	for _, e := range read(t, s, d, 0) {
		text := string(e.Payload)
		switch e.Kind {
		case mailbox.Expired, mailbox.Withheld:
			span, err := mailbox.ParseSpan(e.Payload)
			if err != nil {
				t.Fatal(err)
			}
			text = fmt.Sprintf("from %d since %d to %d", span.First, span.Since, e.Time)
		case mailbox.Undelivered, mailbox.Forbidden:
			m, err := wire.ParseUndeliveredMail(e.Payload)
			if err != nil || m.Incarnation != incarnation {
				t.Fatal(m, err)
			}
			text = fmt.Sprint(m.Counters)
		}
		sender := "?"
		for i := range 9 {
			if e.Sender == device(i) {
				sender = fmt.Sprint(i)
			}
		}
		all = append(all, fmt.Sprintf("%d:%d(%s) %s", e.Number, e.Kind, sender, text))
	}
	return strings.Join(all, ", ")
}

// Content over age goes, and both ends are told, under numbers of their own; commits
// stay, and so does what is young or was fetched.
func TestExpire(t *testing.T) {
	onEachForm(t, func(t *testing.T, p place) {
		s := p.open(t, mailbox.Quota{Messages: 6})
		populate(t, s, 4)
		for i, sub := range []*mailbox.Submission{
			at(100, 0, 2, mailbox.Content, 1, 2), at(101, 0, 3, mailbox.Content, 1, 2), at(102, 3, 1, mailbox.Content, 1),
			at(103, 0, 4, mailbox.Commit, 1, 2), at(104, 0, 5, mailbox.Content, 1), at(200, 0, 6, mailbox.Content, 1),
		} {
			if o := apply(t, s, sub); o.Verdict != mailbox.Done {
				t.Fatalf("%d: %+v", i, o)
			}
		}
		if _, err := s.Apply(t.Context(), nil, []mailbox.Ack{{Device: device(2), Number: 3}}); err != nil {
			t.Fatal(err)
		}
		if o := apply(t, s, at(201, 0, 7, mailbox.Content, 1)); o.Verdict != mailbox.MailboxFull {
			t.Fatalf("the mailbox is not full: %+v", o)
		}
		if losses, err := s.Expire(t.Context(), time.UnixMilli(100), 100); err != nil || len(losses) != 0 {
			t.Errorf("nothing is over age: %+v, %v", losses, err)
		}
		losses, err := s.Expire(t.Context(), time.UnixMilli(200), 100)
		if err != nil || len(losses) != 3 || losses[0].First != 1 || losses[0].Last != 2 || losses[0].Sender != device(0) || losses[0].Recipient != device(1) ||
			string(losses[0].Group) != "g" || len(losses[0].Lost) != 2 || losses[0].Lost[1] != (mailbox.Lost{Incarnation: incarnation, Counter: 3, Time: 101}) {
			t.Fatalf("%+v, %v", losses, err)
		}
		for range 2 {
			if got, want := shown(t, s, 1), "2:4(0) from 1 since 100 to 101, 3:4(3) from 3 since 102 to 102, 4:2(0) 0/4, 5:4(0) from 5 since 104 to 104, 6:1(0) 0/6"; got != want {
				t.Errorf("the recipient has %s\nwant %s", got, want)
			}
			if got, want := shown(t, s, 0)+"|"+shown(t, s, 3)+"|"+shown(t, s, 2), "1:5(1) [2 3 5]|1:5(1) [1]|"; got != want {
				t.Errorf("the senders have %s, want %s", got, want)
			}
			s = p.reopen(t, s, mailbox.Quota{Messages: 6})
		}
		again := sha256.Sum256([]byte("0/2"))
		if hash, err := s.Recall(t.Context(), device(0), 2); err != nil || hash != again {
			t.Errorf("the submission's mark is gone: %x, %v", hash, err)
		}
		// There is room again, and the numbers go on.
		if o := apply(t, s, at(202, 0, 7, mailbox.Content, 1)); o.Verdict != mailbox.Done || o.Placed[0].Number != 7 {
			t.Errorf("%+v", o)
		}
		// What follows an entry about the same is taken into it.
		if losses, err := s.Expire(t.Context(), time.UnixMilli(300), 100); err != nil || len(losses) != 1 || losses[0].First != 6 {
			t.Errorf("%+v, %v", losses, err)
		}
		if got, want := shown(t, s, 1), "2:4(0) from 1 since 100 to 101, 3:4(3) from 3 since 102 to 102, 4:2(0) 0/4, 7:4(0) from 5 since 104 to 202"; got != want {
			t.Errorf("the recipient has %s\nwant %s", got, want)
		}
		for d := range 4 {
			if st := arrive(t, s, device(d), [16]byte{}, false); st.Last > 0 {
				if _, err := s.Apply(t.Context(), nil, []mailbox.Ack{{Device: device(d), Number: st.Last}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if totals, err := s.Totals(t.Context()); err != nil || totals.Messages != 0 || totals.Pointers != 0 {
			t.Errorf("%+v, %v", totals, err)
		}
	})
}

// A pass takes no more than it was allowed, and the next one goes on.
func TestExpireInPortions(t *testing.T) {
	onEachForm(t, func(t *testing.T, p place) {
		s := p.open(t, mailbox.Quota{})
		populate(t, s, 3)
		for i := range 2*duePortion + 50 {
			apply(t, s, at(int64(i), 0, uint64(i)+2, mailbox.Content, 1, 2))
		}
		lost := 0
		for pass := 0; ; pass++ {
			losses, err := s.Expire(t.Context(), time.UnixMilli(1000), 400)
			if err != nil || pass > 10 {
				t.Fatal(err, pass)
			}
			n := 0
			for _, l := range losses {
				n += len(l.Lost)
			}
			if lost += n; n < 400 {
				break
			}
		}
		if want := 2 * (2*duePortion + 50); lost != want {
			t.Errorf("%d messages expired, want %d", lost, want)
		}
		for d := 1; d < 3; d++ {
			if got, want := shown(t, s, d), "562:4(0) from 1 since 0 to 561"; got != want {
				t.Errorf("device %d has %s, want %s", d, got, want)
			}
		}
		told := 0
		for _, e := range read(t, s, 0, 0) {
			m, err := wire.ParseUndeliveredMail(e.Payload)
			if err != nil || e.Kind != mailbox.Undelivered {
				t.Fatal(e, err)
			}
			told += len(m.Counters)
		}
		if told != lost {
			t.Errorf("the sender was told of %d, want %d", told, lost)
		}
	})
}

// A sender whose mailbox is full is told all the same; one that is purged is not.
func TestExpireTellsFullSenders(t *testing.T) {
	onEachForm(t, func(t *testing.T, p place) {
		s := p.open(t, mailbox.Quota{Messages: 2})
		populate(t, s, 3)
		for i, sub := range []*mailbox.Submission{
			at(2, 1, 1, mailbox.Content, 2), at(3, 0, 2, mailbox.Content, 2),
			at(500, 2, 1, mailbox.Commit, 0), at(500, 2, 2, mailbox.Commit, 0), at(500, 2, 3, mailbox.Commit, 0), at(500, 2, 4, mailbox.Commit, 0),
		} {
			if o := apply(t, s, sub); o.Verdict != mailbox.Done {
				t.Fatalf("%d: %+v", i, o)
			}
		}
		if o := apply(t, s, at(500, 2, 5, mailbox.Commit, 0)); o.Verdict != mailbox.MailboxFull {
			t.Fatalf("the sender's mailbox is not full: %+v", o)
		}
		if err := s.Purge(t.Context(), device(1)); err != nil {
			t.Fatal(err)
		}
		if losses, err := s.Expire(t.Context(), time.UnixMilli(400), 10); err != nil || len(losses) != 2 {
			t.Fatal(losses, err)
		}
		if got, want := shown(t, s, 2), "1:4(1) from 1 since 2 to 2, 2:4(0) from 2 since 3 to 3"; got != want {
			t.Errorf("the recipient has %s, want %s", got, want)
		}
		if e := read(t, s, 0, 4); len(e) != 1 || e[0].Number != 5 || e[0].Kind != mailbox.Undelivered {
			t.Errorf("the sender has %+v", e)
		}
		if totals, err := s.Totals(t.Context()); err != nil || totals.Pointers != 7 {
			t.Errorf("%+v, %v", totals, err)
		}
	})
}
