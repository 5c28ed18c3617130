// SPDX-License-Identifier: Apache-2.0

package office

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"valise/enroll/ceremony"
	"valise/enroll/desk"
	"valise/enroll/desk/call"
	"valise/identity"
	"valise/ledger"
	"valise/statement"
)

// A proposal waits for other officers.
type proposal struct {
	body   statement.Body
	digest [32]byte
	signed []call.Signed
	need   int
	until  time.Time
}

// NewNonce implements desk.Backend.
func (o *Office) NewNonce() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	nonce := rand.Text()
	o.nonces[nonce] = false
	return nonce
}

// CheckNonce implements desk.Backend; like the real one it does not know which were
// used.
func (o *Office) CheckNonce(nonce string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.nonces[nonce]; !known {
		return desk.ErrNonce
	}
	return nil
}

// UseNonce implements desk.Backend.
func (o *Office) UseNonce(_ context.Context, nonce string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if used, known := o.nonces[nonce]; !known || used {
		return desk.ErrNonce
	}
	o.nonces[nonce] = true
	return nil
}

// Officer implements desk.Backend.
func (o *Office) Officer(_ context.Context, key identity.DeviceID) (call.Officer, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	officer := o.officers[key]
	if officer == nil || officer.State != "active" {
		return call.Officer{}, desk.Refuse(call.ReasonNotOfficer, "nobody in good standing has this key")
	}
	return *officer, nil
}

// Requests implements desk.Backend.
func (o *Office) Requests(_ context.Context, limit int) (list []call.Request, _ error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range o.order {
		if r := *o.requests[id]; r.State == call.StateWaiting && len(list) < limit {
			r.Approval, r.Evidence = nil, nil
			list = append(list, r)
		}
	}
	return list, nil
}

// Request implements desk.Backend.
func (o *Office) Request(_ context.Context, id string) (call.Request, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.requests[id] == nil {
		return call.Request{}, desk.Refuse(call.ReasonNotFound, "no such request")
	}
	r := *o.requests[id]
	r.Person = o.people[r.Address]
	return r, nil
}

// Roster implements desk.Backend.
func (o *Office) Roster(_ context.Context, after string, limit int) (list []call.Person, _ error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range slices.SortedFunc(maps.Keys(o.people), func(a, b identity.Address) int { return strings.Compare(a.String(), b.String()) }) {
		if a.String() > after && len(list) < limit {
			list = append(list, *o.people[a])
		}
	}
	return list, nil
}

func (o *Office) person(a identity.Address) call.Person {
	if p := o.people[a]; p != nil {
		return *p
	}
	return call.Person{Address: a, State: "unknown"}
}

// Devices implements desk.Backend.
func (o *Office) Devices(_ context.Context, t statement.Target) (list []identity.DeviceID, _ error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.requests {
		if t.Kind == statement.TargetPerson && r.Address == t.Address && r.State == call.StateIssued {
			list = append(list, r.Device)
		}
	}
	slices.SortFunc(list, identity.DeviceID.Compare)
	return list, nil
}

// Nonce implements desk.Backend.
func (o *Office) Nonce(context.Context) (string, error) { return o.NewNonce(), nil }

// Application implements desk.Backend.
func (o *Office) Application(_ context.Context, file []byte) (call.Application, error) {
	a, err := ceremony.ParseApplication(file)
	if err != nil {
		return call.Application{}, desk.Refuse(call.ReasonMalformed, err.Error())
	}
	s, err := call.NewSignable(&statement.Appointment{
		Change: statement.NewID(), Address: a.Address, Role: a.Role, Key: a.Key, Evidence: [32]byte{5}, Appraisal: [32]byte{6},
	})
	return call.Application{Appointment: s, Evidence: call.Evidence{Format: "yubico-piv"}}, err
}

// Rules implements desk.Backend.
func (o *Office) Rules(context.Context) (call.Rules, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := call.Rules{Appraisal: `{"version":1}`}
	if b := o.bundle; b != nil {
		out.Bundle, out.BundleVersion, out.BundlePrevious = fmt.Sprintf("%x", b.Hash), b.Version, fmt.Sprintf("%x", statement.BodyDigest(b))
	}
	return out, nil
}

// Profiles implements desk.Backend.
func (o *Office) Profiles(context.Context) ([]call.Profile, error) {
	return []call.Profile{{Name: "device", Version: 1, Approvals: 2, Validity: 604800, Grace: 2592000, Tiers: []identity.Tier{identity.TierHardware}}}, nil
}

// Gateways implements desk.Backend.
func (o *Office) Gateways(context.Context) ([]call.Gateway, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.gateways), nil
}

// Officers implements desk.Backend.
func (o *Office) Officers(context.Context) (list []call.Officer, _ error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, officer := range o.officers {
		list = append(list, *officer)
	}
	slices.SortFunc(list, func(a, b call.Officer) int { return strings.Compare(a.Address.String(), b.Address.String()) })
	return list, nil
}

// Proposals implements desk.Backend.
func (o *Office) Proposals(_ context.Context, limit int) (list []call.Proposal, _ error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.proposals {
		if len(p.signed) >= p.need || p.body.Kind() == statement.KindApproval || len(list) == limit {
			continue
		}
		s, err := call.NewSignable(p.body)
		if err != nil {
			return nil, err
		}
		list = append(list, call.Proposal{Signable: s, Signed: p.signed, Needs: p.need, Expires: p.until})
	}
	return list, nil
}

// Standings implements desk.Backend.
func (o *Office) Standings(context.Context, int) ([]call.Standing, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.standings), nil
}

// Items implements desk.Backend.
func (o *Office) Items(_ context.Context, from int64, limit int) (call.Items, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	items := call.Items{Checkpoint: fmt.Sprintf("%s/valise\n%d\n", Domain, len(o.leaves))}
	for i := from; i < int64(len(o.leaves)) && len(items.Items) < limit; i++ {
		items.Items = append(items.Items, call.Item{Index: i, Entry: o.leaves[i].Entry.Marshal(), Payload: o.leaves[i].Payload})
	}
	return items, nil
}

// Submit implements desk.Backend.
func (o *Office) Submit(_ context.Context, raw []byte) (call.Outcome, error) {
	now := o.Now()
	s, err := statement.Verify(raw, o.Trust, o.RootHash, now)
	if err != nil {
		return call.Outcome{}, err
	}
	if s.Body.Kind() == statement.KindSession {
		return call.Outcome{}, desk.Refuse(call.ReasonMalformed, "a session decides nothing")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if outcome, ok := o.seen[s.Head.ID]; ok {
		return outcome, nil
	}
	outcome, err := o.record(s, now)
	if err == nil {
		o.seen[s.Head.ID] = outcome
	}
	return outcome, err
}

func (o *Office) record(s *statement.Statement, now time.Time) (call.Outcome, error) {
	p, err := o.propose(s)
	if err != nil {
		return call.Outcome{}, err
	}
	entry, err := ledger.NewEntry(ledger.KindStatement, s.Raw, now)
	if err != nil {
		return call.Outcome{}, err
	}
	o.leaves = append(o.leaves, ledger.Item{Index: int64(len(o.leaves)), Entry: entry, Payload: s.Raw})
	p.signed = append(p.signed, call.Signed{Address: s.Signer.Address, Key: s.Signer.Key, Time: now.UTC().Truncate(time.Second)})
	outcome := call.Outcome{State: call.OutcomeWaiting, Have: len(p.signed), Need: p.need, Index: int64(len(o.leaves) - 1)}
	if r, ok := s.Body.(*statement.Approval); ok {
		o.requests[r.Request].Approvals = p.signed
	}
	if len(p.signed) >= p.need {
		outcome.State = call.OutcomeRecorded
		o.apply(s, &outcome, now)
	}
	return outcome, nil
}

// propose finds what the statement is a signature on.
func (o *Office) propose(s *statement.Statement) (*proposal, error) {
	if err := o.allows(s.Body); err != nil {
		return nil, err
	}
	digest := statement.BodyDigest(s.Body)
	for _, p := range o.proposals {
		if p.digest != digest {
			continue
		}
		if slices.ContainsFunc(p.signed, func(by call.Signed) bool { return by.Address == s.Signer.Address || by.Key == s.Signer.Key }) {
			return nil, desk.Refuse("already_signed", s.Signer.Address.String()+" has signed this")
		}
		return p, nil
	}
	p := &proposal{body: s.Body, digest: digest, need: statement.Needs(s.Body.Kind(), true), until: s.Head.Expires}
	o.proposals = append(o.proposals, p)
	return p, nil
}

// allows refuses what is about something else than the office knows.
func (o *Office) allows(b statement.Body) error {
	switch b := b.(type) {
	case *statement.Approval:
		r := o.requests[b.Request]
		if r == nil || r.Approval.Digest != fmt.Sprintf("%x", statement.BodyDigest(b)) {
			return desk.Refuse(call.ReasonConflict, "the approval is not of what was asked for")
		}
	case *statement.Refusal:
		if r := o.requests[b.Request]; r == nil || r.State != call.StateWaiting {
			return desk.Refuse(call.ReasonNotFound, "no such request waits")
		}
	case *statement.Bundle:
		if now := o.bundle; now != nil && (b.Version <= now.Version || b.Previous != statement.BodyDigest(now)) {
			return desk.Refuse(call.ReasonConflict, "another bundle is in force")
		}
	case *statement.Roster:
		if fmt.Sprintf("%x", b.Previous) != orZero(o.person(b.Address).Previous) {
			return desk.Refuse(call.ReasonConflict, "the roster has changed")
		}
	}
	return nil
}

// apply puts a decision into force, as far as officers' programs see it.
func (o *Office) apply(s *statement.Statement, outcome *call.Outcome, now time.Time) {
	switch b := s.Body.(type) {
	case *statement.Approval:
		o.requests[b.Request].State = call.StateIssued
	case *statement.Bundle:
		o.bundle = b
	case *statement.Refusal:
		o.requests[b.Request].State, o.requests[b.Request].Refusal = call.StateRefused, b.Reason
	case *statement.Suspension:
		o.stand(&b.Target, "suspended", b.Reason, s, now)
	case *statement.Revocation:
		o.stand(&b.Target, "revoked", b.Reason, s, now)
	case *statement.Resumption:
		o.standings = slices.DeleteFunc(o.standings, func(st call.Standing) bool { return st.Name == name(&b.Target) && st.State == "suspended" })
	case *statement.Invitation:
		outcome.Invitation = "valise1:" + rand.Text()
	case *statement.Roster:
		p := &call.Person{Address: b.Address, Name: b.Name, Unit: b.Unit, State: "active", Previous: fmt.Sprintf("%x", statement.BodyDigest(b))}
		if b.Clearance != nil {
			p.Clearance, _ = b.Clearance.Marshal()
		}
		o.people[b.Address] = p
	case *statement.Removal:
		o.people[b.Address] = &call.Person{Address: b.Address, State: "removed", Previous: fmt.Sprintf("%x", statement.BodyDigest(b))}
	case *statement.Dismissal:
		for _, officer := range o.officers {
			if officer.Address == b.Address {
				officer.State = "dismissed"
			}
		}
	}
}

func (o *Office) stand(t *statement.Target, state, reason string, s *statement.Statement, now time.Time) {
	o.standings = append(o.standings, call.Standing{Kind: t.Kind, Name: name(t), State: state, Since: now, Reason: reason, By: s.Signer.Address, Devices: t.Devices})
}

func name(t *statement.Target) string {
	switch t.Kind {
	case statement.TargetDevice:
		return t.Device.String()
	case statement.TargetSerial:
		return t.Serial
	case statement.TargetRoot:
		return identity.DeviceID(t.Root).String()
	}
	return t.Address.String()
}

func orZero(digest string) string {
	if digest == "" {
		return strings.Repeat("0", 64)
	}
	return digest
}

// Person implements desk.Backend.
func (o *Office) Person(_ context.Context, a identity.Address) (call.Person, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.person(a)
	for _, r := range o.requests {
		if r.Address == a && r.State == call.StateIssued {
			p.Devices = append(p.Devices, call.Device{ID: r.Device, Address: a, State: "active", Tier: identity.TierHardware, Expires: r.Expires})
		}
	}
	return p, nil
}
