// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"time"

	"valise/identity"
)

// A Decision is the outcome of Decide. Its zero value is no grant.
type Decision struct {
	Granted bool
	Reason  Reason // "" where granted
	place   int32  // bit or group that was not met
}

// Decide says whether a clearance reaches a label. It allocates nothing and
// looks at nothing but its arguments. Both come from the same Set; anything
// else is denied, and so is nil.
//
// The rules, in this order:
//
//  1. Label and clearance are of one policy.
//  2. The clearance's classifications are a set, of which the label's must be
//     one. No classification implies another.
//  3. Of restrictive tags, the clearance holds every category of the label.
//  4. Of each permissive tag that the label uses, it holds at least one. A tag
//     that the label does not use imposes nothing.
//  5. Informative tags decide nothing.
func Decide(r *Resolved, c *Clearance) Decision {
	switch {
	case r == nil || r.lattice == nil:
		return Decision{Reason: ReasonNoLabel}
	case c == nil || c.lattice == nil:
		return Decision{Reason: ReasonNoClearance}
	case r.lattice != c.lattice:
		if r.lattice.id == c.lattice.id {
			return Decision{Reason: ReasonStaleClearance}
		}
		return Decision{Reason: ReasonOtherPolicy}
	}
	if c.classes[r.place/64]&(1<<(r.place%64)) == 0 {
		return Decision{Reason: ReasonClassification}
	}
	for i, w := range r.all {
		if int(w.at) >= len(c.held) || c.held[w.at]&w.bits != w.bits {
			return Decision{Reason: ReasonRestrictive, place: int32(i)}
		}
	}
	for i, g := range r.groups {
		if !c.holdsOne(g) {
			return Decision{Reason: ReasonPermissive, place: int32(i)}
		}
	}
	return Decision{Granted: true}
}

func (c *Clearance) holdsOne(g group) bool {
	for _, w := range g {
		if int(w.at) < len(c.held) && c.held[w.at]&w.bits != 0 {
			return true
		}
	}
	return false
}

// Judge is Decide for a label and a clearance that were not prepared: it
// resolves one, compiles the other, and names what is missing. A nil error is
// a grant; the error is a *Denial otherwise.
func (s *Set) Judge(l *Label, c *identity.Clearance, use Use, at time.Time) error {
	r, err := s.Resolve(l, use, at)
	if err != nil {
		return err
	}
	compiled, err := s.Clearance(c)
	if err != nil {
		return err
	}
	return Decide(r, compiled).Explain(r, compiled)
}

// Explain turns a decision on these two into words: nil for a grant, a *Denial
// otherwise.
func (d Decision) Explain(r *Resolved, c *Clearance) error {
	if d.Granted {
		return nil
	}
	denial := &Denial{Reason: d.Reason}
	if r == nil || c == nil || r.lattice == nil || r.lattice != c.lattice {
		return denial
	}
	switch d.Reason {
	case ReasonClassification:
		denial.Detail = fmt.Sprintf("%q is not in the clearance", r.class.Name)
	case ReasonRestrictive:
		for _, choice := range r.chosen {
			if choice.kind.Restricts() && c.held[choice.bit/64]&(1<<(choice.bit%64)) == 0 {
				denial.Detail = fmt.Sprintf("%q of tag %q is not in the clearance", choice.Name, choice.Tag)
				break
			}
		}
	case ReasonPermissive:
		for _, choice := range r.chosen {
			w := word{uint32(choice.bit / 64), 1 << (choice.bit % 64)}
			if choice.kind.Permits() && int(d.place) < len(r.groups) && r.groups[d.place].has(w) {
				denial.Detail = fmt.Sprintf("the clearance holds none of tag %q that the label names", choice.Tag)
				break
			}
		}
	}
	return denial
}

func (g group) has(w word) bool {
	for _, have := range g {
		if have.at == w.at && have.bits&w.bits != 0 {
			return true
		}
	}
	return false
}
