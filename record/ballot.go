// SPDX-License-Identifier: Apache-2.0

package record

import (
	"crypto/sha256"
	"slices"
	"time"

	"valise/identity"
	"valise/statement"
)

// A Signature is one officer's on something that several must sign.
type Signature struct {
	Officer identity.Address
	Key     identity.DeviceID
	Leaf    int64
	Subject [32]byte // SHA-256 of the statement
	Time    time.Time
	Expires time.Time // of the statement: it counts towards a decision until then
}

// A Ballot is a change that takes two officers and has one, or that was decided.
type Ballot struct {
	Digest     [32]byte // statement.BodyDigest of Body
	Body       statement.Body
	Needs      int
	Signatures []Signature
	Decided    int64 // the leaf at which it came into force; -1: it waits
}

// Expires returns when the first of the signatures loses its force.
func (b *Ballot) Expires() (first time.Time) {
	for _, sig := range b.Signatures {
		if first.IsZero() || sig.Expires.Before(first) {
			first = sig.Expires
		}
	}
	return first
}

// vote counts a signature on a change, and makes the change when it is the last
// that was missing.
func (s *State) vote(st *statement.Statement, at time.Time) *Finding {
	digest := statement.BodyDigest(st.Body)
	old := s.ballots[digest]
	if old != nil && old.Decided >= 0 {
		return find(Replayed, "this was decided at leaf %d", old.Decided)
	}
	if bad := s.checkChange(st); bad != nil {
		return bad
	}
	if bad := s.checkKnown(st); bad != nil {
		return bad
	}
	b := &Ballot{Digest: digest, Body: st.Body, Needs: s.needs(st.Body), Decided: -1}
	if old != nil {
		b.Signatures = s.counting(old, at)
	}
	if bad := notTwice(b.Signatures, st.Signer); bad != nil {
		return bad
	}
	b.Signatures = with(b.Signatures, s.signature(st, at))
	if len(b.Signatures) >= b.Needs {
		b.Decided = s.Size()
		if bad := s.change(b.Body, digest, at); bad != nil {
			return bad
		}
	}
	put(s, s.ballots, digest, b)
	return nil
}

func (s *State) signature(st *statement.Statement, at time.Time) Signature {
	return Signature{st.Signer.Address, st.Signer.Key, s.Size(), sha256.Sum256(st.Raw), at, st.Head.Expires}
}

// valid returns those signatures that still count: in time, and of officers who
// are in office.
func (s *State) valid(all []Signature, at time.Time) []Signature {
	return slices.DeleteFunc(slices.Clone(all), func(sig Signature) bool {
		return !at.Before(sig.Expires) || !s.holdsOffice(sig)
	})
}

// counting returns those signatures of a ballot that still count. A resumption's count
// for the suspension after which they were recorded, and for no later one.
func (s *State) counting(b *Ballot, at time.Time) []Signature {
	all := s.valid(b.Signatures, at)
	if r, ok := b.Body.(*statement.Resumption); ok {
		since := s.causes[causeOf(&r.Target)].Leaf
		all = slices.DeleteFunc(all, func(sig Signature) bool { return sig.Leaf < since })
	}
	return all
}

func (s *State) holdsOffice(sig Signature) bool {
	o, ok := s.officers[sig.Officer]
	return ok && s.inOffice(sig.Officer, sig.Key, o.Role) == nil
}

func notTwice(all []Signature, by *identity.Officer) *Finding {
	for _, sig := range all {
		if sig.Officer == by.Address || sig.Key == by.Key {
			return find(SameOfficerTwice, "%s signed this already, at leaf %d", sig.Officer, sig.Leaf)
		}
	}
	return nil
}

// needs is how many must sign a change.
func (s *State) needs(b statement.Body) int {
	raises := false
	if r, ok := b.(*statement.Roster); ok {
		raises = s.Raises(r)
	}
	return statement.Needs(b.Kind(), raises)
}

// checkChange checks what a change would put into force, before it is.
func (s *State) checkChange(st *statement.Statement) *Finding {
	switch b := st.Body.(type) {
	case *statement.Resumption:
		return s.checkResumption(st, b)
	case *statement.Roster:
		return s.checkRoster(b)
	case *statement.Endorsements:
		return s.checkEndorsements(b)
	case *statement.Appraisal:
		return s.checkAppraisal(b)
	case *statement.Profile:
		return s.checkProfile(b)
	case *statement.Appointment:
		return s.checkAppointment(b)
	case *statement.Bundle:
		return s.checkBundle(b)
	}
	return find(BadRecord, "a %s means nothing in the record", st.Body.Kind())
}

func (s *State) change(b statement.Body, digest [32]byte, at time.Time) *Finding {
	switch b := b.(type) {
	case *statement.Resumption:
		s.resume(&b.Target)
	case *statement.Roster:
		s.setRoster(b, digest, at)
	case *statement.Endorsements:
		s.setEndorsements(b, digest)
	case *statement.Appraisal:
		s.setAppraisal(b, digest)
	case *statement.Profile:
		s.setProfile(b, digest)
	case *statement.Appointment:
		s.appoint(b, digest, at)
	case *statement.Bundle:
		s.setBundle(b, digest)
	default:
		return find(BadRecord, "a %s means nothing in the record", b.Kind())
	}
	return nil
}
