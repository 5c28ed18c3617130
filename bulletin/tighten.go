// SPDX-License-Identifier: Apache-2.0

package bulletin

import (
	"errors"
	"time"
)

// A Tightening says what is still relayed while no newer bulletin comes: whoever was
// suspended since would not be known. What is most at stake is refused first. The zero
// value refuses nothing, for who follows no authority.
type Tightening struct {
	First time.Duration // at this age of the bulletin the highest classification is refused
	All   time.Duration // and at this age everything
}

// DefaultTightening is for an authority with a bulletin every 30 seconds: a restart or
// a short failure of the line stops nothing, an hour stops the upper half, a day all.
var DefaultTightening = Tightening{First: 15 * time.Minute, All: 24 * time.Hour}

// Check refuses steps that would not follow on one another.
func (t Tightening) Check() error {
	if t.First < 0 || t.All < t.First || t.All > 0 && t.First == 0 {
		return errors.New("tightening: the highest classification must be refused after more than no time, and everything not before that")
	}
	return nil
}

// On says whether anything is ever refused.
func (t Tightening) On() bool { return t.All > 0 }

// Limit returns the age at which content of a rank is refused. Ranks count the levels
// of a policy's hierarchy: 0 is without a label, 1 the lowest classification, ranks the
// highest. The steps between are of one length; what is above ranks counts as ranks, and
// where there is no hierarchy everything ends at All.
func (t Tightening) Limit(rank, ranks int) time.Duration {
	if ranks <= 0 {
		return t.All
	}
	rank = max(0, min(rank, ranks))
	step := (t.All - t.First) / time.Duration(ranks)
	return t.All - step*time.Duration(rank)
}

// Refuses says whether content of a rank is refused at an age of the bulletin. An age
// below zero, of a clock that is behind the authority's, is no age.
func (t Tightening) Refuses(age time.Duration, rank, ranks int) bool {
	return t.On() && age >= t.Limit(rank, ranks)
}

// Step returns how many ranks are refused at an age: 0 none, ranks + 1 everything.
func (t Tightening) Step(age time.Duration, ranks int) int {
	step := 0
	for rank := max(ranks, 0); rank >= 0 && t.Refuses(age, rank, ranks); rank-- {
		step++
	}
	return step
}

// Beating returns the steps for an authority whose bulletins come so seldom: nothing is
// refused before two of them are missing.
func (t Tightening) Beating(heartbeat time.Duration) Tightening {
	if !t.On() {
		return t
	}
	t.First = max(t.First, 2*heartbeat)
	t.All = max(t.All, t.First)
	return t
}

// Never is the age of what never came.
const Never time.Duration = 1<<63 - 1

// An Arrival is when a bulletin was taken in, by two clocks: the one on the wall, which
// may be set, and up, which counts from some moment on and is never set.
type Arrival struct {
	set *Set
	up  time.Duration
	age time.Duration // of the bulletin then
}

// Arrived notes that the standings of set are in force since now. A later one with the
// same bulletin keeps the earlier arrival.
func (a Arrival) Arrived(set *Set, wall time.Time, up time.Duration) Arrival {
	if a.set != nil && set.Number() == a.set.Number() {
		return Arrival{set: set, up: a.up, age: a.age}
	}
	next := Arrival{set: set, up: up}
	if set.bulletin != nil {
		next.age = max(0, wall.Sub(set.bulletin.Time))
	}
	return next
}

// Set returns the standings that arrived; nil before the first.
func (a Arrival) Set() *Set { return a.set }

// Age returns how old the bulletin is: by its own time, and by how long it has been
// here, whichever is more. A wall clock that is set back makes nothing younger; one that
// is set forward makes everything older, until it is right again. It is Never where
// there is no bulletin.
func (a Arrival) Age(wall time.Time, up time.Duration) time.Duration {
	if a.set == nil || a.set.bulletin == nil {
		return Never
	}
	return max(0, wall.Sub(a.set.bulletin.Time), a.age+up-a.up)
}
