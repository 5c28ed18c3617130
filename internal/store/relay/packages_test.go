// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"testing"
	"time"

	"valise/gateway/mailbox"
)

func packages(from int, counter uint64, inc [16]byte, expires time.Time, n int) *mailbox.Submission {
	sub := &mailbox.Submission{Device: device(from), Incarnation: inc, Counter: counter, Hash: [32]byte{byte(counter)}, Time: time.Now()}
	for i := range n {
		sub.KeyPackages = append(sub.KeyPackages, mailbox.KeyPackage{Device: device(from), Suite: 2, Expires: expires.Unix(), Package: []byte{byte(i)}})
	}
	return sub
}

// KeyPackages of a former life are never handed out: the present one has not
// their secrets, and a Welcome made with them could not be opened. The same
// life keeps its own. spec/wire.md, Section 5.3.
func TestNewIncarnationDropsKeyPackages(t *testing.T) {
	onEachForm(t, testNewIncarnationDropsKeyPackages)
}

func testNewIncarnationDropsKeyPackages(t *testing.T, p place) {
	s := p.open(t, mailbox.Quota{})
	populate(t, s, 1)
	valid := time.Now().Add(time.Hour)
	last := packages(0, 3, incarnation, valid, 1)
	last.KeyPackages[0].LastResort = true
	for _, sub := range []*mailbox.Submission{packages(0, 2, incarnation, valid, 3), last} {
		if o := apply(t, s, sub); o.Verdict != mailbox.Done {
			t.Fatalf("publish: %+v", o)
		}
	}
	take := func() int {
		taken, _, err := s.TakeKeyPackages(t.Context(), 2, []mailbox.Device{device(0)}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return len(taken)
	}
	if st := arrive(t, s, device(0), incarnation, true); st.KeyPackages != 3 || take() != 1 {
		t.Errorf("the same life: %+v", st)
	}
	if st := arrive(t, s, device(0), [16]byte{2}, true); !st.Began || st.KeyPackages != 0 {
		t.Errorf("a new life: %+v", st)
	}
	if n := take(); n != 0 {
		t.Errorf("%d KeyPackages of the former life were handed out", n)
	}
}

// Expired KeyPackages take no room: a device that was away for long can publish
// new ones at once. Unexpired ones fill the stock.
func TestExpiredKeyPackagesTakeNoRoom(t *testing.T) { onEachForm(t, testExpiredKeyPackagesTakeNoRoom) }

func testExpiredKeyPackagesTakeNoRoom(t *testing.T, p place) {
	s := p.open(t, mailbox.Quota{Packages: 3})
	populate(t, s, 2)
	for from, test := range []struct {
		expires time.Duration
		want    mailbox.Verdict
	}{{-time.Minute, mailbox.Done}, {time.Hour, mailbox.TooManyPackages}} {
		counter := uint64(2 - from) // device 0 has founded the group
		if o := apply(t, s, packages(from, counter, incarnation, time.Now().Add(test.expires), 3)); o.Verdict != mailbox.Done {
			t.Fatalf("publish: %+v", o)
		}
		if o := apply(t, s, packages(from, counter+1, incarnation, time.Now().Add(time.Hour), 3)); o.Verdict != test.want {
			t.Errorf("those on stock expire in %v: verdict %d, want %d", test.expires, o.Verdict, test.want)
		}
	}
}
