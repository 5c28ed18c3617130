// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"valise/attest"
	"valise/enroll/acme"
	"valise/enroll/ca"
	"valise/identity"
	"valise/internal/store/authority"
)

// NewOrder implements acme.Backend.
func (a *Authority) NewOrder(ctx context.Context, account authority.Account, device identity.DeviceID) (authority.Order, authority.Authorization, error) {
	if err := a.ready(); err != nil {
		return authority.Order{}, authority.Authorization{}, err
	}
	now := a.cfg.Now().UTC().Truncate(time.Second)
	profile := a.cfg.CA.Device()
	order := authority.Order{
		ID: rand.Text(), Account: account.ID, Device: device, Profile: profile.Name, Approvals: profile.Approvals,
		Status: authority.Pending, Created: now, Expires: now.Add(orderLife),
	}
	authz := authority.Authorization{
		ID: rand.Text(), Order: order.ID, Token: rand.Text(), // at least 128 random bits
		Status: authority.Pending, Expires: order.Expires,
	}
	if err := a.standing(account.Address, device); err != nil {
		return order, authz, err
	}
	voucher := acme.VoucherOf(ctx)
	var applicant authority.Applicant
	err := a.cfg.Store.Update(ctx, func(tx *authority.Tx) (err error) {
		if err := a.useIn(tx, voucher); err != nil {
			return err
		}
		if applicant, err = a.mayOrder(tx, voucher, account.ID, device, now); err != nil {
			return err
		}
		return tx.AddOrder(order, authz)
	})
	if err = a.used(ctx, voucher, err); err != nil {
		return authority.Order{}, authority.Authorization{}, err
	}
	a.recent.keep(&authority.Facts{Order: order, Authorization: authz, Account: applicant.Account, Person: applicant.Person, OnRoster: applicant.OnRoster})
	return order, authz, a.event(ctx, "order made", &account, slog.String("order", order.ID), slog.String("device", device.String()))
}

func (a *Authority) mayOrder(tx *authority.Tx, voucher *acme.Voucher, id int64, device identity.DeviceID, now time.Time) (authority.Applicant, error) {
	applicant, err := tx.Applicant(id, device, now)
	if err != nil {
		return applicant, err
	}
	if err := voucher.Good(&applicant.Account); err != nil {
		return applicant, err
	}
	if err := a.mayHave(&applicant, device); err != nil {
		return applicant, err
	}
	if applicant.Open >= maxOpenOrders {
		return applicant, acme.Refuse(acme.TooManyOrders, "too many unfinished orders; finish one or wait until they expire")
	}
	return applicant, nil
}

// mayHave ties an account to a person on the roster and to one device, and a device to
// one person.
func (a *Authority) mayHave(applicant *authority.Applicant, device identity.DeviceID) error {
	account := &applicant.Account
	if !a.officers() && !applicant.OnRoster {
		return notOnRoster(account.Address)
	}
	if account.Device != nil && *account.Device != device {
		return acme.Refuse(acme.WrongIdentifier, "this account enrolled another device; each device needs its own invitation")
	}
	if applicant.Taken {
		return acme.Refuse(acme.DeviceTaken, "this key is enrolled for somebody else")
	}
	return nil
}

// Order implements acme.Backend.
func (a *Authority) Order(ctx context.Context, account authority.Account, id string) (o authority.Order, z authority.Authorization, err error) {
	if f := looked(ctx, id, ""); f != nil {
		return f.Order, f.Authorization, owned(f.Order, account.ID, nil)
	}
	err = a.cfg.Store.Read(ctx, func(tx *authority.Tx) error {
		o, z, err = ownOrder(tx, account.ID, id)
		return err
	})
	return o, z, err
}

func ownOrder(tx *authority.Tx, account int64, id string) (o authority.Order, z authority.Authorization, err error) {
	o, z, err = tx.OrderOf(id)
	return o, z, owned(o, account, err)
}

// owned turns what was looked up into a refusal if it is not the account's. Whether
// a stranger's identifier exists is not told.
func owned(o authority.Order, account int64, err error) error {
	if errors.Is(err, authority.ErrNotFound) || err == nil && o.Account != account {
		return acme.Refuse(acme.NotFound, "this account has no such resource")
	}
	return err
}

// Orders implements acme.Backend.
func (a *Authority) Orders(ctx context.Context, account authority.Account, limit int) (all []authority.Order, err error) {
	err = a.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		all, err = tx.AccountOrders(account.ID, limit)
		return err
	})
	return all, err
}

// Authorization implements acme.Backend.
func (a *Authority) Authorization(ctx context.Context, account authority.Account, id string) (o authority.Order, z authority.Authorization, err error) {
	if f := looked(ctx, "", id); f != nil {
		return f.Order, f.Authorization, owned(f.Order, account.ID, nil)
	}
	err = a.cfg.Store.Read(ctx, func(tx *authority.Tx) error {
		o, z, err = ownAuthorization(tx, account.ID, id)
		return err
	})
	return o, z, err
}

func ownAuthorization(tx *authority.Tx, account int64, id string) (o authority.Order, z authority.Authorization, err error) {
	o, z, err = tx.OrderOfAuthorization(id)
	return o, z, owned(o, account, err)
}

// Attest implements acme.Backend. The evidence is judged without a transaction; the
// outcome is stored in one, if the challenge is still open.
func (a *Authority) Attest(ctx context.Context, account authority.Account, id string, evidence []byte) (authority.Authorization, error) {
	order, authz, err := a.toAttest(ctx, account, id)
	if err != nil {
		return authz, err
	}
	known := a.recent.order(order.ID)
	a.recent.forget(order.ID)
	now := a.cfg.Now().UTC().Truncate(time.Second)
	if err := openChallenge(&authz, now); err != nil {
		return authz, err
	}
	_, result := ca.Examine(a.cfg.CA.Appraisers(), evidence, authz.Token+"."+account.Thumbprint, order.Device, now)
	authz.Evidence, authz.Validated = evidence, now
	if authz.Result, err = marshalResult(result); err != nil {
		return authz, err
	}
	reason := acme.Reason(result.Reason())
	var barred *acme.Refusal
	if errors.As(a.standing(account.Address, order.Device), &barred) && reason == "" {
		reason = barred.Reason
	}
	voucher := acme.VoucherOf(ctx)
	var fresh authority.Applicant
	err = a.cfg.Store.Update(ctx, func(tx *authority.Tx) (err error) {
		if err := a.useIn(tx, voucher); err != nil {
			return err
		}
		fresh, err = a.closeChallenge(tx, voucher, &account, &authz, order.Device, reason)
		return err
	})
	if err = a.used(ctx, voucher, err); errors.Is(err, authority.ErrState) {
		return authz, errChallengeReused
	}
	if err != nil {
		return authz, err
	}
	if authz.Status == authority.Invalid {
		return authz, nil // the front writes refusals to the audit stream
	}
	if known != nil {
		known.Authorization, known.Order.Status = authz, authority.Ready
		known.Account, known.Person, known.OnRoster = fresh.Account, fresh.Person, fresh.OnRoster
		known.Account.Device = &order.Device
		a.recent.keep(known)
	}
	return authz, a.event(ctx, "evidence accepted", &account, slog.String("order", order.ID),
		slog.String("device", order.Device.String()), slog.String("evidence", hex.EncodeToString(result.EvidenceHash[:])))
}

var errChallengeReused = acme.Refuse(acme.ChallengeReused, "the challenge was answered before; make a new order")

func openChallenge(z *authority.Authorization, now time.Time) error {
	switch {
	case z.Status == authority.Expired, z.Status == authority.Pending && now.After(z.Expires):
		return acme.Refuse(acme.ChallengeExpired, "the challenge was not answered in time; make a new order")
	case z.Status != authority.Pending:
		return errChallengeReused
	}
	return nil
}

// closeChallenge stores the outcome. The account gets its device with the first
// evidence that is accepted.
func (a *Authority) closeChallenge(tx *authority.Tx, voucher *acme.Voucher, account *authority.Account, z *authority.Authorization,
	device identity.DeviceID, reason acme.Reason,
) (authority.Applicant, error) {
	fresh, err := tx.Applicant(account.ID, device, z.Validated)
	if err != nil {
		return fresh, err
	}
	if err := voucher.Good(&fresh.Account); err != nil {
		return fresh, err
	}
	var refusal *acme.Refusal
	if reason == "" && errors.As(a.mayHave(&fresh, device), &refusal) {
		reason = refusal.Reason
	}
	z.Status, z.Reason = authority.Valid, ""
	next := authority.Ready
	if reason != "" {
		z.Status, z.Reason, next = authority.Invalid, string(reason), authority.Invalid
	}
	last := tx.Later() // all of it, or ErrState
	err = errors.Join(last.CloseAuthorization(*z), last.MoveOrder(z.Order, authority.Pending, next, z.Reason))
	if err != nil || reason != "" {
		return fresh, err
	}
	return fresh, last.BindAccount(account.ID, device)
}

// toAttest finds an authorization that is to be answered. One that this process made is
// taken as it was then: that it is still open, the transaction that closes it finds out.
func (a *Authority) toAttest(ctx context.Context, account authority.Account, id string) (authority.Order, authority.Authorization, error) {
	if f := a.recent.authorization(id); f != nil && acme.VoucherOf(ctx).Nonce != "" {
		return f.Order, f.Authorization, owned(f.Order, account.ID, nil)
	}
	return a.Authorization(ctx, account, id)
}

// storedResult is an appraisal's result as officers and auditors read it. Nothing is
// issued on it: the evidence is judged again.
type storedResult struct {
	Verdict  attest.Verdict `json:"verdict"`
	Tier     string         `json:"tier,omitempty"`
	Rules    []attest.Rule  `json:"rules"`
	Evidence string         `json:"evidence_sha256"`
	Policy   string         `json:"policy_sha256"`
	Expiry   *time.Time     `json:"expiry,omitempty"`
}

func marshalResult(r *attest.Result) ([]byte, error) {
	s := storedResult{
		Verdict: r.Verdict, Tier: r.Tier, Rules: r.Reasons,
		Evidence: hex.EncodeToString(r.EvidenceHash[:]), Policy: hex.EncodeToString(r.PolicyHash[:]),
	}
	if !r.Expiry.IsZero() {
		s.Expiry = &r.Expiry
	}
	return json.Marshal(s)
}
