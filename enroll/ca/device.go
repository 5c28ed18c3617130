// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"valise/identity"
	"valise/internal/store/authority"
)

// Errors for which an order stays, or ceases, to be worth another attempt.
var (
	// ErrApprovals: the order waits for officers.
	ErrApprovals = errors.New("ca: approvals are missing")
	// ErrNotOnRoster: the person is not, or no more, on the roster.
	ErrNotOnRoster = errors.New("ca: the address is not on the roster")
	// ErrOrder: the order is not "processing", or its account is closed.
	ErrOrder = errors.New("ca: the order is not to be issued")
	// ErrExpired: the recorded certificate's validity has passed unsigned.
	ErrExpired = errors.New("ca: the certificate expired before it was signed")
	// ErrStale: what was recorded is not what would be issued now.
	ErrStale   = errors.New("ca: what was recorded for this request is not what would be issued now")
	errChanged = errors.New("ca: the request changed while its certificate was built")
)

// A RefusedError says that the evidence is not accepted (any more).
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "ca: the evidence is not accepted: " + e.Reason }

// evidenceExpired is the reason of evidence that waited longer than the policy's
// valid_hours.
const evidenceExpired = "evidence_expired"

// orderRef is an order's reference in the table of issuances.
func orderRef(id string) string { return "order:" + id }

// facts is everything that a device's certificate is made from.
type facts struct {
	order   authority.Order
	authz   authority.Authorization
	account authority.Account
	person  authority.Person
	past    authority.Issuance // recorded already, if past.Ref is set
}

// IssueDevice issues the certificate of an order that is "processing", or returns
// the one that was issued. It is safe to call at any time and from several
// goroutines and processes: one certificate comes out.
func (c *CA) IssueDevice(ctx context.Context, order string) (authority.Issuance, error) {
	v, err, _ := c.flights.Do(orderRef(order), func() (any, error) { return c.issueDevice(ctx, order) })
	i, _ := v.(authority.Issuance)
	return i, err
}

func (c *CA) issueDevice(ctx context.Context, order string) (authority.Issuance, error) {
	var i authority.Issuance
	for attempt := 0; ; attempt++ {
		f, err := c.load(ctx, order)
		if err != nil {
			return i, err
		}
		if f.past.Done() {
			return f.past, nil
		}
		if err := c.allowed(f); err != nil {
			return i, err
		}
		if i = f.past; i.Ref != "" {
			// Recorded before a crash, or while the token was away.
			if err := c.holds(ctx, f); err != nil {
				return authority.Issuance{}, err
			}
			break
		}
		i, err = c.recordDevice(ctx, f)
		if err == nil {
			break
		}
		if !errors.Is(err, errChanged) && !errors.Is(err, authority.ErrExists) || attempt == 3 {
			return i, err
		}
	}
	if err := c.step("recorded"); err != nil {
		return i, err
	}
	return c.finish(ctx, i, func(tx *authority.Tx) error {
		return tx.MoveOrder(order, authority.Processing, authority.Valid, "")
	})
}

func (c *CA) load(ctx context.Context, order string) (f *facts, err error) {
	err = c.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		f, err = loadFacts(tx, order)
		return err
	})
	return f, err
}

func loadFacts(tx *authority.Tx, order string) (*facts, error) {
	f := new(facts)
	var err error
	if f.order, err = tx.Order(order); err != nil {
		return nil, err
	}
	if f.authz, err = tx.OrderAuthorization(order); err != nil {
		return nil, err
	}
	if f.account, err = tx.Account(f.order.Account); err != nil {
		return nil, err
	}
	f.person, err = tx.Person(f.account.Address)
	if errors.Is(err, authority.ErrNotFound) {
		err = ErrNotOnRoster
	}
	if err != nil {
		return nil, err
	}
	f.past, err = tx.Issuance(orderRef(order))
	if errors.Is(err, authority.ErrNotFound) {
		f.past, err = authority.Issuance{}, nil
	}
	return f, err
}

// allowed decides whether the HSM may sign for this order, now. The number of
// approvals comes from the configured profile; what a row says can only ask for more.
func (c *CA) allowed(f *facts) error {
	if f.order.Status != authority.Processing || f.authz.Status != authority.Valid || f.account.Status != authority.Valid {
		return ErrOrder
	}
	if f.account.Device == nil || *f.account.Device != f.order.Device {
		return ErrOrder
	}
	if f.order.Profile != c.cfg.Device.Name {
		return fmt.Errorf("%w: its profile %q is not configured", ErrOrder, f.order.Profile)
	}
	if approvals := 0; approvals < max(c.cfg.Device.Approvals, f.order.Approvals) {
		return ErrApprovals
	}
	return nil
}

// recordDevice builds the certificate and runs tx 1.
func (c *CA) recordDevice(ctx context.Context, f *facts) (authority.Issuance, error) {
	i, err := c.buildDevice(f)
	if err != nil {
		return i, err
	}
	if err := c.step("built"); err != nil {
		return i, err
	}
	order := f.order.ID
	err = c.cfg.Store.Update(ctx, func(tx *authority.Tx) error {
		again, err := loadFacts(tx, order)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(f, again) {
			return errChanged
		}
		i, err = record(tx, i, c.cfg.Now())
		return err
	})
	return i, err
}

func (c *CA) buildDevice(f *facts) (authority.Issuance, error) {
	none := authority.Issuance{}
	profile, err := c.judge(f)
	if err != nil {
		return none, err
	}
	profile.Serial = newSerial()
	profile.NotBefore, profile.NotAfter = c.validity(c.cfg.Device.Validity)
	template, err := profile.Template()
	if err != nil {
		return none, err
	}
	tbs, err := c.issuer.build(template)
	if err != nil {
		return none, err
	}
	return authority.Issuance{
		Ref: orderRef(f.order.ID), Kind: "device", Subject: f.person.Address.String(),
		Request: digest(f.order.CSR), Serial: profile.Serial.Bytes(), TBS: tbs, NotAfter: profile.NotAfter,
	}, nil
}

// judge decides what a device's certificate says, all but serial number and
// validity: from the evidence itself, and not from what a row says about it.
func (c *CA) judge(f *facts) (identity.DeviceProfile, error) {
	none := identity.DeviceProfile{}
	csr, err := CheckCSR(f.order.CSR)
	if err != nil {
		return none, err
	}
	if id, err := identity.DeviceIDOf(csr.PublicKey); err != nil || id != f.order.Device {
		return none, fmt.Errorf("%w: the CSR is for another key", ErrOrder)
	}
	now := c.cfg.Now()
	keyAuthorization := f.authz.Token + "." + f.account.Thumbprint
	result := c.cfg.Appraiser.Appraise(f.authz.Evidence, keyAuthorization, f.order.Device, now)
	if !result.Accepted() || identity.Tier(result.Tier) != identity.TierHardware {
		return none, &RefusedError{string(result.Reason())}
	}
	// What the policy grants from now on, it granted from the challenge's answer on.
	if usable := result.Expiry.Sub(now); now.After(f.authz.Validated.Add(usable)) {
		return none, &RefusedError{evidenceExpired}
	}
	if f.person.Address.Domain() != c.cfg.Domain {
		return none, fmt.Errorf("%w: %s is outside %s", ErrOrder, f.person.Address, c.cfg.Domain)
	}
	return identity.DeviceProfile{
		Address: f.person.Address, PublicKey: csr.PublicKey, Clearance: f.person.Clearance,
		Tier: identity.TierHardware, EvidenceHash: result.EvidenceHash, PolicyHash: result.PolicyHash,
	}, nil
}

// Certificate returns the certificate that was issued for an order.
func (c *CA) Certificate(ctx context.Context, order string) ([]byte, error) {
	i, err := c.lookup(ctx, orderRef(order))
	if err == nil && !i.Done() {
		err = authority.ErrNotFound
	}
	return i.Certificate, err
}
