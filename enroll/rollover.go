// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"log/slog"

	"valise/enroll/acme"
	"valise/internal/store/authority"
)

// ChangeKey implements acme.Backend (RFC 8555, Section 7.3.5). It waits for orders
// whose challenge is answered: their evidence is signed over the present key's
// thumbprint, and is judged again when the certificate is built.
func (a *Authority) ChangeKey(ctx context.Context, account authority.Account, thumbprint string, jwk []byte) (taken int64, err error) {
	err = a.cfg.Store.Update(ctx, func(tx *authority.Tx) error {
		taken = 0
		err := tx.ChangeAccountKey(account.ID, account.Thumbprint, thumbprint, jwk)
		if !errors.Is(err, authority.ErrExists) {
			return err
		}
		other, lookErr := tx.AccountByKey(thumbprint)
		if lookErr != nil {
			return lookErr
		}
		taken = other.ID
		return acme.Refuse(acme.AccountKeyTaken, "the new key has an account already")
	})
	if errors.Is(err, authority.ErrState) {
		return 0, acme.Refuse(acme.AccountKeyInUse, "an order's evidence is bound to the present key, or the key has changed meanwhile: finish the order, or let it expire, and try again")
	}
	if err != nil {
		return taken, err
	}
	return 0, a.event(ctx, "account key changed", &account, slog.String("from", account.Thumbprint), slog.String("to", thumbprint))
}
