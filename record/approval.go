// SPDX-License-Identifier: Apache-2.0

package record

import (
	"fmt"
	"slices"
	"time"

	"valise/identity"
	"valise/ledger"
	"valise/statement"
)

// A grant is what officers said about one template of one request.
type grant struct {
	digest     [32]byte
	approval   statement.Approval
	signatures []Signature
	dead       bool      // refused, revoked or removed since
	used       bool      // a certificate stands on it
	until      time.Time // the end of the newest of them
}

// approve records one officer's approval of a request.
func (s *State) approve(st *statement.Statement, b *statement.Approval, at time.Time) *Finding {
	if leaf, ended := s.refusals[b.Request]; ended {
		return find(Refused, "the request was refused at leaf %d", leaf)
	}
	if b.Role != statement.RoleDevice {
		return find(WrongRole, "officers are appointed, not approved")
	}
	if p, ok := s.profiles[b.Profile]; !ok || p.Version != b.ProfileVersion {
		return find(WrongProfile, "profile %q has another version than %d", b.Profile, b.ProfileVersion)
	}
	if f := s.barred(b.Address, b.Device); f != nil {
		return f
	}
	if f := s.onRoster(b.Address); f != nil {
		return f
	}
	digest := statement.BodyDigest(b)
	old := s.grant(b.Device, digest)
	g := &grant{digest: digest, approval: *b}
	if old != nil {
		*g = *old
	}
	if g.dead {
		return find(Refused, "the approvals of this device were ended")
	}
	if !g.used {
		g.signatures = s.valid(g.signatures, at)
	}
	if bad := notTwice(g.signatures, st.Signer); bad != nil {
		return bad
	}
	g.signatures = with(g.signatures, s.signature(st, at))
	s.replace(old, g)
	return nil
}

func (s *State) grant(id identity.DeviceID, digest [32]byte) *grant {
	for _, g := range s.grants[id] {
		if g.digest == digest {
			return g
		}
	}
	return nil
}

// replace puts a grant in the place of an older state of it, or as a new one.
func (s *State) replace(old, now *grant) {
	exchange := func(list []*grant) []*grant {
		if old == nil {
			return with(list, now)
		}
		list = slices.Clone(list)
		list[slices.Index(list, old)] = now
		return list
	}
	id, request := now.approval.Device, now.approval.Request
	put(s, s.grants, id, exchange(s.grants[id]))
	put(s, s.requests, request, exchange(s.requests[request]))
}

// refuse ends a request: its approvals carry nothing any more.
func (s *State) refuse(b *statement.Refusal) *Finding {
	if leaf, ended := s.refusals[b.Request]; ended {
		return find(Replayed, "the request was refused at leaf %d", leaf)
	}
	put(s, s.refusals, b.Request, s.Size())
	s.kill(s.requests[b.Request])
	return nil
}

func (s *State) kill(all []*grant) {
	for _, g := range all {
		if !g.dead {
			dead := *g
			dead.dead = true
			s.replace(g, &dead)
		}
	}
}

func (s *State) killDevice(id identity.DeviceID) { s.kill(s.grants[id]) }

func (s *State) killPerson(a identity.Address) {
	for id, all := range s.grants {
		for _, g := range all {
			if g.approval.Address == a {
				s.killDevice(id)
				break
			}
		}
	}
}

// A MissingError says that officers must approve first.
type MissingError struct {
	Have, Need int
	Why        Why
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("record: %d of %d approvals: %s", e.Have, e.Need, e.Why.Text())
}

// Why says what new approvals are needed for.
type Why string

// The reasons for which a request needs approvals.
const (
	First   Why = "first_enrollment"
	Raised  Why = "clearance_raised"
	Changed Why = "template_changed" // another person, profile or tier, or a longer validity
	Lapsed  Why = "renewal_too_late" // the last certificate ended longer ago than the profile's grace
	Ended   Why = "approvals_ended"  // by a refusal, a revocation or a removal
)

var whyText = map[Why]string{
	First:   "a first enrollment waits until officers have approved it",
	Raised:  "the clearance is higher than the one that was approved: officers must approve again",
	Changed: "more than what was approved is asked for: officers must approve again",
	Lapsed:  "the last certificate ended too long ago to be renewed by itself: officers must approve the device again",
	Ended:   "the earlier approvals were ended: officers must approve again",
}

// Text says it to the person who waits.
func (w Why) Text() string { return whyText[w] }

// Grounds returns the leaves of the approvals that carry a certificate of a template
// at a time: those of exactly this template and request, or, for a renewal, those
// under which the device has had certificates. A *MissingError says that officers
// must approve first; a *Finding, that it must not be issued at all.
func (s *State) Grounds(a statement.Approval, at time.Time) ([]int64, error) {
	signatures, err := s.Carriers(a, at)
	var leaves []int64
	for _, sig := range signatures {
		leaves = append(leaves, sig.Leaf)
	}
	return leaves, err
}

// Carriers is Grounds with all that is known of the signatures.
func (s *State) Carriers(a statement.Approval, at time.Time) ([]Signature, error) {
	if f := s.permits(a.Template); f != nil {
		return nil, f
	}
	if _, ended := s.refusals[a.Request]; ended {
		return nil, find(Refused, "an officer refused the request")
	}
	digest := statement.BodyDigest(&a)
	g, err := s.carry(a.Template, at, func(g *grant) bool { return g.digest == digest })
	if err != nil {
		return nil, err
	}
	return g.signatures, nil
}

// Recheck verifies the bytes of a recorded approval once more: for whoever is about
// to sign on its strength and has them from a database that others may write. They
// must be those that were recorded, by that officer, and carry this certificate. The
// error is a *Finding.
func (s *State) Recheck(a statement.Approval, sig Signature, i ledger.Item) error {
	switch {
	case i.Index != sig.Leaf || i.Entry == nil || i.Entry.Subject != sig.Subject || !i.Entry.Time.Equal(sig.Time):
		return &Finding{sig.Leaf, Rewritten, "the database holds another leaf than the one that was recorded"}
	case !i.Entry.Records(i.Payload):
		return &Finding{sig.Leaf, WrongPayload, "the database holds another payload than the one that was recorded"}
	}
	st, err := statement.Verify(i.Payload, s.trust, s.rootHash, i.Entry.Time)
	if err != nil {
		f := s.refused(i.Payload, err)
		f.Index = sig.Leaf
		return f
	}
	b, ok := st.Body.(*statement.Approval)
	if !ok || st.Signer.Address != sig.Officer || st.Signer.Key != sig.Key {
		return &Finding{sig.Leaf, NoApproval, "it is not that officer's approval"}
	}
	if statement.BodyDigest(b) != statement.BodyDigest(&a) && !b.Covers(a.Template) {
		return &Finding{sig.Leaf, NoApproval, "it approves something else"}
	}
	return nil
}

// permits looks for anything in the record that speaks against a certificate.
func (s *State) permits(t statement.Template) *Finding {
	if f := s.barred(t.Address, t.Device); f != nil {
		return f
	}
	if f := s.onRoster(t.Address); f != nil {
		return f
	}
	if p := s.people[t.Address]; !p.Clearance.Covers(t.Clearance) {
		return find(RaisedClearance, "%s is cleared for %s, the certificate says %s", t.Address, orNone(p.Clearance), orNone(t.Clearance))
	}
	if k, ok := s.keys[t.Device]; ok && (k.Kind != KindDevice || k.Address != t.Address) {
		return find(DeviceTaken, "the key is %s's", k.Address)
	}
	if owner, ok := s.officerKeys[t.Device]; ok {
		return find(DeviceTaken, "the key is what %s signs with as an officer", owner)
	}
	if p, ok := s.profiles[t.Profile]; !ok {
		return find(WrongProfile, "there is no profile %q", t.Profile)
	} else if !p.Takes(t.Tier) {
		return find(WrongTier, "profile %q takes no keys of tier %s", t.Profile, t.Tier)
	} else if t.Validity > p.Validity {
		return find(WrongValidity, "profile %q allows %v, the certificate is for %v", t.Profile, p.Validity, t.Validity)
	}
	return nil
}

func orNone(c *identity.Clearance) string {
	if c == nil {
		return "nothing"
	}
	return c.Text()
}

// carry finds the grant that a certificate stands on. exact tells which grants are
// of this very template; a renewal's is one that covers it.
func (s *State) carry(t statement.Template, at time.Time, exact func(*grant) bool) (*grant, error) {
	p := s.profiles[t.Profile]
	missing := &MissingError{Need: p.Approvals, Why: First}
	for _, g := range slices.Backward(s.grants[t.Device]) {
		if g.dead {
			missing.why(Ended)
			continue
		}
		if exact(g) && !g.used {
			fresh := s.valid(g.signatures, at)
			if len(fresh) >= p.Approvals {
				chosen := *g
				chosen.signatures = fresh
				return &chosen, nil
			}
			missing.Have = max(missing.Have, len(fresh))
			continue
		}
		if !g.used {
			continue
		}
		switch {
		case !g.approval.Covers(t):
			missing.why(s.difference(g, t))
		case at.After(g.until.Add(p.Grace)):
			missing.why(Lapsed)
		case len(g.signatures) < p.Approvals:
			missing.why(Changed) // the profile asks for more officers than it did
		default:
			return g, nil
		}
	}
	return nil, missing
}

// why keeps the first reason: that of the newest grant.
func (e *MissingError) why(w Why) {
	if e.Why == First {
		e.Why = w
	}
}

func (s *State) difference(g *grant, t statement.Template) Why {
	lower := t
	lower.Clearance = nil
	if g.approval.Covers(lower) {
		return Raised
	}
	return Changed
}

// stand notes that a certificate stands on a grant.
func (s *State) stand(g *grant, until time.Time) {
	old := s.grant(g.approval.Device, g.digest)
	now := *old
	now.used, now.signatures = true, g.signatures
	if until.After(now.until) {
		now.until = until
	}
	s.replace(old, &now)
}
