// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"valise/attest"
	"valise/enroll/book"
	"valise/enroll/ca"
	"valise/enroll/desk"
	"valise/enroll/desk/call"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/record"
)

// Requests implements desk.Backend.
func (a *Authority) Requests(ctx context.Context, limit int) ([]call.Request, error) {
	all := []call.Request{}
	if !a.officers() {
		return all, nil
	}
	waiting, accounts, err := a.waiting(ctx, limit)
	if err != nil {
		return nil, err
	}
	a.book().View(func(s *record.State) {
		for i, o := range waiting {
			r := call.Request{
				ID: o.ID, State: call.StateWaiting, Created: o.Created, Expires: o.Created.Add(orderLife),
				Address: accounts[i].Address, Device: o.Device, Needs: a.needs(s, o.Profile),
				Approvals: signed(s.Approvals(o.ID, nil)),
			}
			all = append(all, r)
		}
	})
	return all, nil
}

func (a *Authority) waiting(ctx context.Context, limit int) (orders []authority.Order, accounts []authority.Account, err error) {
	err = a.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		accounts = nil
		if orders, err = tx.Orders(authority.Processing, limit); err != nil {
			return err
		}
		for _, o := range orders {
			account, err := tx.Account(o.Account)
			if err != nil {
				return err
			}
			accounts = append(accounts, account)
		}
		return nil
	})
	return orders, accounts, err
}

func signed(all []record.Signature) []call.Signed {
	out := []call.Signed{}
	for _, sig := range all {
		out = append(out, call.Signed{Address: sig.Officer, Key: sig.Key, Time: sig.Time})
	}
	return out
}

// Request implements desk.Backend. What an officer would sign comes from the same
// function as what the CA would issue.
func (a *Authority) Request(ctx context.Context, id string) (call.Request, error) {
	order, account, err := a.look(ctx, id)
	if errors.Is(err, authority.ErrNotFound) {
		return call.Request{}, desk.Refuse(call.ReasonNotFound, "there is no such request")
	}
	if err != nil {
		return call.Request{}, err
	}
	r := call.Request{
		ID: id, Created: order.Created, Expires: order.Created.Add(orderLife), Address: account.Address, Device: order.Device,
		State: stateOf(&order), Approvals: []call.Signed{},
	}
	if order.Status == authority.Invalid {
		r.Refusal = order.Reason
	}
	a.book().View(func(s *record.State) {
		r.Needs, r.Approvals = a.needs(s, order.Profile), signed(s.Approvals(id, nil))
	})
	if person, err := a.Person(ctx, account.Address); err == nil {
		r.Person = &person
	}
	return r, a.describe(ctx, &order, &r)
}

func stateOf(o *authority.Order) string {
	switch {
	case o.Status == authority.Valid:
		return call.StateIssued
	case o.Status == authority.Invalid && o.Reason == "order_expired":
		return call.StateExpired
	case o.Status == authority.Invalid:
		return call.StateRefused
	}
	return call.StateWaiting
}

// describe adds the template and the claims while there is something to approve.
func (a *Authority) describe(ctx context.Context, o *authority.Order, r *call.Request) error {
	if o.Status != authority.Processing {
		return nil
	}
	p, err := a.cfg.CA.Propose(ctx, o.ID)
	if err != nil {
		reason, _ := reasonOf(err)
		if reason == "" {
			return err
		}
		r.Refusal = reason
		return nil
	}
	r.Needs, r.Approvals, r.Evidence = p.Needs, signed(p.Signatures), evidenceOf(p.Claims, p.Result)
	if p.Missing == nil {
		r.State = call.StateReady
	}
	sign, err := call.NewSignable(&p.Approval)
	r.Approval = &sign
	return err
}

// impossible turns what keeps an order from being issued into a refusal at the desk.
func (a *Authority) impossible(err error) error {
	if reason, ok := reasonOf(err); ok {
		return desk.Refuse(reason, err.Error())
	}
	return err
}

// evidenceOf writes claims down for people: everything that the evidence states, by
// the names of the appraisal.
func evidenceOf(c *attest.Claims, r *attest.Result) *call.Evidence {
	e := &call.Evidence{Claims: []call.Claim{}, Reasons: []call.Reason{}}
	if c != nil {
		e.Format = c.Format
		e.Claims = append(keyClaims("", &c.Key), e.Claims...)
		if c.KeyManagement != nil {
			e.Claims = append(e.Claims, keyClaims("key_management.", c.KeyManagement)...)
		}
	}
	for _, rule := range r.Reasons {
		e.Reasons = append(e.Reasons, call.Reason{Rule: rule.Name, Passed: rule.Passed, Detail: rule.Detail})
	}
	return e
}

// keyClaims lists a key's claims as their JSON has them. A serial number and the path
// are for officers, whose desk this is.
func keyClaims(prefix string, k *attest.KeyClaims) []call.Claim {
	text, err := json.Marshal(k)
	if err != nil {
		return nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) != nil {
		return nil
	}
	var all []call.Claim
	for name, value := range fields {
		shown := string(value)
		var s string
		if json.Unmarshal(value, &s) == nil && shown != "null" {
			shown = s
		}
		if shown == "null" {
			shown = "unstated"
		}
		all = append(all, call.Claim{Name: prefix + name, Value: shown})
	}
	slices.SortFunc(all, func(a, b call.Claim) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// reasonOf returns the code of what keeps an order from being issued, if it is that
// and not the authority's own trouble.
func reasonOf(err error) (string, bool) {
	var refused *ca.RefusedError
	var order *ca.OrderError
	var finding *record.Finding
	switch {
	case errors.Is(err, book.ErrDamaged):
		return "", false
	case errors.As(err, &refused):
		return refused.Reason, true
	case errors.As(err, &order):
		return order.Reason, true
	case errors.As(err, &finding):
		return string(finding.Reason), true
	case errors.Is(err, ca.ErrNotOnRoster):
		return string(record.NotOnRoster), true
	case errors.Is(err, ca.ErrExpired):
		return "order_expired", true
	case errors.Is(err, ca.ErrStale):
		return ca.OrderChanged, true
	}
	return "", false
}

// Officer implements desk.Backend.
func (a *Authority) Officer(ctx context.Context, key identity.DeviceID) (call.Officer, error) {
	var o record.Officer
	var err error
	a.book().View(func(s *record.State) { o, err = s.Officer(key) })
	if err != nil {
		return call.Officer{}, desk.Refuse(call.ReasonNotOfficer, err.Error())
	}
	return a.describeOfficer(ctx, o)
}

// Officers implements desk.Backend.
func (a *Authority) Officers(ctx context.Context) ([]call.Officer, error) {
	var known []record.Officer
	a.book().View(func(s *record.State) { known = s.Officers() })
	all := []call.Officer{}
	for _, o := range known {
		one, err := a.describeOfficer(ctx, o)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func (a *Authority) describeOfficer(ctx context.Context, o record.Officer) (call.Officer, error) {
	out := call.Officer{Address: o.Address, Role: o.Role, Key: o.Key, State: "active"}
	a.book().View(func(s *record.State) {
		out.Previous = digestText(s.PreviousAppointment(o.Address))
		if now := s.OfficerStanding(o.Address); now.State != "" {
			out.State = now.State
		} else if _, err := s.Officer(o.Key); err != nil {
			out.State = record.Suspended // as a person, or with the card
		}
	})
	if !o.Dismissed.IsZero() {
		out.State = "dismissed"
	}
	var err error
	out.Chain, out.Expires, err = a.cfg.CA.OfficerChain(ctx, o)
	return out, err
}

// digestText is a digest as the desk writes it; none is the empty text.
func digestText(d [32]byte) string {
	if d == ([32]byte{}) {
		return ""
	}
	return fmt.Sprintf("%x", d)
}
