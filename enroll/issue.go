// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"time"

	"valise/enroll/acme"
	"valise/enroll/ca"
	"valise/identity"
	"valise/internal/store/authority"
)

// Finalize implements acme.Backend. A CSR that is refused leaves the order "ready";
// the same CSR sent again continues where the first one is.
func (a *Authority) Finalize(ctx context.Context, account authority.Account, id string, csrDER []byte) (authority.Order, authority.Authorization, error) {
	order, authz, err := a.Order(ctx, account, id)
	if err != nil {
		return order, authz, err
	}
	again := bytes.Equal(order.CSR, csrDER) && (order.Status == authority.Processing || order.Status == authority.Valid)
	if !again {
		if err := a.ready(); err != nil {
			return order, authz, err
		}
		if err := a.accept(ctx, &account, &order, csrDER); err != nil {
			return order, authz, err
		}
	}
	if err := a.issue(ctx, id); err != nil {
		return order, authz, err
	}
	return a.Order(ctx, account, id)
}

func (a *Authority) accept(ctx context.Context, account *authority.Account, order *authority.Order, csrDER []byte) error {
	switch {
	case order.Status == authority.Ready && a.cfg.Now().After(order.Expires):
		return acme.Refuse(acme.OrderExpired, "the order has expired; make a new one")
	case order.Status != authority.Ready:
		return acme.Refuse(acme.OrderNotReady, "the order is "+order.Status+", not ready")
	}
	csr, err := ca.CheckCSR(csrDER)
	if err != nil {
		return acme.Refuse(acme.BadCSR, err.Error())
	}
	if device, err := identity.DeviceIDOf(csr.PublicKey); err != nil || device != order.Device {
		return acme.Refuse(acme.CSRKeyMismatch, "the CSR is for another key than the attested one")
	}
	if err := checkNames(csr, account.Address, order.Device); err != nil {
		return err
	}
	err = a.cfg.Store.Update(ctx, func(tx *authority.Tx) error { return tx.FinalizeOrder(order.ID, csrDER) })
	if errors.Is(err, authority.ErrState) {
		// Another request with the same CSR may have been faster.
		now, _, lookErr := a.Order(ctx, *account, order.ID)
		if lookErr == nil && bytes.Equal(now.CSR, csrDER) {
			return nil
		}
		return acme.Refuse(acme.OrderNotReady, "the order is not ready any more")
	}
	if err != nil {
		return err
	}
	return a.event(ctx, "order finalized", account, slog.String("order", order.ID), slog.String("device", order.Device.String()))
}

// issue has a certificate made for an order that is "processing". What keeps it
// waiting (approvals, a token that is away) is no error; what ends it is recorded.
func (a *Authority) issue(ctx context.Context, id string) error {
	order, account, err := a.look(ctx, id)
	if err != nil || order.Status != authority.Processing {
		a.announced.Delete(id)
		return err
	}
	if order.Approvals > 0 || a.cfg.CA.Device().Approvals > 0 {
		return nil // the CA decides the same again; this spares the audit stream
	}
	// Nothing is issued without a trace; one line for all attempts.
	if _, said := a.announced.Load(id); !said {
		err = a.event(ctx, "issuing", &account, slog.String("order", id), slog.String("device", order.Device.String()))
		if err != nil {
			return err
		}
	}
	issuance, err := a.cfg.CA.IssueDevice(ctx, id)
	var signing *ca.SigningError
	if errors.As(err, &signing) {
		a.announced.Store(id, nil)
	} else {
		a.announced.Delete(id)
	}
	if err == nil {
		a.cfg.Issued("device")
		return a.event(ctx, "certificate issued", &account, slog.String("order", id), slog.String("device", order.Device.String()),
			slog.String("serial", hex.EncodeToString(issuance.Serial)), slog.Int64("leaf", issuance.Leaf))
	}
	return a.trouble(ctx, &account, id, err)
}

func (a *Authority) look(ctx context.Context, id string) (o authority.Order, account authority.Account, err error) {
	err = a.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		if o, err = tx.Order(id); err == nil {
			account, err = tx.Account(o.Account)
		}
		return err
	})
	return o, account, err
}

// trouble sorts the reasons for which nothing was issued.
func (a *Authority) trouble(ctx context.Context, account *authority.Account, id string, err error) error {
	var signing *ca.SigningError
	var refused *ca.RefusedError
	reason := ""
	switch {
	case errors.Is(err, ca.ErrApprovals):
		return nil
	case errors.As(err, &signing):
		a.cfg.Log.Error("the issuing token did not sign; the order waits", "order", id, "error", err.Error())
		return nil
	case errors.As(err, &refused):
		reason = refused.Reason
	case errors.Is(err, ca.ErrNotOnRoster):
		reason = string(acme.NotOnRoster)
	case errors.Is(err, ca.ErrExpired):
		reason = string(acme.OrderExpired)
	case errors.Is(err, ca.ErrStale):
		reason = string(acme.OrderChanged)
	case errors.Is(err, ca.ErrOrder):
		reason = string(acme.AccountDeactivated)
	default:
		return err // our own trouble: the order stays, Work tries again
	}
	moveErr := a.cfg.Store.Update(ctx, func(tx *authority.Tx) error {
		return tx.MoveOrder(id, authority.Processing, authority.Invalid, reason)
	})
	if errors.Is(moveErr, authority.ErrState) {
		return nil // it came to an end otherwise
	}
	if moveErr != nil {
		return moveErr
	}
	return a.event(ctx, "issuance refused", account, slog.String("order", id), slog.String("reason", reason))
}

// Certificate implements acme.Backend.
func (a *Authority) Certificate(ctx context.Context, account authority.Account, id string) ([][]byte, error) {
	order, _, err := a.Order(ctx, account, id)
	if err != nil {
		return nil, err
	}
	if order.Status != authority.Valid {
		return nil, acme.Refuse(acme.NotFound, "there is no certificate; the order is "+order.Status)
	}
	issuance, err := a.cfg.CA.Certificate(ctx, id)
	if err != nil {
		return nil, err
	}
	return append([][]byte{issuance}, a.cfg.CA.Chain()...), nil
}

// workEvery is how often Work looks for what was left: after a crash, or while the
// token was away.
const workEvery = 2 * time.Second

// Work finishes orders that are "processing" and removes what has expired, until ctx
// ends.
func (a *Authority) Work(ctx context.Context) error {
	tick := time.NewTicker(workEvery)
	defer tick.Stop()
	var purged time.Time
	for {
		if now := a.cfg.Now(); now.Sub(purged) > time.Minute {
			purged = now
			if err := a.cfg.Store.Purge(ctx, now); err != nil && ctx.Err() == nil {
				a.cfg.Log.Error("cleaning up failed", "error", err.Error())
			}
		}
		if err := a.Resume(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Log.Error("orders wait", "error", err.Error())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Resume tries once to issue for every order that is "processing" and lacks nothing
// but the token.
func (a *Authority) Resume(ctx context.Context) error {
	if a.cfg.CA.Device().Approvals > 0 {
		return nil
	}
	var waiting []authority.Order
	err := a.cfg.Store.View(ctx, func(tx *authority.Tx) (err error) {
		waiting, err = tx.Orders(authority.Processing, workBatch)
		return err
	})
	for _, o := range waiting {
		if ctx.Err() != nil {
			break
		}
		err = errors.Join(err, a.issue(ctx, o.ID))
	}
	return err
}

// checkNames lets a CSR name the device and the person that it is for, and nobody
// else. What stands there is not used (RFC 8555, Section 7.4: the identifiers must
// be the order's).
func checkNames(csr *x509.CertificateRequest, address identity.Address, device identity.DeviceID) error {
	for _, ext := range csr.Extensions {
		if !ext.Id.Equal(oidSubjectAltName) {
			continue
		}
		if err := checkAltName(ext.Value, address, device); err != nil {
			return acme.Refuse(acme.WrongIdentifier, "the CSR: "+err.Error())
		}
	}
	return nil
}
