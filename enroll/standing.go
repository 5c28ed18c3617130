// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"crypto/x509"
	"errors"

	"valise/enroll/acme"
	"valise/enroll/book"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/manifest"
	"valise/record"
)

func (a *Authority) book() *book.Book { return a.cfg.CA.Book() }

// officers reports whether officers decide here.
func (a *Authority) officers() bool { return a.led }

// standing refuses a person and a device of which the record says that they are off
// the roster, suspended or revoked. It must not be called inside a transaction.
func (a *Authority) standing(address identity.Address, device identity.DeviceID) (err error) {
	if !a.officers() {
		return nil
	}
	a.book().View(func(s *record.State) {
		if err = s.OnRoster(address); err == nil {
			err = s.Barred(address, device)
		}
	})
	return refusal(err)
}

// invited refuses an invitation that no officer signed, whatever stands in the
// database.
func (a *Authority) invited(ctx context.Context, b *acme.Binding) error {
	if b == nil || !a.officers() {
		return nil
	}
	var inv authority.Invitation
	err := a.cfg.Store.View(ctx, func(tx *authority.Tx) (err error) { inv, err = tx.Invitation(b.KID); return err })
	if errors.Is(err, authority.ErrNotFound) {
		return nil // register says so
	}
	if err != nil {
		return err
	}
	a.book().View(func(s *record.State) {
		signed, ok := s.Invitation(b.KID)
		if !ok || signed.Address != inv.Address {
			err = acme.Refuse(acme.InvitationUnknown, "no officer made this invitation")
			return
		}
		if err = s.OnRoster(inv.Address); err == nil {
			err = s.Barred(inv.Address, identity.DeviceID{})
		}
	})
	return refusal(err)
}

// refusal turns what the record finds into what the front refuses.
func refusal(err error) error {
	if f, ok := errors.AsType[*record.Finding](err); ok {
		return acme.Refuse(acme.Reason(f.Reason), f.Detail)
	}
	return err
}

// ErrOfficers says that a command does what officers do here.
var ErrOfficers = errors.New("officers decide about this here, at their desk")

// LedByOfficers reports whether a database is that of an authority with officers,
// for commands that open nothing else.
func LedByOfficers(ctx context.Context, s *authority.Store, root *x509.Certificate) (bool, error) {
	var items []ledger.Item
	err := s.View(ctx, func(tx *authority.Tx) (err error) { items, err = tx.Items(0, 1); return err })
	if err != nil || len(items) == 0 || items[0].Entry.Kind != ledger.KindFounding {
		return false, err
	}
	f, err := manifest.ParseFounding(items[0].Payload, root)
	return err == nil && !f.Lone(), err
}
