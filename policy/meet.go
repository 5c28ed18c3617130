// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"time"
)

// Meet returns what all clearances hold, nil where that is nothing: one of them is
// missing or of another policy, or no classification is common. Whatever reaches
// it reaches each of them ([Decide] never denies more for more clearance); what it
// does not reach may still reach each, since of a permissive tag each may hold
// another value.
func Meet(all ...*Clearance) *Clearance {
	if len(all) == 0 || all[0] == nil || all[0].lattice == nil {
		return nil
	}
	out := &Clearance{lattice: all[0].lattice, classes: all[0].classes, held: slices.Clone(all[0].held)}
	for _, c := range all[1:] {
		if c == nil || c.lattice != out.lattice {
			return nil
		}
		for i := range out.classes {
			out.classes[i] &= c.classes[i]
		}
		for i := range out.held {
			out.held[i] &= c.held[i]
		}
	}
	if out.classes == [maxClasses / 64]uint64{} {
		return nil
	}
	return out
}

// Covers reports whether c holds everything that other holds; whoever holds
// nothing is covered by everybody.
func (c *Clearance) Covers(other *Clearance) bool {
	if other == nil {
		return true
	}
	if c == nil || c.lattice == nil || c.lattice != other.lattice {
		return false
	}
	for i := range other.classes {
		if other.classes[i]&^c.classes[i] != 0 {
			return false
		}
	}
	for i := range other.held {
		if other.held[i]&^c.held[i] != 0 {
			return false
		}
	}
	return true
}

// Rank returns where the label's classification stands among the levels of its
// policy's hierarchy: 1 is the lowest of so many.
func (r *Resolved) Rank() (rank, of int) {
	levels := r.edition.levels()
	for _, level := range levels {
		if level <= r.class.Hierarchy {
			rank++
		}
	}
	return rank, len(levels)
}

// Rank is Resolved.Rank of a classification by its name, in the edition in force; 0 of one
// that this does not have.
func (s *Set) Rank(policy OID, classification string, at time.Time) (rank, of int) {
	l := s.lattices[policy]
	if l == nil {
		return 0, 0
	}
	e := l.current(at)
	for _, c := range e.classes {
		if c.Name == classification {
			return (&Resolved{edition: e, class: c}).Rank()
		}
	}
	return 0, len(e.levels())
}

func (e *edition) levels() (levels []int) {
	for _, c := range e.classes {
		if !slices.Contains(levels, c.Hierarchy) {
			levels = append(levels, c.Hierarchy)
		}
	}
	return levels
}

// Levels returns how many levels the longest hierarchy of these policies has: the
// highest rank that a label can have.
func (s *Set) Levels() int {
	most := 0
	for _, l := range s.lattices {
		for _, e := range l.editions {
			most = max(most, len(e.levels()))
		}
	}
	return most
}

// NextChange returns the next moment, not before at, when a label may become valid
// or invalid by the passing of time alone; the zero time if there is none. Before
// that moment, what Resolve said at that time holds; from it on, ask again.
func (s *Set) NextChange(at time.Time) (next time.Time) {
	note := func(t time.Time) {
		if !t.IsZero() && !t.Before(at) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, l := range s.lattices {
		for _, e := range l.editions {
			note(e.doc.NotBefore)
			note(e.doc.NotAfter)
			for _, v := range e.values {
				for _, a := range v.alternatives {
					note(a.NotBefore)
					note(a.NotAfter)
				}
			}
		}
	}
	return next
}
