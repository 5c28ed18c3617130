// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"math"
	"testing"

	"valise/gateway/mailbox"
)

// What is withheld goes from one mailbox, wherever it lies there; both ends are told,
// under numbers of their own; others keep their copies, and commits stay.
func TestWithhold(t *testing.T) {
	onEachForm(t, func(t *testing.T, p place) {
		s := p.open(t, mailbox.Quota{})
		populate(t, s, 4)
		for i, sub := range []*mailbox.Submission{
			at(100, 0, 2, mailbox.Content, 1, 2), at(101, 0, 3, mailbox.Content, 1, 2), at(102, 3, 1, mailbox.Content, 1),
			at(103, 0, 4, mailbox.Commit, 1, 2), at(104, 0, 5, mailbox.Content, 1), at(105, 0, 6, mailbox.Content, 1),
		} {
			if o := apply(t, s, sub); o.Verdict != mailbox.Done {
				t.Fatalf("%d: %+v", i, o)
			}
		}
		losses, err := s.Withhold(t.Context(), device(1), []uint64{4, 2, 5, 3, 77, math.MaxInt64})
		if err != nil || len(losses) != 3 || losses[0].First != 2 || losses[1].Sender != device(3) || losses[2].First != 5 || losses[2].Recipient != device(1) {
			t.Fatalf("%+v, %v", losses, err)
		}
		for range 2 {
			if got, want := shown(t, s, 1), "1:1(0) 0/2, 2:7(0) from 2 since 101 to 101, 3:7(3) from 3 since 102 to 102, 4:2(0) 0/4, 5:7(0) from 5 since 104 to 104, 6:1(0) 0/6"; got != want {
				t.Errorf("the recipient has %s\nwant %s", got, want)
			}
			if got, want := shown(t, s, 0)+"|"+shown(t, s, 3)+"|"+shown(t, s, 2), "1:8(1) [3 5]|1:8(1) [1]|1:1(0) 0/2, 2:1(0) 0/3, 3:2(0) 0/4"; got != want {
				t.Errorf("the others have %s, want %s", got, want)
			}
			s = p.reopen(t, s, mailbox.Quota{})
		}
		// What follows an entry about the same is taken into it, and nothing is told twice.
		if losses, err := s.Withhold(t.Context(), device(1), []uint64{5, 6}); err != nil || len(losses) != 1 || losses[0].First != 6 {
			t.Errorf("%+v, %v", losses, err)
		}
		if o := apply(t, s, at(106, 0, 7, mailbox.Content, 1)); o.Verdict != mailbox.Done || o.Placed[0].Number != 7 {
			t.Errorf("%+v", o)
		}
		if got, want := shown(t, s, 1), "1:1(0) 0/2, 2:7(0) from 2 since 101 to 101, 3:7(3) from 3 since 102 to 102, 4:2(0) 0/4, 6:7(0) from 5 since 104 to 105, 7:1(0) 0/7"; got != want {
			t.Errorf("the recipient has %s\nwant %s", got, want)
		}
		if losses, err := s.Withhold(t.Context(), device(7), []uint64{1}); err == nil && len(losses) > 0 {
			t.Errorf("a stranger's mailbox: %+v", losses)
		}
	})
}
