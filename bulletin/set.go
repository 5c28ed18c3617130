// SPDX-License-Identifier: Apache-2.0

package bulletin

import (
	"errors"
	"time"

	"valise/identity"
)

// Errors that callers tell apart.
var (
	// ErrOld is returned for a bulletin that is not newer than the one held. It
	// is no reason for alarm by itself: old ones are repeated.
	ErrOld = errors.New("bulletin is not newer than the one held")
	// ErrFork is returned for a bulletin that contradicts the one held: the same
	// number with other words, or a higher one made from a shorter record. It is
	// a reason for alarm, and the one held stays in force.
	ErrFork = errors.New("bulletin contradicts the one held")
	// ErrFull is returned when too many statements wait for a bulletin.
	ErrFull = errors.New("too many statements wait for a bulletin that knows them")
)

// A Set is all that is known of standings at one moment. It never changes.
type Set struct {
	bulletin *Bulletin // nil: none seen
	devices  map[identity.DeviceID]*DeviceStanding
	people   map[identity.Address]*PersonStanding
	officers map[identity.DeviceID]*OfficerStanding
	pending  []*pending // statements that the bulletin does not know, oldest first
	issuers  issuers    // nil: no manifest is known
}

// NewSet returns a Set that knows of nothing: everybody stands as their
// certificate says.
func NewSet() *Set { return new(Set) }

// Bulletin returns the highest bulletin seen, nil if none was. It must not be
// changed.
func (s *Set) Bulletin() *Bulletin { return s.bulletin }

// Number returns the number of the highest bulletin seen, 0 if none was.
func (s *Set) Number() uint64 {
	if s.bulletin == nil {
		return 0
	}
	return s.bulletin.Number
}

// Pending returns how many statements the bulletin does not know yet.
func (s *Set) Pending() int { return len(s.pending) }

// WithBulletin returns the Set in which b, which was verified, is in force.
// Statements that b was not made from stay in force beside it.
func (s *Set) WithBulletin(b *Bulletin) (*Set, error) {
	if err := s.newer(b); err != nil {
		return s, err
	}
	next := &Set{
		bulletin: b,
		issuers:  s.issuers,
		devices:  make(map[identity.DeviceID]*DeviceStanding, len(b.Devices)),
		people:   make(map[identity.Address]*PersonStanding, len(b.People)),
		officers: make(map[identity.DeviceID]*OfficerStanding, len(b.Officers)),
	}
	for i := range b.Devices {
		next.devices[b.Devices[i].ID] = &b.Devices[i]
	}
	for i := range b.People {
		next.people[b.People[i].Address] = &b.People[i]
	}
	for i := range b.Officers {
		next.officers[b.Officers[i].Key] = &b.Officers[i]
	}
	next.pending = settle(s.pending, b.LedgerSize)
	return next, nil
}

// newer decides between the bulletin held and another. Number, time, manifest
// and record all go the same way.
func (s *Set) newer(b *Bulletin) error {
	old := s.bulletin
	if old == nil {
		return nil
	}
	if b.Number == old.Number && !same(b, old) {
		return ErrFork
	}
	if b.Number <= old.Number {
		return ErrOld
	}
	if b.Time.Before(old.Time) || b.Manifest < old.Manifest || b.LedgerSize < old.LedgerSize ||
		b.LedgerSize == old.LedgerSize && b.LedgerRoot != old.LedgerRoot {
		return ErrFork
	}
	return nil
}

func same(a, b *Bulletin) bool {
	x, errX := encode(a)
	y, errY := encode(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// A Staleness says how old the newest word of the authority is.
type Staleness int

// The steps.
const (
	Fresh   Staleness = iota // the next bulletin is not due yet
	Late                     // it is due, and its grace is not over
	Stale                    // its grace is over
	Missing                  // there was never a bulletin
)

func (s Staleness) String() string {
	return [...]string{"fresh", "late", "stale", "missing"}[s]
}

// Stale tells how old the bulletin is, given how long after its Next the
// following one may take.
func (s *Set) Stale(now time.Time, grace time.Duration) Staleness {
	switch {
	case s.bulletin == nil:
		return Missing
	case !now.After(s.bulletin.Next):
		return Fresh
	case !now.After(s.bulletin.Next.Add(grace)):
		return Late
	}
	return Stale
}
