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
	"valise/enroll/book"
	"valise/enroll/ca"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/record"
)

// Finalize implements acme.Backend. A CSR that is refused leaves the order "ready";
// the same CSR sent again continues where the first one is.
func (a *Authority) Finalize(ctx context.Context, account authority.Account, id string, csrDER []byte) (authority.Order, authority.Authorization, error) {
	known, err := a.begin(ctx, &account, id)
	if err != nil {
		return authority.Order{}, authority.Authorization{}, err
	}
	order, authz := known.Order, known.Authorization
	again := bytes.Equal(order.CSR, csrDER) && (order.Status == authority.Processing || order.Status == authority.Valid)
	issued := false
	if again {
		if _, err = a.UseNonceNow(ctx, account); err == nil {
			issued, err = a.issueOf(ctx, order, account, nil)
		}
	} else if err = a.ready(); err == nil {
		if err = a.acceptable(&account, &order, csrDER); err == nil {
			order.Status, order.CSR, known.Order.Status, known.Order.CSR = authority.Processing, csrDER, authority.Processing, csrDER
			issued, err = a.finalize(ctx, order, account, known)
		}
	}
	if err != nil {
		return order, authz, err
	}
	if issued {
		order.Status, order.Reason = authority.Valid, ""
		return order, authz, nil
	}
	return a.Order(ctx, account, id)
}

// begin reads what stands behind an order of the account's. Where there are officers the
// request's nonce is used by the way, and what the order waits for is noted in its row
// before the CA looks at it; else the nonce waits for the transaction that issues.
func (a *Authority) begin(ctx context.Context, account *authority.Account, id string) (*authority.Facts, error) {
	if a.led {
		if _, err := a.UseNonceNow(ctx, *account); err != nil {
			return nil, err
		}
	}
	found := new(authority.Facts)
	if w := acme.Wants(ctx); w != nil && w.Found != nil && w.Order == id {
		*found, w.Found = *w.Found, nil
		return found, owned(found.Order, account.ID, nil)
	}
	if f := a.recent.order(id); f != nil && !a.led {
		if err := owned(f.Order, account.ID, nil); err != nil {
			return nil, err
		}
		a.recent.forget(id)
		return f, acme.VoucherOf(ctx).Good(&f.Account)
	}
	err := a.cfg.Store.Read(ctx, func(tx *authority.Tx) (err error) {
		*found, err = tx.FactsOf(id, ca.OrderRef(id))
		return err
	})
	if err = owned(found.Order, account.ID, err); err != nil {
		return nil, err
	}
	return found, acme.VoucherOf(ctx).Good(&found.Account)
}

// finalize takes an order's CSR and issues, in as few transactions as that takes: where
// nobody has to approve, the CSR, the request's nonce and the ledger's leaf are one. If
// that does not come to pass, the CSR is taken by itself and the order goes its way.
func (a *Authority) finalize(ctx context.Context, order authority.Order, account authority.Account, known *authority.Facts) (issued bool, err error) {
	if !a.led && order.Approvals == 0 && a.cfg.CA.Device().Approvals == 0 {
		voucher := acme.VoucherOf(ctx)
		opening := &ca.Opening{Do: func(tx *authority.Tx) error {
			if err := a.useIn(tx, voucher); err != nil {
				return err
			}
			return tx.Later().FinalizeOrder(order.ID, order.CSR)
		}}
		issued, err = a.issueNow(ctx, order, account, known, opening)
		if errors.Is(err, authority.ErrNonce) {
			return false, a.used(ctx, voucher, err)
		}
		if opening.Done {
			voucher.Used()
			return issued, errors.Join(err, a.finalized(ctx, &account, &order))
		}
	}
	if _, err := a.UseNonceNow(ctx, account); err != nil {
		return false, err
	}
	if err := a.accept(ctx, &account, &order); err != nil {
		return false, err
	}
	if a.led {
		known = nil // what it waits for is written to its row first
	}
	return a.issueOf(ctx, order, account, known)
}

// acceptable checks an order's state and its CSR.
func (a *Authority) acceptable(account *authority.Account, order *authority.Order, csrDER []byte) error {
	switch {
	case order.Status == authority.Ready && a.cfg.Now().After(order.Expires):
		return acme.Refuse(acme.OrderExpired, "the order has expired; make a new one")
	case order.Status != authority.Ready:
		return acme.Refuse(acme.OrderNotReady, "the order is "+order.Status+", not ready")
	}
	csr, err := a.cfg.CA.CheckCSR(csrDER)
	if err != nil {
		return acme.Refuse(acme.BadCSR, err.Error())
	}
	if device, err := identity.DeviceIDOf(csr.PublicKey); err != nil || device != order.Device {
		return acme.Refuse(acme.CSRKeyMismatch, "the CSR is for another key than the attested one")
	}
	return checkNames(csr, account.Address, order.Device)
}

// accept stores an order's CSR.
func (a *Authority) accept(ctx context.Context, account *authority.Account, order *authority.Order) error {
	err := a.cfg.Store.FinalizeOrder(ctx, order.ID, order.CSR)
	if errors.Is(err, authority.ErrState) {
		// Another request with the same CSR may have been faster.
		var now authority.Order
		lookErr := a.cfg.Store.Read(ctx, func(tx *authority.Tx) (err error) {
			now, _, err = ownOrder(tx, account.ID, order.ID)
			return err
		})
		if lookErr == nil && bytes.Equal(now.CSR, order.CSR) {
			return nil
		}
		return acme.Refuse(acme.OrderNotReady, "the order is not ready any more")
	}
	if err != nil {
		return err
	}
	return a.finalized(ctx, account, order)
}

func (a *Authority) finalized(ctx context.Context, account *authority.Account, order *authority.Order) error {
	return a.event(ctx, "order finalized", account, slog.String("order", order.ID), slog.String("device", order.Device.String()))
}

// issue has a certificate made for an order that is "processing". What keeps it
// waiting (approvals, a token that is away) is no error; what ends it is recorded.
func (a *Authority) issue(ctx context.Context, id string) error {
	order, account, err := a.look(ctx, id)
	if err != nil {
		a.announced.Delete(id)
		return err
	}
	_, err = a.issueOf(ctx, order, account, nil)
	return err
}

// issueOf is issue for an order and account that were just read: whether they still
// are so is the CA's to find out. It reports whether the order is "valid" now.
func (a *Authority) issueOf(ctx context.Context, order authority.Order, account authority.Account, known *authority.Facts) (issued bool, err error) {
	id := order.ID
	if order.Status != authority.Processing {
		a.announced.Delete(id)
		return false, nil
	}
	if waits, err := a.waits(ctx, &order, &account); err != nil || waits {
		return false, err
	}
	return a.issueNow(ctx, order, account, known, nil)
}

// issueNow has the CA issue. With an opening, what went wrong before that came to pass
// is the caller's.
func (a *Authority) issueNow(ctx context.Context, order authority.Order, account authority.Account, known *authority.Facts, opening *ca.Opening) (issued bool, err error) {
	id := order.ID
	// Nothing is issued without a trace; one line for all attempts.
	if _, said := a.announced.Load(id); !said {
		err = a.event(ctx, "issuing", &account, slog.String("order", id), slog.String("device", order.Device.String()))
		if err != nil {
			return false, err
		}
	}
	issuance, err := a.cfg.CA.IssueKnown(ctx, id, known, opening)
	if err != nil && opening != nil && !opening.Done {
		return false, err
	}
	var signing *ca.SigningError
	if errors.As(err, &signing) {
		a.announced.Store(id, nil)
	} else {
		a.announced.Delete(id)
	}
	if err == nil {
		a.cfg.Issued("device")
		return true, a.event(ctx, "certificate issued", &account, slog.String("order", id), slog.String("device", order.Device.String()),
			slog.String("serial", hex.EncodeToString(issuance.Serial)), slog.Int64("leaf", issuance.Leaf))
	}
	return false, a.trouble(ctx, &account, id, err)
}

// waits reports whether an order lacks approvals. The CA decides the same again; this
// spares the audit stream, and notes for the applicant what the order waits for.
func (a *Authority) waits(ctx context.Context, order *authority.Order, account *authority.Account) (bool, error) {
	if !a.led {
		return order.Approvals > 0 || a.cfg.CA.Device().Approvals > 0, nil
	}
	p, err := a.cfg.CA.Propose(ctx, order.ID)
	if err != nil {
		return true, a.trouble(ctx, account, order.ID, err)
	}
	if p.Missing == nil || order.Reason == string(p.Missing.Why) {
		return p.Missing != nil, nil
	}
	err = a.cfg.Store.Update(ctx, func(tx *authority.Tx) error {
		return tx.SetReason(order.ID, authority.Processing, string(p.Missing.Why))
	})
	if errors.Is(err, authority.ErrState) { // it came to an end
		return true, nil
	}
	if err != nil {
		return true, err
	}
	return true, a.event(ctx, "order waits for approvals", account, slog.String("order", order.ID), slog.String("device", order.Device.String()),
		slog.String("why", string(p.Missing.Why)), slog.Int("have", p.Missing.Have), slog.Int("need", p.Missing.Need))
}

func (a *Authority) look(ctx context.Context, id string) (o authority.Order, account authority.Account, err error) {
	err = a.cfg.Store.Read(ctx, func(tx *authority.Tx) error {
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
	reason, ends := reasonOf(err)
	switch {
	case errors.Is(err, ca.ErrApprovals):
		return nil
	case errors.Is(err, authority.ErrRestored):
		return nil // the order waits until gateways were asked
	case errors.As(err, &signing):
		a.cfg.Log.Error("the issuing token did not sign; the order waits", "order", id, "error", err.Error())
		return nil
	case !ends:
		return a.damaged(ctx, err) // our own trouble: the order stays, Work tries again
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
	return a.event(ctx, "issuance refused", account, slog.String("order", id), slog.String("reason", reason), slog.String("detail", err.Error()))
}

// damaged tells the audit stream once when the database does not hold the record any
// more that this process knows. Nothing is decided until it does.
func (a *Authority) damaged(ctx context.Context, err error) error {
	if !errors.Is(err, book.ErrDamaged) {
		return err
	}
	if a.hurt.Swap(true) {
		return err
	}
	reason := record.ReasonOf(err)
	if reason == "" {
		reason = record.Rewritten
	}
	return errors.Join(err, a.cfg.Event(ctx, "record damaged", slog.String("reason", string(reason)), slog.String("detail", err.Error())))
}

// Certificate implements acme.Backend.
func (a *Authority) Certificate(ctx context.Context, account authority.Account, id string) ([][]byte, error) {
	var owner int64
	var status string
	var certificate []byte
	var err error
	if f := looked(ctx, id, ""); f != nil {
		owner, status, certificate = f.Order.Account, f.Order.Status, f.Issuance.Certificate
	} else {
		owner, status, certificate, err = a.cfg.CA.Certificate(ctx, id)
	}
	if err := owned(authority.Order{Account: owner}, account.ID, err); err != nil {
		return nil, err
	}
	if status != authority.Valid || len(certificate) == 0 {
		return nil, acme.Refuse(acme.NotFound, "there is no certificate; the order is "+status)
	}
	return append([][]byte{certificate}, a.cfg.CA.ChainOf(certificate)...), nil
}

const (
	// workEvery is how often Work looks for what was left: after a crash, or while
	// the token was away.
	workEvery = 2 * time.Second

	// judgeEvery is how often orders that wait for officers are judged again: their
	// evidence may have become too old.
	judgeEvery = time.Minute
)

// Work finishes orders that are "processing", removes what has expired, and judges
// devices' evidence again when the rules change, until ctx ends.
func (a *Authority) Work(ctx context.Context) error {
	tick := time.NewTicker(workEvery)
	defer tick.Stop()
	var purged, judged time.Time
	for {
		changed := a.book().Watch()
		now := a.cfg.Now()
		if err := a.book().Damage(); err != nil {
			a.report(ctx, "nothing is decided", a.damaged(ctx, err))
		} else {
			a.hurt.Store(false)
		}
		if now.Sub(purged) > time.Minute {
			purged = now
			a.report(ctx, "cleaning up failed", a.purge(ctx, now))
		}
		if !a.led {
			changed = nil
			a.report(ctx, "orders wait", a.Resume(ctx))
		} else if a.stirred.Swap(false) || now.Sub(judged) > judgeEvery || a.tokenWasAway() {
			judged = now
			a.report(ctx, "evidence waits to be judged", a.Reappraise(ctx))
			a.report(ctx, "orders wait", errors.Join(a.Resume(ctx), a.equipAll(ctx)))
		}
		if !a.pause(ctx, tick.C, changed) {
			return nil
		}
	}
}

// pause waits for the next tick, and notes a change of the record meanwhile: a burst of
// statements has orders judged once. It reports whether to go on.
func (a *Authority) pause(ctx context.Context, tick <-chan time.Time, changed <-chan struct{}) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-changed:
			a.stirred.Store(true)
			changed = nil
		case <-tick:
			return true
		}
	}
}

func (a *Authority) report(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		a.cfg.Log.Error(what, "error", err.Error())
	}
}

func (a *Authority) purge(ctx context.Context, now time.Time) error {
	return errors.Join(a.cfg.Store.Purge(ctx, now), a.cfg.Store.Update(ctx, func(tx *authority.Tx) error { return tx.PurgeApplications(now) }))
}

// tokenWasAway reports whether an order waits for nothing but the token.
func (a *Authority) tokenWasAway() (is bool) {
	a.announced.Range(func(any, any) bool { is = true; return false })
	return is
}

// Resume tries once to issue for every order that is "processing".
func (a *Authority) Resume(ctx context.Context) error {
	if !a.led && a.cfg.CA.Device().Approvals > 0 {
		return nil // nobody could approve
	}
	if a.led {
		if err := a.book().Sync(ctx); err != nil {
			return a.damaged(ctx, err)
		}
	}
	var errs error
	for last := (authority.Order{}); ctx.Err() == nil; {
		var page []authority.Order
		err := a.cfg.Store.View(ctx, func(tx *authority.Tx) (err error) {
			page, err = tx.OrdersAfter(authority.Processing, last, workBatch)
			return err
		})
		if err != nil || len(page) == 0 {
			return errors.Join(errs, err)
		}
		for _, o := range page {
			if ctx.Err() == nil {
				errs = errors.Join(errs, a.issue(ctx, o.ID))
			}
		}
		last = page[len(page)-1]
	}
	return errs
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
