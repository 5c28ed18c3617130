// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"

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

// known returns a copy of what was looked up about an order, for the CA to begin with,
// or nil. Where there are officers, what the order waits for is written to it first.
func (a *Authority) known(ctx context.Context, order string) *authority.Facts {
	w := acme.Wants(ctx)
	if a.led || w == nil || w.Found == nil || w.Order != order {
		return nil
	}
	found := *w.Found
	return &found
}
