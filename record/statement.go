// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"time"

	"valise/identity"
	"valise/ledger"
	"valise/statement"
)

// state applies a statement, after everything that holds for all of them.
func (s *State) state(i ledger.Item, at time.Time) *Finding {
	if s.founding == nil || s.Lone() {
		return find(NoFounding, "a statement, where no founding record names officers")
	}
	st, err := s.verify(i.Payload, at)
	if err != nil {
		return err
	}
	if first, ok := s.seen[st.Head.ID]; ok {
		return find(Replayed, "leaf %d holds the statement of the same id", first)
	}
	put(s, s.seen, st.Head.ID, s.Size())
	return s.act(st, at)
}

// verify checks a statement's bytes as of a time, and its officer as of here.
func (s *State) verify(raw []byte, at time.Time) (*statement.Statement, *Finding) {
	st, err := statement.Verify(raw, s.trust, s.rootHash, at)
	if err != nil {
		return nil, s.refused(raw, err)
	}
	if st.Body.Kind() == statement.KindSession {
		return nil, find(BadStatement, "a session is never recorded")
	}
	if f := s.inOffice(st.Signer.Address, st.Signer.Key, st.Signer.Role); f != nil {
		return nil, f
	}
	return st, nil
}

// Check verifies a statement that arrives at a time without applying it: what Apply
// would say of its bytes and its officer. The error is a *Finding.
func (s *State) Check(raw []byte, at time.Time) (*statement.Statement, error) {
	if s.founding == nil || s.Lone() {
		return nil, find(NoFounding, "there are no officers here")
	}
	st, err := statement.Verify(raw, s.trust, s.rootHash, at)
	if err != nil {
		return nil, s.refused(raw, err)
	}
	if f := s.inOffice(st.Signer.Address, st.Signer.Key, st.Signer.Role); f != nil {
		return nil, f
	}
	return st, nil
}

func (s *State) inOffice(a identity.Address, key identity.DeviceID, role identity.Role) *Finding {
	o, ok := s.officers[a]
	switch {
	case !ok || o.Key != key || o.Role != role:
		return find(NotInStanding, "%s holds no office as %s with the key %s", a, role, key)
	case !o.Dismissed.IsZero():
		return find(NotInStanding, "%s was dismissed", a)
	}
	return s.notOut(a, key)
}

// notOut looks for anything that keeps an officer from acting: a suspension of the
// officer, of the person, of the key or its card, or that they left the roster. Whoever
// takes a person out has no two things to think of. An officer need not be on it.
func (s *State) notOut(a identity.Address, key identity.DeviceID) *Finding {
	if c, ok := s.causes[cause{statement.TargetOfficer, a.String()}]; ok {
		return find(NotInStanding, "%s is %s as an officer", a, c.State)
	}
	for _, c := range s.concerns(a, key) {
		return find(NotInStanding, "%s is %s as a %s", a, c.State, c.Target.Kind)
	}
	if p, ok := s.people[a]; ok && p.Removed {
		return find(NotInStanding, "%s was removed from the roster", a)
	}
	return nil
}

// refused turns package statement's reasons into ours.
func (s *State) refused(raw []byte, err error) *Finding {
	reason := BadStatement
	switch statement.ReasonOf(err) {
	case statement.ReasonSignature, statement.ReasonAlgorithm:
		reason = BadSignature
	case statement.ReasonAuthority:
		reason = WrongAuthority
	case statement.ReasonEarly, statement.ReasonExpired:
		reason = StatementExpired
	case statement.ReasonRole:
		reason = WrongRole
	case statement.ReasonSelf:
		reason = OwnMatter
		if st, parseErr := statement.Parse(raw); parseErr == nil && st.Body.Kind() == statement.KindApproval {
			reason = OwnEnrollment
		}
	case statement.ReasonSigner:
		reason = BadChain
		if chain, ok := errors.AsType[*identity.ChainError](err); ok &&
			(chain.Reason == identity.ReasonExpired || chain.Reason == identity.ReasonNotYetValid) {
			reason = OfficerExpired
		}
	}
	return find(reason, "%v", err)
}

// act does what a verified statement says.
func (s *State) act(st *statement.Statement, at time.Time) *Finding {
	if self := statement.Concerns(st.Body); statement.Gives(st.Body.Kind()) && self == st.Signer.Address {
		return find(OwnMatter, "%s signed a statement in their own favour", self)
	}
	switch b := st.Body.(type) {
	case *statement.Approval:
		return s.approve(st, b, at)
	case *statement.Refusal:
		return s.refuse(b)
	case *statement.Suspension:
		return s.suspend(st, &b.Target, b.Reason, at)
	case *statement.Revocation:
		return s.revoke(st, &b.Target, b.Reason, at)
	case *statement.Invitation:
		return s.invite(st, b, at)
	case *statement.Removal:
		return s.alone(s.checkRemoval(b), func(digest [32]byte) { s.remove(b, digest, at) }, b)
	case *statement.Dismissal:
		return s.alone(s.checkDismissal(b), func(digest [32]byte) { s.dismiss(b, digest, at) }, b)
	}
	return s.vote(st, at)
}

func (s *State) alone(bad *Finding, apply func([32]byte), b statement.Body) *Finding {
	if bad == nil {
		apply(statement.BodyDigest(b))
	}
	return bad
}
