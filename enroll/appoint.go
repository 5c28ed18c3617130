// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"log/slog"
	"strings"
	"time"

	"valise/attest"
	"valise/enroll/ceremony"
	"valise/enroll/desk"
	"valise/enroll/desk/call"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/record"
	"valise/statement"
)

// Nonce implements desk.Backend.
func (a *Authority) Nonce(ctx context.Context) (string, error) {
	nonce := rand.Text()
	err := a.cfg.Store.Update(ctx, func(tx *authority.Tx) error {
		return tx.AddApplication(nonce, a.cfg.Now().Add(call.ApplicationLife))
	})
	return nonce, err
}

// Application implements desk.Backend.
func (a *Authority) Application(ctx context.Context, file []byte) (call.Application, error) {
	none := call.Application{}
	if !a.officers() {
		return none, desk.Refuse(call.ReasonRole, "this authority has no officers")
	}
	f, err := ceremony.ParseApplication(file)
	if err != nil {
		return none, desk.Refuse(call.ReasonMalformed, err.Error())
	}
	nonce, ok := strings.CutPrefix(f.Occasion.String(), "appointment ")
	if !ok || f.Address.Domain() != a.cfg.Domain {
		return none, desk.Refuse(call.ReasonMalformed, "the application is for another occasion or another authority")
	}
	claims, result, err := a.appraiseApplication(f, nonce)
	if err != nil {
		return none, err
	}
	body := &statement.Appointment{
		Change: statement.NewID(), Address: f.Address, Role: f.Role, Key: f.Key,
		Evidence: result.EvidenceHash, Appraisal: result.PolicyHash,
	}
	a.book().View(func(s *record.State) { body.Previous = s.PreviousAppointment(f.Address) })
	err = a.cfg.Store.Update(ctx, func(tx *authority.Tx) error {
		return tx.AcceptApplication(nonce, a.cfg.Now(), applicationDigest(body), f.Evidence)
	})
	if errors.Is(err, authority.ErrState) {
		return none, desk.Refuse(call.ReasonNonce, "the application's nonce is not this authority's, has expired, or was used for something else")
	}
	if err != nil {
		return none, err
	}
	sign, err := call.NewSignable(body)
	return call.Application{Appointment: sign, Evidence: *evidenceOf(claims, result)}, err
}

// appraiseApplication judges an application by the policy in force with officers'
// slot and PIN in the place of devices'.
func (a *Authority) appraiseApplication(f *ceremony.Application, nonce string) (*attest.Claims, *attest.Result, error) {
	first := a.cfg.CA.Appraisers()[0]
	p := *first.Policy
	p.Slots, p.PINPolicies, p.KeyManagement, p.KeyManagementSlots = nil, nil, "", nil
	p.Witnessed = false // officers' cards attest
	policy, err := ceremony.OfficerPolicy(p)
	if err != nil {
		return nil, nil, err
	}
	result, err := f.Appraise(ceremony.Appointment(nonce), first.Endorsements, policy, a.cfg.Now())
	if err != nil {
		return nil, nil, desk.Refuse(call.ReasonMalformed, err.Error())
	}
	if !result.Accepted() {
		return nil, nil, desk.Refuse(string(result.Reason()), "the card's evidence is not accepted")
	}
	object, err := attest.ParseAttestationObject(f.Evidence)
	if err != nil {
		return nil, nil, err
	}
	claims, err := attest.Verify(object.Evidence(), nil, first.Endorsements, a.cfg.Now())
	return claims, result, err
}

// applicationDigest names what was accepted: this key of this person for this role,
// on this evidence and policy.
func applicationDigest(b *statement.Appointment) [32]byte {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(b.Address.String()), []byte(b.Role), b.Key, b.Evidence[:], b.Appraisal[:]} {
		sum := sha256.Sum256(part)
		h.Write(sum[:])
	}
	return [32]byte(h.Sum(nil))
}

// checkAppointment sees to it that officers have cards that were accepted: the row
// can only take an appointment away.
func (a *Authority) checkAppointment(ctx context.Context, b *statement.Appointment) error {
	accepted := false
	err := a.cfg.Store.View(ctx, func(tx *authority.Tx) (err error) {
		accepted, err = tx.Accepted(applicationDigest(b))
		return err
	})
	if err == nil && !accepted {
		err = desk.Refuse(call.ReasonNotFound, "no application of this key and evidence was accepted: hand it in first")
	}
	return err
}

// equip has an officer's certificate made, if there is none that is good for a while.
func (a *Authority) equip(ctx context.Context, address identity.Address) error {
	i, err := a.cfg.CA.IssueOfficer(ctx, address)
	if err != nil {
		return err
	}
	return a.cfg.Event(ctx, "officer's certificate issued", slog.String("address", address.String()), slog.Int64("leaf", i.Leaf))
}

// officerAhead is how long before its end an officer's certificate is made anew.
const officerAhead = 120 * 24 * time.Hour

// equipAll is equip for officers in office who have no certificate, because the token
// was away or the process died, or one that ends soon.
func (a *Authority) equipAll(ctx context.Context) error {
	var known []record.Officer
	a.book().View(func(s *record.State) {
		for _, o := range s.Officers() {
			if _, err := s.Officer(o.Key); err == nil {
				known = append(known, o)
			}
		}
	})
	var errs error
	for _, o := range known {
		chain, until, err := a.cfg.CA.OfficerChain(ctx, o)
		if err == nil && (chain == nil || a.cfg.Now().After(until.Add(-officerAhead))) {
			err = a.equip(ctx, o.Address)
		}
		errs = errors.Join(errs, err)
	}
	return errs
}
