// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"valise/identity"
)

// A Person is one line of the roster.
type Person struct {
	Address   identity.Address
	Name      string
	Unit      string
	Clearance *identity.Clearance // nil: none
	Changed   time.Time
}

// Person returns the roster's line for an address.
func (tx *Tx) Person(a identity.Address) (Person, error) {
	return scanPerson(tx.row("SELECT address, name, unit, clearance, changed FROM people WHERE address = $1", a.String()))
}

// People returns the whole roster, ordered by address.
func (tx *Tx) People() ([]Person, error) {
	var all []Person
	err := tx.each(func(scan func(...any) error) error {
		p, err := scanPerson(scan)
		all = append(all, p)
		return err
	}, "SELECT address, name, unit, clearance, changed FROM people ORDER BY address")
	return all, err
}

// PutPerson adds or replaces a line of the roster and reports whether anything
// changed.
func (tx *Tx) PutPerson(p Person) (changed bool, err error) {
	clearance := []byte{}
	if p.Clearance != nil {
		if clearance, err = p.Clearance.Marshal(); err != nil {
			return false, err
		}
	}
	old, err := tx.Person(p.Address)
	if err == nil && old.Name == p.Name && old.Unit == p.Unit && bytes.Equal(der(old.Clearance), clearance) {
		return false, nil
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	return true, tx.exec(`INSERT INTO people (address, name, unit, clearance, changed) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (address) DO UPDATE SET name = excluded.name, unit = excluded.unit,
		clearance = excluded.clearance, changed = excluded.changed`,
		p.Address.String(), p.Name, p.Unit, clearance, unix(p.Changed))
}

// RemovePerson takes an address off the roster: nothing is issued for it from then on.
func (tx *Tx) RemovePerson(a identity.Address) error {
	err := tx.change("DELETE FROM people WHERE address = $1", a.String())
	if errors.Is(err, ErrState) {
		return ErrNotFound
	}
	return err
}

func der(c *identity.Clearance) []byte {
	if c == nil {
		return nil
	}
	b, err := c.Marshal()
	if err != nil {
		return nil
	}
	return b
}

func scanPerson(scan func(...any) error) (Person, error) {
	var p Person
	var address string
	var clearance []byte
	var changed int64
	err := scan(&address, &p.Name, &p.Unit, &clearance, &changed)
	if err != nil {
		return p, wrapScan(err)
	}
	if p.Address, err = identity.ParseAddress(address); err != nil {
		return p, fmt.Errorf("authority: roster is damaged: %w", err)
	}
	if len(clearance) > 0 {
		if p.Clearance, err = identity.ParseClearance(clearance); err != nil {
			return p, fmt.Errorf("authority: roster is damaged: %s: %w", address, err)
		}
	}
	p.Changed = fromUnix(changed)
	return p, nil
}

// wrapScan wraps what a row's own scan has not wrapped yet.
func wrapScan(err error) error {
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists) {
		return err
	}
	return wrap(err)
}

// An Invitation lets one person make one account (RFC 8555, Section 7.3.4).
type Invitation struct {
	KID     string
	Key     []byte // empty once used
	Address identity.Address
	Created time.Time
	Expires time.Time
	Used    time.Time // zero: not used
	// Statement is the officer's, as compact JWS; empty: made without officers.
	Statement []byte
}

// AddInvitation stores a new invitation.
func (tx *Tx) AddInvitation(i Invitation) error {
	return tx.exec("INSERT INTO invitations (kid, key, address, created, expires, statement) VALUES ($1, $2, $3, $4, $5, $6)",
		i.KID, i.Key, i.Address.String(), unix(i.Created), unix(i.Expires), blob(i.Statement))
}

// Invitation finds an invitation by its key identifier, used or not.
func (tx *Tx) Invitation(kid string) (Invitation, error) {
	i := Invitation{KID: kid}
	var address string
	var created, expires, used int64
	err := tx.row("SELECT key, address, created, expires, used, statement FROM invitations WHERE kid = $1", kid)(
		&i.Key, &address, &created, &expires, &used, &i.Statement)
	if err != nil {
		return i, err
	}
	i.Created, i.Expires, i.Used = fromUnix(created), fromUnix(expires), fromUnix(used)
	i.Address, err = identity.ParseAddress(address)
	return i, err
}

// UseInvitation marks an unused invitation as used and erases its key. It returns
// ErrState if it was used before.
func (tx *Tx) UseInvitation(kid string, now time.Time) error {
	return tx.change("UPDATE invitations SET used = $1, key = $2 WHERE kid = $3 AND used = 0", unix(now), []byte{}, kid)
}

// An Account is an ACME account: a software key of a device that may ask for
// certificates for one address.
type Account struct {
	ID         int64
	Thumbprint string // RFC 7638, base64url
	JWK        []byte // canonical JSON
	Address    identity.Address
	KID        string             // of the invitation
	Status     string             // "valid" or "deactivated"
	Device     *identity.DeviceID // nil until its first evidence is accepted
	Created    time.Time
}

// AddAccount stores a new account and returns its number.
func (tx *Tx) AddAccount(a Account) (int64, error) {
	var id int64
	err := tx.row(`INSERT INTO accounts (id, thumbprint, jwk, address, kid, status, device, created)
		SELECT coalesce(max(id), 0) + 1, $1, $2, $3, $4, $5, $6, $7 FROM accounts WHERE true RETURNING id`,
		a.Thumbprint, a.JWK, a.Address.String(), a.KID, a.Status, []byte{}, unix(a.Created))(&id)
	return id, err
}

const accountColumns = "SELECT id, thumbprint, jwk, address, kid, status, device, created FROM accounts "

// Account finds an account by its number.
func (tx *Tx) Account(id int64) (Account, error) {
	return scanAccount(tx.row(accountColumns+"WHERE id = $1", id))
}

// AccountByKey finds an account by its key's thumbprint.
func (tx *Tx) AccountByKey(thumbprint string) (Account, error) {
	return scanAccount(tx.row(accountColumns+"WHERE thumbprint = $1", thumbprint))
}

// BindAccount ties an account to the device whose evidence was accepted first. It
// returns ErrState if the account belongs to another device.
func (tx *Tx) BindAccount(id int64, device identity.DeviceID) error {
	return tx.change("UPDATE accounts SET device = $1 WHERE id = $2 AND (length(device) = 0 OR device = $3)", device[:], id, device[:])
}

// DeactivateAccount ends an account (RFC 8555, Section 7.3.6).
func (tx *Tx) DeactivateAccount(id int64) error {
	return tx.change("UPDATE accounts SET status = 'deactivated' WHERE id = $1 AND status = 'valid'", id)
}

func scanAccount(scan func(...any) error) (Account, error) {
	var a Account
	var address string
	var device []byte
	var created int64
	err := scan(&a.ID, &a.Thumbprint, &a.JWK, &address, &a.KID, &a.Status, &device, &created)
	if err != nil {
		return a, wrapScan(err)
	}
	a.Created = fromUnix(created)
	if len(device) > 0 {
		a.Device = new(identity.DeviceID)
		if copy(a.Device[:], device) != len(a.Device) {
			return a, fmt.Errorf("authority: account %d is damaged", a.ID)
		}
	}
	if a.Address, err = identity.ParseAddress(address); err != nil {
		return a, fmt.Errorf("authority: account %d is damaged: %w", a.ID, err)
	}
	return a, nil
}
