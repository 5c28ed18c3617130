// SPDX-License-Identifier: Apache-2.0

package bulletin

import (
	"testing"
	"time"
)

// The highest classification ends first, each step takes one more, and in the end
// nothing is left.
func TestTightening(t *testing.T) {
	steps := Tightening{First: time.Hour, All: 5 * time.Hour}
	for _, test := range []struct {
		age  time.Duration
		want int // how many of ranks 0 to 4 are refused
	}{
		{-time.Hour, 0},
		{0, 0},
		{time.Hour - 1, 0},
		{time.Hour, 1},
		{2*time.Hour - 1, 1},
		{2 * time.Hour, 2},
		{3 * time.Hour, 3},
		{4 * time.Hour, 4},
		{5*time.Hour - 1, 4},
		{5 * time.Hour, 5},
		{Never, 5},
	} {
		if got := steps.Step(test.age, 4); got != test.want {
			t.Errorf("at %v: %d ranks are refused, want %d", test.age, got, test.want)
		}
		for rank := range 5 {
			if got, want := steps.Refuses(test.age, rank, 4), rank > 4-test.want; got != want {
				t.Errorf("at %v: rank %d refused %v, want %v", test.age, rank, got, want)
			}
		}
	}
	if steps.Refuses(5*time.Hour-1, 0, 0) || !steps.Refuses(5*time.Hour, 0, 0) {
		t.Error("without a hierarchy everything ends at All")
	}
	if !steps.Refuses(time.Hour, 9, 4) || steps.Limit(-3, 4) != 5*time.Hour {
		t.Error("ranks outside the hierarchy")
	}
	if (Tightening{}).Refuses(Never, 4, 4) {
		t.Error("the zero value refuses")
	}
	for _, bad := range []Tightening{{First: -1}, {First: 2, All: 1}, {All: 1}} {
		if bad.Check() == nil {
			t.Errorf("%+v passes", bad)
		}
	}
	if err := DefaultTightening.Check(); err != nil {
		t.Error(err)
	}
}

// A bulletin grows old by its own time and by how long it has been here: neither a clock
// that is set back nor one that was behind when it came makes it younger.
func TestAgeAndClocks(t *testing.T) {
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	made := func(number uint64, at time.Time) *Set {
		return &Set{bulletin: &Bulletin{Number: number, Time: at, Next: at.Add(30 * time.Second)}}
	}
	const minute, hour, boot = time.Minute, time.Hour, 77 * time.Hour
	var none Arrival
	if none.Age(start, boot) != Never || none.Arrived(NewSet(), start, boot).Age(start, boot) != Never {
		t.Error("without a bulletin there is an age")
	}
	one := none.Arrived(made(1, start.Add(-minute)), start, boot)
	again := one.Arrived(made(1, start.Add(-minute)), start.Add(hour), boot+hour)
	newer := one.Arrived(made(2, start.Add(hour)), start.Add(hour), boot+hour)
	future := none.Arrived(made(1, start.Add(hour)), start, boot)
	for name, test := range map[string]struct {
		a    Arrival
		wall time.Duration // since start
		up   time.Duration // since boot
		want time.Duration
	}{
		"on arrival":                        {one, 0, 0, minute},
		"an hour later":                     {one, hour, hour, hour + minute},
		"set forward":                       {one, 3 * hour, hour, 3*hour + minute},
		"set back":                          {one, -2 * hour, hour, hour + minute},
		"the same bulletin again":           {again, hour, hour, hour + minute},
		"a newer one":                       {newer, hour, hour, 0},
		"of the future, on arrival":         {future, 0, 0, 0},
		"of the future, half an hour later": {future, hour / 2, hour / 2, hour / 2},
	} {
		if got := test.a.Age(start.Add(test.wall), boot+test.up); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// An authority that speaks seldom is not taken for a silent one.
func TestBeating(t *testing.T) {
	for name, test := range map[string]struct {
		given     Tightening
		heartbeat time.Duration
		want      Tightening
	}{
		"often":              {DefaultTightening, 30 * time.Second, DefaultTightening},
		"every hour":         {DefaultTightening, time.Hour, Tightening{First: 2 * time.Hour, All: DefaultTightening.All}},
		"every day":          {DefaultTightening, 24 * time.Hour, Tightening{First: 48 * time.Hour, All: 48 * time.Hour}},
		"nothing is refused": {Tightening{}, time.Hour, Tightening{}},
	} {
		if got := test.given.Beating(test.heartbeat); got != test.want || got.Check() != nil {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}
