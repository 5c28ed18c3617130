// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"time"

	"valise/identity"
)

// Facts are all rows that stand behind an order, as of one moment.
type Facts struct {
	Order         Order
	Authorization Authorization
	Account       Account
	Person        Person   // the roster's line of the account's address,
	OnRoster      bool     // if there is one
	Issuance      Issuance // what was recorded for it, if Ref is set
}

const factsColumns = `SELECT orders.id, orders.account, orders.device, profile, approvals, orders.status, orders.reason, orders.created, orders.expires, csr,
	coalesce((SELECT certificate FROM replacements WHERE replacements.order_id = orders.id), ''),
	authorizations.id, authorizations.order_id, token, authorizations.status, authorizations.reason, authorizations.expires,
	validated, evidence, result,
	accounts.id, thumbprint, jwk, accounts.address, kid, accounts.status, accounts.device, accounts.created,
	coalesce(people.address, ''), coalesce(name, ''), coalesce(unit, ''), clearance, coalesce(people.changed, 0),
	coalesce(issuances.id, 0), coalesce(ref, ''), coalesce(kind, ''), coalesce(subject, ''), request, serial, coalesce(leaf, 0),
	tbs, issuances.certificate, coalesce(issuances.created, 0), coalesce(not_after, 0)
	FROM orders JOIN authorizations ON authorizations.order_id = orders.id JOIN accounts ON accounts.id = orders.account
	LEFT JOIN people ON people.address = accounts.address LEFT JOIN issuances ON issuances.ref = $1 `

// FactsOf finds an order and what belongs to it, in one question. ref is that of its
// issuance.
func (tx *Tx) FactsOf(order, ref string) (Facts, error) {
	return scanFacts(tx.row(factsColumns+"WHERE orders.id = $2", ref, order))
}

func scanFacts(row func(into ...any) error) (f Facts, err error) {
	var address, name, unit string
	var clearance []byte
	var changed int64
	// Each part reads its own columns, the last one all that were gathered.
	f.Order, err = scanOrder(func(columns ...any) (err error) {
		f.Authorization, err = scanAuthorization(func(more ...any) (err error) {
			columns = append(columns, more...)
			f.Account, err = scanAccount(func(more ...any) (err error) {
				columns = append(append(columns, more...), &address, &name, &unit, &clearance, &changed)
				f.Issuance, err = scanIssuance(func(more ...any) error { return row(append(columns, more...)...) })
				return err
			})
			return err
		})
		return err
	})
	if err != nil || address == "" {
		return f, err
	}
	f.Person, err = scanPerson(read(address, name, unit, clearance, changed))
	f.OnRoster = err == nil
	return f, err
}

// read is a scan of a roster's line that was read before.
func read(address, name, unit string, clearance []byte, changed int64) func(into ...any) error {
	return func(into ...any) error {
		*into[0].(*string), *into[1].(*string), *into[2].(*string) = address, name, unit
		*into[3].(*[]byte), *into[4].(*int64) = clearance, changed
		return nil
	}
}

// An Applicant is an account that wants a certificate for a device.
type Applicant struct {
	Account  Account
	Person   Person // the roster's line of its address,
	OnRoster bool   // if there is one
	Taken    bool   // the device is enrolled for another address
	Open     int    // its orders that have not come to an end
}

// Applicant finds an account with what decides about its orders, in one question.
func (tx *Tx) Applicant(account int64, device identity.DeviceID, now time.Time) (a Applicant, err error) {
	var others int
	var address, name, unit string
	var clearance []byte
	var changed int64
	a.Account, err = scanAccount(func(into ...any) error {
		return tx.row(`SELECT id, thumbprint, jwk, accounts.address, kid, status, device, created,
			coalesce(people.address, ''), coalesce(name, ''), coalesce(unit, ''), clearance, coalesce(people.changed, 0),
			(SELECT count(*) FROM accounts AS others WHERE others.device = $1 AND others.address <> accounts.address),
			(SELECT count(*) FROM orders WHERE orders.account = accounts.id
				AND (orders.status = 'processing' OR orders.status IN ('pending', 'ready') AND expires >= $2))
			FROM accounts LEFT JOIN people ON people.address = accounts.address WHERE id = $3`, device[:], unix(now), account)(
			append(into, &address, &name, &unit, &clearance, &changed, &others, &a.Open)...)
	})
	a.Taken = others > 0
	if err != nil || address == "" {
		return a, err
	}
	a.Person, err = scanPerson(read(address, name, unit, clearance, changed))
	a.OnRoster = err == nil
	return a, err
}

// CertificateOf finds an order's account, its status, and the certificate under the
// reference of its issuance, or none.
func (tx *Tx) CertificateOf(order, ref string) (account int64, status string, certificate []byte, err error) {
	err = tx.row("SELECT account, status, certificate FROM orders LEFT JOIN issuances ON issuances.ref = $1 WHERE orders.id = $2", ref, order)(
		&account, &status, &certificate)
	return account, status, certificate, err
}

// A Look is what to look up with an account: an order by its id, and its issuance by
// its reference; or an order by its authorization's id.
type Look struct{ Order, Ref, Authorization string }

func (l *Look) question() (query string, args []any) {
	if l.Order != "" {
		return factsColumns + "WHERE orders.id = $2", []any{l.Ref, l.Order}
	}
	return factsColumns + "WHERE authorizations.id = $2", []any{l.Ref, l.Authorization}
}
