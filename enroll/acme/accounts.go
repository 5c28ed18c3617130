// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"sync"

	"github.com/go-jose/go-jose/v4"

	"valise/internal/store/authority"
)

// accounts remembers whose key signs, so that a request costs one question to the
// database: the one that uses its nonce, and that says how the account stands now.
// What is remembered decides nothing but which key a signature is tried with first.
type accounts struct {
	backend Backend

	mu    sync.Mutex
	known map[int64]*signatory // guarded by mu
}

// A signatory is an account with its key.
type signatory struct {
	account authority.Account
	key     *jose.JSONWebKey
}

// find returns an account in good standing as it was some time ago, or is now.
func (a *accounts) find(ctx context.Context, id int64, now bool) (*signatory, error) {
	a.mu.Lock()
	who := a.known[id]
	a.mu.Unlock()
	if who != nil && !now {
		return who, nil
	}
	account, err := a.backend.Account(ctx, id)
	if err == nil {
		err = standing(&account)
	}
	if err != nil {
		a.forget(id)
		return nil, err
	}
	key := new(jose.JSONWebKey)
	if err := key.UnmarshalJSON(account.JWK); err != nil {
		return nil, err
	}
	who = &signatory{account, key}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) >= maxAccounts {
		clear(a.known)
	}
	a.known[id] = who
	return who, nil
}

func (a *accounts) forget(id int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.known, id)
}

func standing(account *authority.Account) error {
	if account.Status != authority.Valid {
		return Refuse(AccountDeactivated, "the account is deactivated; ask for a new invitation")
	}
	return nil
}

// admit verifies a message by an account's key, uses its nonce, and returns account
// and payload (RFC 8555, Sections 6.2 and 6.5). If the nonce is to be used later, the
// account is as it was some time ago, and the context's Voucher holds the nonce.
func (a *accounts) admit(ctx context.Context, m *message, id int64, later bool) (authority.Account, []byte, error) {
	none := authority.Account{}
	who, err := a.find(ctx, id, false)
	if err != nil {
		return none, nil, err
	}
	payload, err := m.verify(who.key)
	if err != nil {
		// Another process may have given the account another key.
		old := who.account.Thumbprint
		fresh, lookErr := a.find(ctx, id, true)
		if lookErr != nil {
			return none, nil, lookErr
		}
		if who = fresh; who.account.Thumbprint != old {
			payload, err = m.verify(who.key)
		}
	}
	if err != nil {
		return none, nil, err
	}
	if later {
		*VoucherOf(ctx) = Voucher{Nonce: m.nonce, Thumbprint: who.account.Thumbprint, account: id}
		return who.account, payload, nil
	}
	now, err := a.backend.UseNonceOf(ctx, m.nonce, id)
	if err != nil {
		return none, nil, err
	}
	if err := standing(&now); err != nil {
		a.forget(id)
		return now, nil, err
	}
	if now.Thumbprint != who.account.Thumbprint {
		a.forget(id)
		return now, nil, errFormerKey
	}
	return now, payload, nil
}
