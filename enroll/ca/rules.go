// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"reflect"
	"time"

	"valise/attest"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/manifest"
	"valise/record"
	"valise/statement"
)

// rules are what officers say, or the configuration where there are none, about a
// person's certificates at one moment.
type rules struct {
	officers  bool
	address   identity.Address
	clearance *identity.Clearance
	profile   manifest.Profile
	approvals int
	life      time.Duration // of a certificate made now
	evidence  [2]int64      // the leaves of endorsements and appraisal policy

	// appraisers must all accept; the first one's hashes stand in the certificate.
	appraisers []*Appraiser
}

// A judgement is what the authority makes of an order.
type judgement struct {
	rules    *rules
	approval statement.Approval     // exactly what officers approve
	profile  identity.DeviceProfile // without serial number and validity
	claims   *attest.Claims
	result   *attest.Result
}

// rulesFor takes the rules for an order from the record. The configuration can only
// tighten them: more approvals, a shorter life, a policy to be met as well.
func (c *CA) rulesFor(s *record.State, f *facts) (*rules, error) {
	if !hasOfficers(s) {
		return c.loneRules(f)
	}
	inv, ok := s.Invitation(f.account.KID)
	if !ok || inv.Address != f.account.Address {
		return nil, &record.Finding{Index: -1, Reason: record.NotInvited, Detail: "no officer invited " + f.account.Address.String() + " with the key of this account"}
	}
	if err := s.OnRoster(inv.Address); err != nil {
		return nil, err
	}
	person, _ := s.Person(inv.Address)
	p, ok := s.Profile(f.order.Profile)
	if !ok {
		return nil, &OrderError{WrongProfile, fmt.Sprintf("the record has no profile %q", f.order.Profile)}
	}
	r := &rules{
		officers: true, address: inv.Address, clearance: person.Clearance, profile: p.Profile,
		approvals: max(p.Approvals, c.cfg.Device.Approvals, f.order.Approvals), life: p.Validity,
		evidence: [2]int64{s.Endorsements().Leaf, s.Appraisal().Leaf}, appraisers: c.appraisers(s),
	}
	if c.life > 0 && c.life < r.life {
		r.life = c.life
	}
	return r, nil
}

// rulesNow takes the rules as this process knows them. What counts is confirmed in
// the transaction that decides.
func (c *CA) rulesNow(f *facts) (r *rules, err error) {
	if !c.led {
		return c.loneRules(f)
	}
	c.cfg.Book.View(func(s *record.State) { r, err = c.rulesFor(s, f) })
	return r, err
}

func (c *CA) loneRules(f *facts) (*rules, error) {
	if !f.onRoster {
		return nil, ErrNotOnRoster
	}
	return &rules{
		address: f.account.Address, clearance: f.person.Clearance, life: c.cfg.Device.Validity,
		profile:    manifest.Profile{Name: c.cfg.Device.Name, Validity: c.cfg.Device.Validity, Tiers: []identity.Tier{identity.TierHardware}},
		approvals:  max(c.cfg.Device.Approvals, f.order.Approvals),
		appraisers: []*Appraiser{c.loneAppraiser()},
	}, nil
}

// appraisers judge evidence: by the record's endorsements and policy, and by the
// configured policy beside it.
func (c *CA) appraisers(s *record.State) []*Appraiser {
	first := &Appraiser{Endorsements: s.Endorsements().Value, Policy: s.Appraisal().Value, remembers: &c.memory}
	if c.cfg.Appraiser == nil {
		return []*Appraiser{first}
	}
	first.ActivationKey, first.Observe = c.cfg.Appraiser.ActivationKey, c.cfg.Appraiser.Observe
	if p := c.cfg.Appraiser.Policy; p != nil && !reflect.ValueOf(*p).IsZero() {
		second := *first
		second.Policy, second.Observe = p, nil // once is enough
		return []*Appraiser{first, &second}
	}
	return []*Appraiser{first}
}

// Appraisers returns those whose word counts now: all of them must accept.
func (c *CA) Appraisers() (all []*Appraiser) {
	if !c.led {
		return []*Appraiser{c.loneAppraiser()}
	}
	c.cfg.Book.View(func(s *record.State) { all = c.appraisers(s) })
	return all
}

// loneAppraiser is the configured one, which alone judges where there are no officers.
func (c *CA) loneAppraiser() *Appraiser {
	if c.cfg.Appraiser == nil {
		return nil
	}
	a := *c.cfg.Appraiser
	a.remembers = &c.memory
	return &a
}

// Examine judges evidence by the first of some appraisers, and lets the others refuse.
func Examine(all []*Appraiser, object []byte, keyAuthorization string, device identity.DeviceID, now time.Time) (*attest.Claims, *attest.Result) {
	claims, result := all[0].Examine(object, keyAuthorization, device, now)
	for _, other := range all[1:] {
		if !result.Accepted() {
			break
		}
		_, again := other.Examine(object, keyAuthorization, device, now)
		if !again.Accepted() {
			return claims, again
		}
		if again.Expiry.Before(result.Expiry) {
			result.Expiry = again.Expiry
		}
	}
	return claims, result
}

// judge decides what a device's certificate says, all but serial number and
// validity: from the evidence itself, and not from what a row says about it. It is
// also what officers are shown and sign.
func (c *CA) judge(f *facts) (*judgement, error) {
	r, err := c.rulesNow(f)
	if err != nil {
		return nil, err
	}
	if r.address.Domain() != c.cfg.Domain {
		return nil, &OrderError{WrongDomain, fmt.Sprintf("%s is outside %s", r.address, c.cfg.Domain)}
	}
	csr, err := c.CheckCSR(f.order.CSR)
	if err != nil {
		return nil, err
	}
	if id, err := identity.DeviceIDOf(csr.PublicKey); err != nil || id != f.order.Device {
		return nil, &OrderError{WrongKey, "the CSR is for another key"}
	}
	j := &judgement{rules: r}
	if err := c.appraise(f, j); err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(csr.PublicKey)
	if err != nil {
		return nil, err
	}
	tier := identity.Tier(j.result.Tier)
	j.approval = statement.Approval{Request: f.order.ID, Template: statement.Template{
		Address: r.address, Device: f.order.Device, CSRKey: spki, Role: statement.RoleDevice,
		Profile: r.profile.Name, ProfileVersion: r.profile.Version, Clearance: r.clearance, Tier: tier,
		Validity: r.profile.Validity, Evidence: j.result.EvidenceHash, Appraisal: j.result.PolicyHash,
		Witnessed: tier == identity.TierWitnessed,
	}}
	j.profile = identity.DeviceProfile{
		Address: r.address, PublicKey: csr.PublicKey, Clearance: r.clearance,
		Tier: tier, EvidenceHash: j.result.EvidenceHash, PolicyHash: j.result.PolicyHash,
	}
	return j, nil
}

// appraise judges the stored evidence again.
func (c *CA) appraise(f *facts, j *judgement) error {
	now := c.cfg.Now()
	keyAuthorization := f.authz.Token + "." + f.account.Thumbprint
	j.claims, j.result = Examine(j.rules.appraisers, f.authz.Evidence, keyAuthorization, f.order.Device, now)
	if !j.result.Accepted() {
		return &RefusedError{string(j.result.Reason())}
	}
	if p := (record.Profile{Profile: j.rules.profile}); !p.Takes(identity.Tier(j.result.Tier)) {
		return &RefusedError{string(record.WrongTier)}
	}
	// What the policy grants from now on, it granted from the challenge's answer on.
	if usable := j.result.Expiry.Sub(now); now.After(f.authz.Validated.Add(usable)) {
		return &RefusedError{evidenceExpired}
	}
	return nil
}

// carriers returns the signatures that a certificate stands on. A lone authority has
// none, and must not ask for any.
func (c *CA) carriers(s *record.State, j *judgement) ([]record.Signature, error) {
	if !j.rules.officers {
		if j.rules.approvals > 0 {
			return nil, ErrApprovals
		}
		return nil, nil
	}
	serial := ""
	if k := &j.claims.Key; k.Serial.Said {
		serial = identity.SerialHash(j.claims.Format, k.Serial.Value)
	}
	if err := s.Hardware(serial, j.claims.Key.Root()); err != nil {
		return nil, err
	}
	all, err := s.Carriers(j.approval, c.cfg.Now())
	var missing *record.MissingError
	switch {
	case errors.As(err, &missing):
		missing.Need = j.rules.approvals
		return nil, fmt.Errorf("%w: %w", ErrApprovals, err)
	case err != nil:
		return nil, err
	case len(all) < j.rules.approvals: // the configuration, or the order, asks for more
		return nil, fmt.Errorf("%w: %w", ErrApprovals, &record.MissingError{Have: len(all), Need: j.rules.approvals, Why: record.First})
	}
	return all, nil
}

// confirm looks once more, within the transaction that counts: the rules are those
// that the judgement was made by, nothing in the record speaks against it, and the
// approvals' stored bytes are what was recorded, signed by those officers, and of
// this certificate.
func (c *CA) confirm(tx *authority.Tx, s *record.State, f *facts, j *judgement) error {
	now, err := c.rulesFor(s, f)
	if err != nil {
		return err
	}
	if !j.rules.same(now) {
		return errChanged
	}
	if !j.rules.officers {
		return nil
	}
	all, err := c.carriers(s, j)
	if err != nil {
		return err
	}
	for _, sig := range all {
		items, err := tx.Items(sig.Leaf, 1)
		if err != nil || len(items) == 0 {
			return errors.Join(&record.Finding{Index: sig.Leaf, Reason: record.Rewritten, Detail: "the approval is not in the database any more"}, err)
		}
		if err := s.Recheck(j.approval, sig, items[0]); err != nil {
			return err
		}
	}
	return nil
}

func (r *rules) same(other *rules) bool {
	a, b := *r, *other
	a.appraisers, b.appraisers = nil, nil // they follow from the leaves in evidence
	return reflect.DeepEqual(a, b)
}
