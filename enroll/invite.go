// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"valise/enroll/acme"
	"valise/identity"
	"valise/internal/store/authority"
)

// An Inviter makes invitations in a lone authority. It needs no token, so that a
// command can do it while the daemon runs. Where there are officers, they invite.
type Inviter struct {
	Store *authority.Store
	URL   string
	Root  *x509.Certificate
	Event func(ctx context.Context, event string, attrs ...slog.Attr) error
	Now   func() time.Time
}

// ErrNotOnRoster says that there is nobody to invite.
var ErrNotOnRoster = errors.New("the address is not on the roster: import it first")

// Invite makes an invitation for one person on the roster, one use, 24 hours: a
// 256-bit key that binds an account to the address (RFC 8555, Section 7.3.4).
func (v *Inviter) Invite(ctx context.Context, address identity.Address) (identity.Invitation, error) {
	if led, err := LedByOfficers(ctx, v.Store, v.Root); err != nil {
		return identity.Invitation{}, err
	} else if led {
		return identity.Invitation{}, ErrOfficers
	}
	now := v.Now().UTC().Truncate(time.Second)
	inv := identity.Invitation{
		URL: v.URL, KID: rand.Text(), Key: make([]byte, 32), Root: sha256.Sum256(v.Root.Raw),
		Address: address, Expires: now.Add(InvitationLife),
	}
	rand.Read(inv.Key)
	if err := inv.Check(); err != nil {
		return inv, err
	}
	err := v.Store.Update(ctx, func(tx *authority.Tx) error {
		if _, err := tx.Person(address); errors.Is(err, authority.ErrNotFound) {
			return fmt.Errorf("%s: %w", address, ErrNotOnRoster)
		} else if err != nil {
			return err
		}
		return tx.AddInvitation(authority.Invitation{
			KID: inv.KID, Key: inv.Key, Address: address, Created: now, Expires: inv.Expires,
		})
	})
	if err != nil {
		return identity.Invitation{}, err
	}
	err = v.Event(ctx, "invitation made", slog.String("address", address.String()),
		slog.String("invitation", inv.KID), slog.Time("expires", inv.Expires))
	return inv, err
}

// Register implements acme.Backend: one account for one invitation.
func (a *Authority) Register(ctx context.Context, thumbprint string, jwk []byte, b *acme.Binding) (authority.Account, bool, error) {
	var account authority.Account
	isNew := false
	invited := a.invited(ctx, b)
	err := a.cfg.Store.Update(ctx, func(tx *authority.Tx) error {
		var err error
		isNew = false
		account, err = tx.AccountByKey(thumbprint)
		if err == nil && account.Status != authority.Valid {
			return acme.Refuse(acme.AccountDeactivated, "the account is deactivated; ask for a new invitation")
		}
		if !errors.Is(err, authority.ErrNotFound) {
			return err // or nil: the account that this key has (RFC 8555, Section 7.3.1)
		}
		account, err = a.register(tx, thumbprint, jwk, b, invited)
		isNew = err == nil
		return err
	})
	if err == nil && isNew {
		err = a.event(ctx, "account made", &account, slog.String("invitation", account.KID))
	}
	return account, isNew, err
}

// register makes an account. invited is what officers, where there are any, say to it.
func (a *Authority) register(tx *authority.Tx, thumbprint string, jwk []byte, b *acme.Binding, invited error) (authority.Account, error) {
	none := authority.Account{}
	if b == nil {
		return none, acme.Refuse(acme.InvitationRequired, "an account needs an invitation (external account binding)")
	}
	now := a.cfg.Now()
	inv, err := tx.Invitation(b.KID)
	switch {
	case errors.Is(err, authority.ErrNotFound):
		return none, acme.Refuse(acme.InvitationUnknown, "this authority did not make this invitation")
	case err != nil:
		return none, err
	case !inv.Used.IsZero():
		return none, acme.Refuse(acme.InvitationUsed, "the invitation was used before; ask for a new one")
	case now.After(inv.Expires):
		return none, acme.Refuse(acme.InvitationExpired, "the invitation has expired; ask for a new one")
	case b.Verify(inv.Key) != nil:
		return none, acme.Refuse(acme.InvitationKey, "the account key is not bound by this invitation's key")
	}
	if invited != nil {
		return none, invited
	}
	if err := a.onRoster(tx, inv.Address); err != nil {
		return none, err
	}
	if err := tx.UseInvitation(inv.KID, now); err != nil {
		return none, err
	}
	account := authority.Account{
		Thumbprint: thumbprint, JWK: jwk, Address: inv.Address, KID: inv.KID,
		Status: authority.Valid, Created: now,
	}
	account.ID, err = tx.AddAccount(account)
	return account, err
}

// onRoster looks at the roster of a lone authority. Officers' stands in the record.
func (a *Authority) onRoster(tx *authority.Tx, address identity.Address) error {
	if a.officers() {
		return nil
	}
	_, err := tx.Person(address)
	if errors.Is(err, authority.ErrNotFound) {
		return notOnRoster(address)
	}
	return err
}

func notOnRoster(address identity.Address) error {
	return acme.Refuse(acme.NotOnRoster, address.String()+" is not on the roster (any more)")
}

// Account implements acme.Backend.
func (a *Authority) Account(ctx context.Context, id int64) (account authority.Account, err error) {
	err = a.cfg.Store.Read(ctx, func(tx *authority.Tx) error {
		account, err = tx.Account(id)
		return err
	})
	if errors.Is(err, authority.ErrNotFound) {
		err = acme.Refuse(acme.UnknownAccount, "there is no such account")
	}
	return account, err
}

// Deactivate implements acme.Backend.
func (a *Authority) Deactivate(ctx context.Context, account authority.Account) error {
	err := a.cfg.Store.Update(ctx, func(tx *authority.Tx) error { return tx.DeactivateAccount(account.ID) })
	if errors.Is(err, authority.ErrState) {
		return acme.Refuse(acme.AccountDeactivated, "the account is deactivated already")
	}
	if err != nil {
		return err
	}
	return a.event(ctx, "account deactivated", &account)
}
