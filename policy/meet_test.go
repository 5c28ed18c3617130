// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"valise/identity"
)

// Whatever reaches the meet reaches each; a clearance covers what it was lowered to;
// and what covers more never reaches less.
func TestMeetLaws(t *testing.T) {
	reached, covers := 0, 0
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		w := randomWorld(t, rnd)
		var all []*Clearance
		for range 1 + rnd.IntN(4) {
			c, err := w.Clearance(w.issued(t, []string{"LOW", "MIDDLE", "HIGH"}[rnd.IntN(3)], some(rnd, w.all, 30)))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
		meet := Meet(all...)
		for range 50 {
			l := &Label{Policy: oid(t, testPolicy), Edition: 1, Classification: []string{"LOW", "MIDDLE", "HIGH"}[rnd.IntN(3)], Categories: some(rnd, w.all, 3)}
			r, err := w.Resolve(l, New, now)
			if err != nil {
				t.Fatal(err)
			}
			if !Decide(r, meet).Granted {
				continue
			}
			reached++
			for i, c := range all {
				if d := Decide(r, c); !d.Granted {
					t.Fatalf("seed %d: the meet is reached, clearance %d is not: %+v", seed, i, d)
				}
			}
		}
		for i, c := range all {
			if !c.Covers(meet) {
				t.Fatalf("seed %d: clearance %d does not cover the meet", seed, i)
			}
			if meet.Covers(c) {
				covers++
			}
		}
	}
	if reached < 50 || covers < 5 {
		t.Errorf("the meet was reached %d times and covered %d: this says little", reached, covers)
	}
}

func (w world) issued(t *testing.T, class string, categories []Category) *identity.Clearance {
	t.Helper()
	c, err := w.Issue(Grant{Policy: oid(t, testPolicy), UpTo: class, Categories: categories}, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Nothing in common is nothing.
func TestMeetOfNothing(t *testing.T) {
	a := one(t)
	b := one(t) // the same text, another Set: never compared
	high, err := a.Clearance(issue(t, a, "HIGH"))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := b.Clearance(issue(t, b, "HIGH"))
	if err != nil {
		t.Fatal(err)
	}
	if Meet() != nil || Meet(nil) != nil || Meet(high, nil) != nil || Meet(high, stranger) != nil {
		t.Error("a meet of nothing holds something")
	}
	if Meet(high, high) == nil || !high.Covers(nil) || (*Clearance)(nil).Covers(high) || high.Covers(stranger) {
		t.Error("covering is wrong")
	}
}

func TestRank(t *testing.T) {
	s := one(t)
	for class, want := range map[string]int{"LOW": 1, "MIDDLE": 2, "HIGH": 3} {
		l := label(t, class)
		l.Edition = 1
		r, err := s.Resolve(l, New, now)
		if err != nil {
			t.Fatal(err)
		}
		if rank, of := r.Rank(); rank != want || of != 3 {
			t.Errorf("%s: %d of %d", class, rank, of)
		}
	}
}

// Until the moment that NextChange names, labels stay as valid as they are.
func TestNextChange(t *testing.T) {
	begin, end := now.Add(time.Hour), now.Add(2*time.Hour)
	text := spifText("TEST", testPolicy, 1, levels)
	text = fmt.Sprintf(`<SPIF notBefore=%q notAfter=%q`, begin.Format(time.RFC3339), end.Format(time.RFC3339)) + text[len("<SPIF"):]
	s, err := Compile(document(t, text))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ at, want time.Time }{
		{now, begin}, {begin, begin}, {begin.Add(1), end}, {end, end}, {end.Add(1), time.Time{}},
	} {
		if got := s.NextChange(c.at); !got.Equal(c.want) {
			t.Errorf("after %v: %v, want %v", c.at, got, c.want)
		}
	}
	if got := one(t).NextChange(now); !got.IsZero() {
		t.Errorf("a policy without periods changes at %v", got)
	}
}
