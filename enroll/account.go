// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"

	"valise/internal/store/authority"
)

// UseNonceOf implements acme.Backend.
func (a *Authority) UseNonceOf(ctx context.Context, nonce string, account int64) (authority.Account, error) {
	now, err := a.cfg.Store.UseNonceOf(ctx, nonce, account, a.cfg.Now())
	return now, nonceError(err)
}
