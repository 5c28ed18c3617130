// SPDX-License-Identifier: Apache-2.0

package bulletin

import (
	"slices"
	"time"

	"valise/identity"
	"valise/statement"
)

// Unrecorded stands for the leaf of a statement of which it is not known
// whether, and where, the record holds it.
const Unrecorded int64 = -1

// A pending statement is in force beside a bulletin that does not know it.
type pending struct {
	body   statement.Body
	digest [32]byte // of the body: it is the same order, whoever signed it again
	signer identity.DeviceID
	time   time.Time
	leaf   int64
	raw    []byte
}

// An Order is a statement that is in force beside the bulletin.
type Order struct {
	Raw  []byte // as it was signed
	Leaf int64  // its place in the record, or Unrecorded
}

// Orders returns the statements that the bulletin does not know yet, oldest first, so
// that others can verify and obey them too.
func (s *Set) Orders() []Order {
	orders := make([]Order, len(s.pending))
	for i, p := range s.pending {
		orders[i] = Order{p.raw, p.leaf}
	}
	return orders
}

// WithStatement returns the Set in which st, which was verified, is in force.
// leaf is its place in the record, or Unrecorded; a statement that is seen again
// with its leaf is in force until a bulletin was made from that leaf.
//
// Suspensions, revocations, removals, dismissals and lowered clearances count at
// once. A resumption never does: it is noted, and once a bulletin knows two of
// them, earlier suspensions of the same target that reached us but not the
// record end with it. Other kinds change nothing.
func (s *Set) WithStatement(st *statement.Statement, leaf int64) (*Set, error) {
	if st.Signer == nil {
		return s, refuse("a statement that was not verified")
	}
	if !Concerns(st.Body) {
		return s, nil
	}
	if err := s.checkSigner(st); err != nil {
		return s, err
	}
	return s.WithObeyed(st, leaf)
}

// WithObeyed is WithStatement for a statement that was obeyed before and is read
// back from a disk: whether its officer is one still is not asked again, or what
// they ordered would end with their office.
func (s *Set) WithObeyed(st *statement.Statement, leaf int64) (*Set, error) {
	if st.Signer == nil {
		return s, refuse("a statement that was not verified")
	}
	if !Concerns(st.Body) {
		return s, nil
	}
	p := &pending{body: st.Body, digest: statement.BodyDigest(st.Body), signer: st.Signer.Key, time: st.Head.Time, leaf: leaf, raw: st.Raw}
	known := slices.Clone(s.pending)
	at := slices.IndexFunc(known, p.repeats)
	switch {
	case at >= 0 && leaf == Unrecorded:
		return s, nil
	case at >= 0 && known[at].leaf != Unrecorded && known[at].leaf <= leaf:
		return s, nil
	case at >= 0:
		known[at] = p
	case len(known) == maxPending:
		return s, ErrFull
	default:
		known = append(known, p)
	}
	next := *s
	next.pending = known
	if s.bulletin != nil {
		next.pending = settle(known, s.bulletin.LedgerSize)
	}
	return &next, nil
}

// Concerns reports whether statements of this kind bear on standings.
func Concerns(b statement.Body) bool {
	switch b.(type) {
	case *statement.Suspension, *statement.Revocation, *statement.Removal, *statement.Roster, *statement.Dismissal, *statement.Resumption:
		return true
	}
	return false
}

// repeats tells whether another pending statement is the same order. Two
// officers who resume are two, and both count.
func (p *pending) repeats(o *pending) bool {
	_, resumes := p.body.(*statement.Resumption)
	return p.digest == o.digest && (!resumes || p.signer == o.signer)
}

// checkSigner asks whether the officer is one now. Before the first bulletin
// their certificate alone speaks for them.
func (s *Set) checkSigner(st *statement.Statement) error {
	if !statement.May(st.Signer.Role, st.Body) {
		return refuse("%s is %s and may not sign a %s", st.Signer.Address, st.Signer.Role, st.Body.Kind())
	}
	if state := s.Officer(st.Signer.Address, st.Signer.Key, st.Signer.Role); state != Active {
		return refuse("officer %s is %s", st.Signer.Address, state)
	}
	return nil
}

// settle drops what a bulletin made from so many leaves knows. One of two
// resumptions is kept while it waits for the other.
func settle(all []*pending, leaves int64) []*pending {
	known := func(p *pending) bool { return p.leaf != Unrecorded && p.leaf < leaves }
	var left []*pending
	for _, p := range all {
		if !known(p) && !resumed(p, all, known) {
			left = append(left, p)
		}
	}
	open := slices.Clone(left)
	for _, p := range all {
		if known(p) && slices.ContainsFunc(open, p.mayEnd) {
			left = append(left, p)
		}
	}
	return left
}

// mayEnd tells whether p, with a second one, would end a suspension that never
// reached the record.
func (p *pending) mayEnd(o *pending) bool {
	s, ok := o.body.(*statement.Suspension)
	return ok && o.leaf == Unrecorded && ends(p, s, o.time)
}

// resumed tells whether a suspension that never reached the record was ended by
// two officers, in the record.
func resumed(p *pending, all []*pending, known func(*pending) bool) bool {
	s, ok := p.body.(*statement.Suspension)
	if !ok || p.leaf != Unrecorded {
		return false
	}
	return slices.ContainsFunc(all, func(first *pending) bool {
		return ends(first, s, p.time) && known(first) && slices.ContainsFunc(all, func(second *pending) bool {
			return second.digest == first.digest && second.signer != first.signer && ends(second, s, p.time) && known(second)
		})
	})
}

// ends tells whether a resumption is of what was suspended, and later.
func ends(p *pending, s *statement.Suspension, since time.Time) bool {
	r, ok := p.body.(*statement.Resumption)
	return ok && !p.time.Before(since) && r.Target.Kind == s.Target.Kind && r.Target.Device == s.Target.Device &&
		r.Target.Address == s.Target.Address && r.Target.Serial == s.Target.Serial && r.Target.Root == s.Target.Root
}
