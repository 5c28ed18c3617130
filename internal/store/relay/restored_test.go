// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/testenv"
)

// restorable are the stores that can be marked as restored.
var restorable = []struct {
	name string
	make func(testing.TB) (place, func(t testing.TB, since, now time.Time) Restoration)
}{
	{"journal", func(t testing.TB) (place, func(testing.TB, time.Time, time.Time) Restoration) {
		path := filepath.Join(t.TempDir(), "relay.db")
		p := place{open: func(t testing.TB, q mailbox.Quota) mailbox.Store {
			return openJournaled(t, Config{Path: path, Quota: q})
		}}
		return p, func(t testing.TB, since, now time.Time) Restoration {
			r, err := Restored(t.Context(), Config{Path: path}, since, now)
			return must(t, r, err)
		}
	}},
	{"postgresql", func(t testing.TB) (place, func(testing.TB, time.Time, time.Time) Restoration) {
		database := testenv.Postgres(t).DSN
		p := place{open: func(t testing.TB, q mailbox.Quota) mailbox.Store { return openShared(t, database, q) }}
		return p, func(t testing.TB, since, now time.Time) Restoration {
			r, err := RestoredShared(t.Context(), SharedConfig{Database: database}, since, now)
			return must(t, r, err)
		}
	}},
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func onEachRestorable(t *testing.T, test func(*testing.T, place, func(testing.TB, time.Time, time.Time) Restoration)) {
	for _, form := range restorable {
		t.Run(form.name, func(t *testing.T) {
			p, restored := form.make(t)
			test(t, p, restored)
		})
	}
}

// A restored store gives out no number twice, keeps the mail that it has, tells every
// device behind it what happened, and takes nothing more for its groups.
func TestRestored(t *testing.T) { onEachRestorable(t, testRestored) }

func testRestored(t *testing.T, p place, restored func(testing.TB, time.Time, time.Time) Restoration) {
	s := p.open(t, mailbox.Quota{})
	populate(t, s, 3)
	publishKinds(t, s, 1)
	apply(t, s, content(0, 2, "one", 1, 2))
	apply(t, s, content(0, 3, "two", 1), mailbox.Ack{Device: device(1), Number: 1})
	must(t, 0, s.Close())
	since, now := time.Now().Add(-time.Hour), time.Now()
	r := restored(t, since, now)
	if r.Devices != 3 || r.Groups != 1 || r.Packages != 2 || r.Floor != floorAt(now) {
		t.Errorf("it says %+v", r)
	}

	s = p.open(t, mailbox.Quota{})
	st := arrive(t, s, device(1), incarnation, false)
	if st.Incarnation != incarnation || st.Began || st.Counter != 1 || st.Acknowledged != 1 || st.Last != r.Floor || st.KeyPackages != 0 {
		t.Errorf("it stands at %+v", st)
	}
	mail := read(t, s, 1, 0)
	if len(mail) != 2 || mail[0].Number != 2 || string(mail[0].Payload) != "two" || mail[1].Number != r.Floor || mail[1].Kind != mailbox.Restored {
		t.Fatalf("mail: %+v", mail)
	}
	if want := must2(mailbox.RestoredTo(3, since)); string(mail[1].Payload) != string(want) {
		t.Errorf("the notice says %x, want %x", mail[1].Payload, want)
	}
	if left := read(t, s, 1, 77_000); len(left) != 1 || left[0].Number != r.Floor {
		t.Errorf("who has seen mail that the store has forgotten gets %+v", left)
	}
	if o := apply(t, s, content(0, 4, "more", 1)); o.Verdict != mailbox.UnknownGroup {
		t.Errorf("a message to the group: %+v", o)
	}
	step := &mailbox.Submission{Device: device(0), Incarnation: incarnation, Counter: 4, Time: now, Step: &mailbox.Step{Group: []byte("g"), To: 1}}
	if o := apply(t, s, step); o.Verdict != mailbox.UnknownGroup {
		t.Errorf("a commit: %+v", o)
	}
	step.Step = &mailbox.Step{Group: []byte("g"), Create: true}
	if o := apply(t, s, step); o.Verdict != mailbox.GroupExists {
		t.Errorf("the group's id, once more: %+v", o)
	}
	if g := must2(s.Group(t.Context(), []byte("g"))); g.Epoch != mailbox.LostEpoch || len(g.Records) != 2 {
		t.Errorf("the group: %+v", g)
	}
	taken, _, err := s.TakeKeyPackages(t.Context(), 1, []mailbox.Device{device(1)}, now)
	if err != nil || len(taken) != 1 || !taken[0].LastResort {
		t.Errorf("key packages: %+v, %v", taken, err)
	}
	testGoesOn(t, s, r)
	if s = p.reopen(t, s, mailbox.Quota{}); must2(s.Last(t.Context(), device(2))) != r.Floor+1 {
		t.Error("after another start the numbers are others")
	}
	testMark(t, s)
	noted := mark(s)
	must(t, 0, s.Close())
	testTwice(t, p, r, restored)
	if err := mark(p.open(t, mailbox.Quota{})).Check(noted); !errors.Is(err, ErrRolledBack) {
		t.Error("a restored store passes for the one before")
	}
}

// testTwice restores again, at the same moment by the clock, and later: no number is used
// twice.
func testTwice(t *testing.T, p place, first Restoration, restored func(testing.TB, time.Time, time.Time) Restoration) {
	t.Helper()
	at := time.Unix(int64(first.Floor>>30), 0)
	second := restored(t, at, at)
	if second.Floor < first.Floor+leap {
		t.Errorf("floors %d and %d", first.Floor, second.Floor)
	}
	later := at.Add(time.Hour)
	if third := restored(t, at, later); third.Floor != floorAt(later) || third.Floor < second.Floor+leap {
		t.Errorf("floors %d and %d", second.Floor, third.Floor)
	}
	s := p.open(t, mailbox.Quota{})
	if st := arrive(t, s, device(1), incarnation, false); st.Last != floorAt(later) {
		t.Errorf("it stands at %+v", st)
	}
	if mail := read(t, s, 1, first.Floor+1); len(mail) != 2 || mail[0].Number < second.Floor || mail[1].Number != floorAt(later) {
		t.Errorf("notices: %+v", mail)
	}
	must(t, 0, s.Close())
}

func mark(s mailbox.Store) Mark {
	switch s := s.(type) {
	case *Journaled:
		return must2(s.Beat(context.Background()))
	case *Shared:
		return must2(s.Beat(context.Background()))
	}
	panic(s)
}

// testMark: a mark that was noted outside tells an older state.
func testMark(t *testing.T, s mailbox.Store) {
	t.Helper()
	first := mark(s)
	apply(t, s, content(0, 9, "gap", 1), mailbox.Ack{Device: device(0), Number: must2(s.Last(t.Context(), device(0)))})
	second := mark(s)
	if err := second.Check(first); err != nil {
		t.Errorf("it has gone on: %v", err)
	}
	if err := first.Check(second); !errors.Is(err, ErrRolledBack) {
		t.Errorf("an older state: %v", err)
	}
}

// testGoesOn founds the group's successor and writes in it.
func testGoesOn(t *testing.T, s mailbox.Store, r Restoration) {
	t.Helper()
	for i, sub := range []*mailbox.Submission{
		{Step: &mailbox.Step{Group: []byte("h"), Create: true, Info: []byte("i")}},
		{Messages: []mailbox.Message{{Kind: mailbox.Content, Group: []byte("h"), Payload: []byte("new"), To: []mailbox.Device{device(1), device(2), device(9)}}}},
	} {
		if i == 1 { // a device that is new to this store, or that it has forgotten
			st := arrive(t, s, device(9), [16]byte{9}, true)
			if st.Last != r.Floor || st.Acknowledged != r.Floor || !st.Began {
				t.Errorf("a device that comes later stands at %+v", st)
			}
		}
		sub.Device, sub.Incarnation, sub.Counter, sub.Hash, sub.Time = device(0), incarnation, uint64(4+i), [32]byte{byte(i)}, time.Now()
		o := apply(t, s, sub)
		if o.Verdict != mailbox.Done {
			t.Fatalf("submission %d: %+v", i, o)
		}
		for _, p := range o.Placed {
			if p.Number != r.Floor+1 {
				t.Errorf("mail has the number %d, want %d", p.Number, r.Floor+1)
			}
		}
	}
	for _, d := range []int{1, 2, 9} {
		if mail := read(t, s, d, r.Floor); len(mail) != 1 || string(mail[0].Payload) != "new" {
			t.Errorf("device %d gets %+v", d, mail)
		}
		if o := apply(t, s, content(99, 1, "", 1), mailbox.Ack{Device: device(d), Number: r.Floor + 1}); o.Verdict != mailbox.OldIncarnation {
			t.Fatal(o)
		}
		if mail := read(t, s, d, 0); len(mail) != 0 {
			t.Errorf("device %d has acknowledged everything, and gets %+v", d, mail)
		}
	}
}

func publishKinds(t *testing.T, s mailbox.Store, d int) {
	t.Helper()
	sub := &mailbox.Submission{Device: device(d), Incarnation: incarnation, Counter: 1, Hash: [32]byte{7}, Time: time.Now()}
	for i := range 3 {
		sub.KeyPackages = append(sub.KeyPackages, mailbox.KeyPackage{
			Device: device(d), Suite: 1, LastResort: i == 0, Expires: time.Now().Add(time.Hour).Unix(), Package: []byte{byte(i)},
		})
	}
	if o := apply(t, s, sub); o.Verdict != mailbox.Done {
		t.Fatal(o)
	}
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A clock that stands before the backup would give numbers out again.
func TestRestoredClock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "relay.db")
	if _, err := Restored(t.Context(), Config{Path: path}, time.Now(), time.Now().Add(-time.Hour)); err == nil {
		t.Error("a restore before its backup")
	}
	if _, err := Restored(t.Context(), Config{Path: path}, time.Now(), time.Now()); err != nil {
		t.Errorf("control: %v", err)
	}
}
