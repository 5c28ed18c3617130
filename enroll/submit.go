// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"log/slog"
	"time"

	"valise/enroll/book"
	"valise/enroll/desk"
	"valise/enroll/desk/call"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/record"
	"valise/statement"
)

// Submit implements desk.Backend: it takes a statement into the record, and does what
// follows from it. One officer's suspension is in force when Submit returns, whether
// any token is there or not.
func (a *Authority) Submit(ctx context.Context, raw []byte) (call.Outcome, error) {
	st, err := a.check(ctx, raw)
	if err != nil {
		return call.Outcome{}, a.refused(err)
	}
	var out call.Outcome
	err = a.book().Update(ctx, func(tx *authority.Tx, s *record.State, add book.Append) error {
		if leaf, known := s.Seen(st.Head.ID); known {
			out = a.outcome(s, st, leaf)
			return sameStatement(tx, leaf, raw)
		}
		leaf, err := add(ledger.KindStatement, raw)
		if err != nil {
			return err
		}
		out = a.outcome(s, st, leaf)
		return a.copy(tx, s, st, &out)
	})
	if err != nil {
		return call.Outcome{}, a.refused(a.forward(ctx, st, a.damaged(ctx, err)))
	}
	err = a.cfg.Event(ctx, "statement recorded", slog.String("kind", string(st.Body.Kind())), slog.String("officer", st.Signer.Address.String()),
		slog.Int64("leaf", out.Index), slog.String("state", out.State), slog.Int("have", out.Have), slog.Int("need", out.Need))
	if err != nil {
		return out, err
	}
	a.follow(ctx, st, out)
	return out, nil
}

// check verifies a statement as of now, and that it fits what the authority would do:
// an approval must be of exactly what would be issued, an appointment of a key whose
// evidence was accepted.
func (a *Authority) check(ctx context.Context, raw []byte) (st *statement.Statement, err error) {
	a.book().View(func(s *record.State) { st, err = s.Check(raw, a.cfg.Now()) })
	if err != nil {
		return nil, err
	}
	switch b := st.Body.(type) {
	case *statement.Session:
		return nil, desk.Refuse(call.ReasonMalformed, "a session decides nothing")
	case *statement.Approval:
		err = a.checkApproval(ctx, b)
	case *statement.Appointment:
		err = a.checkAppointment(ctx, b)
	}
	return st, err
}

func (a *Authority) checkApproval(ctx context.Context, b *statement.Approval) error {
	p, err := a.cfg.CA.Propose(ctx, b.Request)
	if errors.Is(err, authority.ErrNotFound) {
		return desk.Refuse(call.ReasonNotFound, "there is no such request")
	}
	if err != nil {
		return a.impossible(err)
	}
	if statement.BodyDigest(&p.Approval) != statement.BodyDigest(b) {
		return desk.Refuse(call.ReasonConflict, "this is not what would be issued for the request: look at it again")
	}
	return nil
}

// refused turns what the record finds into what the desk answers.
func (a *Authority) refused(err error) error {
	if f, ok := errors.AsType[*record.Finding](err); ok && !errors.Is(err, book.ErrDamaged) {
		return desk.Refuse(string(f.Reason), f.Detail)
	}
	return err
}

// sameStatement refuses other bytes under an id that is known.
func sameStatement(tx *authority.Tx, leaf int64, raw []byte) error {
	entry, err := tx.LedgerEntry(leaf)
	if err == nil && entry.Subject != sha256.Sum256(raw) {
		err = desk.Refuse(string(record.Replayed), "another statement has this id")
	}
	return err
}

// outcome says what became of a statement.
func (a *Authority) outcome(s *record.State, st *statement.Statement, leaf int64) call.Outcome {
	out := call.Outcome{State: call.OutcomeRecorded, Have: 1, Need: 1, Index: leaf}
	if b, ok := st.Body.(*statement.Approval); ok {
		out.Have, out.Need = len(s.Approvals(b.Request, &b.Template)), a.needs(s, b.Profile)
	} else if b, ok := s.Ballot(statement.BodyDigest(st.Body)); ok {
		out.Have, out.Need = len(b.Signatures), b.Needs
	}
	if out.Have < out.Need {
		out.State = call.OutcomeWaiting
	}
	return out
}

func (a *Authority) needs(s *record.State, profile string) int {
	p, _ := s.Profile(profile)
	return max(p.Approvals, a.cfg.CA.Device().Approvals)
}

// copy brings the rows that others read into line with the record.
func (a *Authority) copy(tx *authority.Tx, s *record.State, st *statement.Statement, out *call.Outcome) error {
	switch b := st.Body.(type) {
	case *statement.Roster:
		return copyPerson(tx, s, b.Address)
	case *statement.Removal:
		return copyPerson(tx, s, b.Address)
	case *statement.Invitation:
		return a.handOut(tx, b, st, out)
	case *statement.Refusal:
		return endOrder(tx, b.Request)
	}
	return nil
}

func copyPerson(tx *authority.Tx, s *record.State, address identity.Address) error {
	p, ok := s.Person(address)
	if !ok || p.Removed {
		if err := tx.RemovePerson(address); !errors.Is(err, authority.ErrNotFound) {
			return err
		}
		return nil
	}
	_, err := tx.PutPerson(authority.Person{Address: p.Address, Name: p.Name, Unit: p.Unit, Clearance: p.Clearance, Changed: p.Changed})
	return err
}

// handOut makes the key of an invitation. It is shown once, to the officer.
func (a *Authority) handOut(tx *authority.Tx, b *statement.Invitation, st *statement.Statement, out *call.Outcome) error {
	now := a.cfg.Now().UTC().Truncate(time.Second)
	inv := identity.Invitation{
		URL: a.cfg.URL, KID: b.Key, Key: make([]byte, 32), Root: sha256.Sum256(a.cfg.CA.Root().Raw),
		Address: b.Address, Expires: now.Add(InvitationLife),
	}
	rand.Read(inv.Key)
	code, err := inv.Code()
	if err != nil {
		return desk.Refuse(call.ReasonMalformed, err.Error())
	}
	out.Invitation = code
	return tx.AddInvitation(authority.Invitation{
		KID: inv.KID, Key: inv.Key, Address: b.Address, Created: now, Expires: inv.Expires, Statement: st.Raw,
	})
}

// endOrder ends a request that was refused, in whatever state it is.
func endOrder(tx *authority.Tx, id string) error {
	for _, state := range []string{authority.Pending, authority.Ready, authority.Processing} {
		if err := tx.MoveOrder(id, state, authority.Invalid, string(record.Refused)); !errors.Is(err, authority.ErrState) {
			return err
		}
	}
	return nil
}

// follow does what needs a token, or takes longer, after a statement is recorded. If
// it fails, Work tries again.
func (a *Authority) follow(ctx context.Context, st *statement.Statement, out call.Outcome) {
	if out.State != call.OutcomeRecorded {
		return
	}
	var err error
	switch b := st.Body.(type) {
	case *statement.Approval:
		err = a.issue(ctx, b.Request)
	case *statement.Appointment:
		err = a.equip(ctx, b.Address)
	}
	if err != nil {
		a.cfg.Log.Error("what follows from a statement waits", "kind", string(st.Body.Kind()), "error", err.Error())
	}
}
