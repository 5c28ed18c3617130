// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"valise/gateway/mailbox"
)

// publish puts n one-time KeyPackages and a last resort on stock.
func publish(t *testing.T, s mailbox.Store, from int, counter uint64, n int) {
	t.Helper()
	sub := packages(from, counter, incarnation, time.Now().Add(time.Hour), n+1)
	sub.KeyPackages[n].LastResort = true
	if o := apply(t, s, sub); o.Verdict != mailbox.Done {
		t.Fatalf("publish: %+v", o)
	}
}

// offers is what others can learn of a device and take of it.
func offers(t *testing.T, s mailbox.Store, d int) string {
	t.Helper()
	address := addressOf(device(d))
	devices, err := s.Devices(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.Directory(t.Context(), address, 10)
	if err != nil {
		t.Fatal(err)
	}
	taken, _, err := s.TakeKeyPackages(t.Context(), 2, []mailbox.Device{device(d)}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(len(devices), len(list), len(taken))
}

// In quarantine a device's mail is kept and goes on arriving; it gets none of it, is
// offered to nobody and submits nothing. Lifted, it goes on where it stood.
func TestQuarantine(t *testing.T) {
	onEachForm(t, func(t *testing.T, p place) {
		s := p.open(t, mailbox.Quota{})
		populate(t, s, 3)
		publish(t, s, 1, 1, 3)
		publish(t, s, 2, 1, 3)
		apply(t, s, content(0, 2, "before", 1, 2))
		if err := s.Quarantine(t.Context(), device(1), true); err != nil {
			t.Fatal(err)
		}
		apply(t, s, content(0, 3, "meanwhile", 1, 2))
		for range 2 { // also after a restart
			if e := read(t, s, 1, 0); len(e) != 0 {
				t.Errorf("%d entries were delivered in quarantine", len(e))
			}
			if e := read(t, s, 2, 0); len(e) != 2 {
				t.Errorf("the other device: %d entries", len(e))
			}
			if held, free := offers(t, s, 1), offers(t, s, 2); held != "0 0 0" || free != "1 1 1" {
				t.Errorf("offered: %s of the one in quarantine, %s of the other", held, free)
			}
			if o := apply(t, s, content(1, 2, "from it", 0)); o.Verdict != mailbox.Barred {
				t.Errorf("a submission in quarantine: %+v", o)
			}
			if o := apply(t, s, content(2, 2, "from the other", 0)); !o.OK() {
				t.Errorf("the other's submission: %+v", o)
			}
			if st := arrive(t, s, device(1), [16]byte{7}, true); st.Began || st.Last != 2 {
				t.Errorf("in quarantine a new life began, or its mailbox was lost: %+v", st)
			}
			if holds, err := s.Holds(t.Context()); err != nil || len(holds) != 1 || holds[device(1)] != mailbox.Quarantined {
				t.Errorf("%v, %v", holds, err)
			}
			s = p.reopen(t, s, mailbox.Quota{})
		}
		if err := s.Quarantine(t.Context(), device(1), false); err != nil {
			t.Fatal(err)
		}
		if e := read(t, s, 1, 0); len(e) != 2 || e[0].Number != 1 || string(e[1].Payload) != "meanwhile" {
			t.Errorf("after the quarantine: %+v", e)
		}
		if got := offers(t, s, 1); got != "1 1 1" {
			t.Errorf("offered after the quarantine: %s", got)
		}
		if o := apply(t, s, content(1, 2, "from it", 0)); o.Verdict != mailbox.Done {
			t.Errorf("a submission after the quarantine: %+v", o)
		}
		if holds, err := s.Holds(t.Context()); err != nil || len(holds) != 0 {
			t.Errorf("%v, %v", holds, err)
		}
		if err := s.Quarantine(t.Context(), device(9), true); !errors.Is(err, mailbox.ErrNotFound) {
			t.Errorf("a device that never arrived: %v", err)
		}
	})
}

// What is purged is gone and stays gone: mail, KeyPackages, unfinished files. What
// bars a replay stays, and so does everything of others.
func TestPurge(t *testing.T) {
	onEachForm(t, func(t *testing.T, p place) {
		s := p.open(t, mailbox.Quota{})
		populate(t, s, 3)
		publish(t, s, 1, 1, 3)
		apply(t, s, content(1, 2, "of it", 0, 2))
		for i := range purgePortion + 10 {
			apply(t, s, content(0, uint64(i)+2, fmt.Sprint(i), 1))
		}
		apply(t, s, content(0, purgePortion+12, "for both", 1, 2))
		now := time.Now()
		for i, complete := range []bool{false, true} {
			b := mailbox.Blob{ID: [32]byte{byte(i)}, Group: []byte("g"), Size: 5, Owner: device(1), Name: fmt.Sprint("f", i), Created: now.Unix(), Expires: now.Unix() + 1000}
			claim := mailbox.Claim{Holder: [16]byte{1}, Now: now.Unix(), Until: now.Unix() - 1}
			if _, err := s.BeginBlob(t.Context(), b, mailbox.BlobLimits{}, claim); err != nil {
				t.Fatal(err)
			}
			if complete {
				if err := s.FinishBlob(t.Context(), b, claim.Holder, b.Expires); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := s.Purge(t.Context(), device(1)); err != nil {
			t.Fatal(err)
		}
		removal := content(0, purgePortion+13, "removal", 1, 2)
		removal.Messages[0].Kind = mailbox.Commit
		if o := apply(t, s, removal); o.Verdict != mailbox.Done || len(o.Placed) != 1 || o.Placed[0].Device != device(2) {
			t.Errorf("the commit that removes it: %+v", o)
		}
		for range 2 {
			if err := s.Quarantine(t.Context(), device(1), false); err != nil { // changes nothing
				t.Fatal(err)
			}
			if e := read(t, s, 1, 0); len(e) != 0 {
				t.Errorf("%d entries of the purged device", len(e))
			}
			if e := read(t, s, 2, 0); len(e) != 3 || string(e[0].Payload) != "of it" || string(e[1].Payload) != "for both" {
				t.Errorf("the other's mail: %+v", e)
			}
			totals, err := s.Totals(t.Context())
			if err != nil || totals.Messages != 3 || totals.Pointers != 4 || totals.KeyPackages != 0 {
				t.Errorf("%+v, %v", totals, err)
			}
			gone, err := s.ExpiredBlobs(t.Context(), now, 10)
			if err != nil || len(gone) != 1 || gone[0].Name != "f0" {
				t.Errorf("expired files: %+v, %v", gone, err)
			}
			for _, replay := range []*mailbox.Submission{content(1, 2, "of it", 0, 2), content(1, 2, "else", 0), content(1, 3, "new", 0)} {
				if o := apply(t, s, replay); o.Verdict == mailbox.Done {
					t.Errorf("a purged device's submission was done: %+v", o)
				}
			}
			if st := arrive(t, s, device(1), [16]byte{8}, true); st.Began || st.Counter != 2 || st.Incarnation != incarnation {
				t.Errorf("a purged device began anew: %+v", st)
			}
			if holds, err := s.Holds(t.Context()); err != nil || holds[device(1)] != mailbox.Purged {
				t.Errorf("%v, %v", holds, err)
			}
			s = p.reopen(t, s, mailbox.Quota{})
		}
		if err := s.Purge(t.Context(), device(1)); err != nil {
			t.Errorf("again: %v", err)
		}
		if err := s.Purge(t.Context(), device(9)); !errors.Is(err, mailbox.ErrNotFound) {
			t.Errorf("a device that never arrived: %v", err)
		}
		if all, err := s.Arrived(t.Context(), addressOf(device(1))); err != nil || len(all) != 1 || all[0] != device(1) {
			t.Errorf("%v, %v", all, err)
		}
	})
}
