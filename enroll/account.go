// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"

	"valise/enroll/acme"
	"valise/enroll/ca"
	"valise/internal/store/authority"
)

// UseNonceOf implements acme.Backend. What the request's path names is looked up with
// it.
func (a *Authority) UseNonceOf(ctx context.Context, nonce string, account int64) (authority.Account, error) {
	var look *authority.Look
	w := acme.Wants(ctx)
	switch {
	case w == nil:
	case w.Order != "":
		look = &authority.Look{Order: w.Order, Ref: ca.OrderRef(w.Order)}
	case w.Authorization != "":
		look = &authority.Look{Authorization: w.Authorization}
	}
	now, found, err := a.cfg.Store.UseNonceAndLook(ctx, nonce, account, a.cfg.Now(), look)
	if w != nil {
		w.Found = found
	}
	return now, nonceError(err)
}

// looked returns what was looked up when a request's nonce was used, once: whoever
// asks again wants to know how it is by then.
func looked(ctx context.Context, order, authorization string) *authority.Facts {
	w := acme.Wants(ctx)
	if w == nil || w.Found == nil || w.Order != order || w.Authorization != authorization {
		return nil
	}
	found := w.Found
	w.Found = nil
	return found
}

// useIn uses the nonce of a request in the transaction that does what it asks for. The
// account must be looked at after it, with the voucher's Good.
func (a *Authority) useIn(tx *authority.Tx, v *acme.Voucher) error {
	if v.Nonce == "" {
		return nil
	}
	return a.cfg.Store.UseNonceIn(tx, v.Nonce, a.cfg.Now())
}

// used ends a change that was to use a request's nonce.
func (a *Authority) used(ctx context.Context, v *acme.Voucher, err error) error {
	switch {
	case err == nil:
		v.Used()
	case errors.Is(err, authority.ErrNonce):
		err = errors.Join(err, a.cfg.Store.RefreshNonces(ctx))
	}
	return nonceError(err)
}

// UseNonceNow implements acme.Backend.
func (a *Authority) UseNonceNow(ctx context.Context, account authority.Account) (authority.Account, error) {
	v := acme.VoucherOf(ctx)
	if v.Nonce == "" {
		return account, nil
	}
	now, err := a.UseNonceOf(ctx, v.Nonce, account.ID)
	if err == nil {
		err = v.Good(&now)
		v.Used()
	}
	return now, err
}
