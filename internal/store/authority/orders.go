// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"context"
	"errors"
	"fmt"
	"time"

	"valise/identity"
	"valise/internal/store"
)

// States of orders and authorizations (RFC 8555, Section 7.1.6).
const (
	Pending     = "pending"
	Ready       = "ready"
	Processing  = "processing"
	Valid       = "valid"
	Invalid     = "invalid"
	Expired     = "expired"     // authorizations only
	Deactivated = "deactivated" // accounts only
)

// An Order asks for one certificate for one device.
type Order struct {
	ID        string
	Account   int64
	Device    identity.DeviceID
	Profile   string
	Approvals int // how many it needs
	Status    string
	Reason    string // why it is invalid
	Created   time.Time
	Expires   time.Time
	CSR       []byte
	Replaces  string // the certificate that it is to replace (RFC 9773, Section 5), or ""
}

// An Authorization holds an order's only challenge and what came back.
type Authorization struct {
	ID        string
	Order     string
	Token     string
	Status    string
	Reason    string
	Expires   time.Time
	Validated time.Time
	Evidence  []byte // the attestation object
	Result    []byte // JSON
}

// AddOrder stores a new order and its authorization.
func (tx *Tx) AddOrder(o Order, a Authorization) error {
	later := tx.Later()
	err := later.exec("INSERT INTO orders (id, account, device, profile, approvals, status, created, expires) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		o.ID, o.Account, o.Device[:], o.Profile, o.Approvals, o.Status, unix(o.Created), unix(o.Expires))
	if err != nil {
		return err
	}
	return later.exec("INSERT INTO authorizations (id, order_id, token, status, expires) VALUES ($1, $2, $3, $4, $5)",
		a.ID, o.ID, a.Token, a.Status, unix(a.Expires))
}

const orderColumns = "SELECT id, account, device, profile, approvals, status, reason, created, expires, csr, " +
	"coalesce((SELECT certificate FROM replacements WHERE order_id = orders.id), '') FROM orders "

// Order finds an order.
func (tx *Tx) Order(id string) (Order, error) {
	return scanOrder(tx.row(orderColumns+"WHERE id = $1", id))
}

// Orders returns the orders in a state, oldest first, at most limit of them.
func (tx *Tx) Orders(status string, limit int) ([]Order, error) {
	return tx.orders(orderColumns+"WHERE status = $1 ORDER BY created, id LIMIT $2", status, limit)
}

// AccountOrders returns an account's orders, newest first, at most limit of them
// (RFC 8555, Section 7.1.2.1).
func (tx *Tx) AccountOrders(account int64, limit int) ([]Order, error) {
	return tx.orders(orderColumns+"WHERE account = $1 ORDER BY created DESC, id LIMIT $2", account, limit)
}

func (tx *Tx) orders(query string, args ...any) ([]Order, error) {
	var all []Order
	err := tx.each(func(scan func(...any) error) error {
		o, err := scanOrder(scan)
		all = append(all, o)
		return err
	}, query, args...)
	return all, err
}

// CountOrders returns how many orders are in each state.
func (tx *Tx) CountOrders() (map[string]int64, error) {
	counts := make(map[string]int64)
	err := tx.each(func(scan func(...any) error) error {
		var status string
		var n int64
		if err := scan(&status, &n); err != nil {
			return err
		}
		counts[status] = n
		return nil
	}, "SELECT status, count(*) FROM orders GROUP BY status")
	return counts, err
}

// MoveOrder changes an order's state from one to another.
func (tx *Tx) MoveOrder(id, from, to, reason string) error {
	return tx.change("UPDATE orders SET status = $1, reason = $2 WHERE id = $3 AND status = $4", to, reason, id, from)
}

// FinalizeOrder stores the CSR of a ready order, which is "processing" from then on.
func (tx *Tx) FinalizeOrder(id string, csr []byte) error {
	return tx.change("UPDATE orders SET status = 'processing', csr = $1 WHERE id = $2 AND status = 'ready'", csr, id)
}

const authorizationColumns = "SELECT id, order_id, token, status, reason, expires, validated, evidence, result FROM authorizations "

// Authorization finds an authorization.
func (tx *Tx) Authorization(id string) (Authorization, error) {
	return scanAuthorization(tx.row(authorizationColumns+"WHERE id = $1", id))
}

// OrderOf finds an order with its authorization, by the order's id, in one question.
func (tx *Tx) OrderOf(id string) (Order, Authorization, error) {
	return tx.orderPair("orders.id = $1", id)
}

// OrderOfAuthorization is OrderOf by the authorization's id.
func (tx *Tx) OrderOfAuthorization(id string) (Order, Authorization, error) {
	return tx.orderPair("authorizations.id = $1", id)
}

func (tx *Tx) orderPair(where string, id string) (o Order, z Authorization, err error) {
	err = tx.each(func(scan func(...any) error) error {
		o, err = scanOrder(func(order ...any) error {
			z, err = scanAuthorization(func(authorization ...any) error { return scan(append(order, authorization...)...) })
			return err
		})
		return err
	}, `SELECT orders.id, account, device, profile, approvals, orders.status, orders.reason, created, orders.expires, csr,
		coalesce((SELECT certificate FROM replacements WHERE replacements.order_id = orders.id), ''),
		authorizations.id, authorizations.order_id, token, authorizations.status, authorizations.reason, authorizations.expires,
		validated, evidence, result
		FROM orders JOIN authorizations ON authorizations.order_id = orders.id WHERE `+where, id)
	if err == nil && o.ID == "" {
		err = ErrNotFound
	}
	return o, z, err
}

// CloseAuthorization stores what a challenge brought, once.
func (tx *Tx) CloseAuthorization(a Authorization) error {
	return tx.change(`UPDATE authorizations SET status = $1, reason = $2, validated = $3, evidence = $4, result = $5
		WHERE id = $6 AND status = 'pending'`, a.Status, a.Reason, unix(a.Validated), blob(a.Evidence), blob(a.Result), a.ID)
}

func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func scanOrder(scan func(...any) error) (Order, error) {
	var o Order
	var device []byte
	var created, expires int64
	err := scan(&o.ID, &o.Account, &device, &o.Profile, &o.Approvals, &o.Status, &o.Reason, &created, &expires, &o.CSR, &o.Replaces)
	if err != nil {
		return o, wrapScan(err)
	}
	if copy(o.Device[:], device) != len(o.Device) {
		return o, fmt.Errorf("authority: order %s is damaged", o.ID)
	}
	o.Created, o.Expires = fromUnix(created), fromUnix(expires)
	return o, nil
}

func scanAuthorization(scan func(...any) error) (Authorization, error) {
	var a Authorization
	var expires, validated int64
	err := scan(&a.ID, &a.Order, &a.Token, &a.Status, &a.Reason, &expires, &validated, &a.Evidence, &a.Result)
	if err != nil {
		return a, wrapScan(err)
	}
	a.Expires, a.Validated = fromUnix(expires), fromUnix(validated)
	return a, nil
}

// An Issuance is a certificate on its way: from the moment its leaf is in the
// ledger until, and after, it is signed.
type Issuance struct {
	ID          int64
	Ref         string
	Kind        string
	Subject     string
	Request     []byte // SHA-256 of the CSR
	Serial      []byte
	Leaf        int64
	TBS         []byte
	Certificate []byte // empty until signed
	Created     time.Time
	NotAfter    time.Time
}

// Done reports whether the certificate exists.
func (i *Issuance) Done() bool { return len(i.Certificate) > 0 }

// AddIssuance stores the TBS of a certificate that will be signed.
func (tx *Tx) AddIssuance(i Issuance) error {
	if err := tx.Writable(); err != nil {
		return err
	}
	return tx.Later().exec(`INSERT INTO issuances (id, ref, kind, subject, request, serial, leaf, tbs, created, not_after)
		SELECT coalesce(max(id), 0) + 1, $1, $2, $3, $4, $5, $6, $7, $8, $9 FROM issuances WHERE true`,
		i.Ref, i.Kind, i.Subject, i.Request, i.Serial, i.Leaf, i.TBS, unix(i.Created), unix(i.NotAfter))
}

// CompleteIssuance stores the signed certificate, once: ErrState means that another
// one was faster, and that its certificate is the one that counts.
func (tx *Tx) CompleteIssuance(ref string, certificate []byte) error {
	if err := tx.Writable(); err != nil {
		return err
	}
	return tx.change("UPDATE issuances SET certificate = $1 WHERE ref = $2 AND length(certificate) = 0", certificate, ref)
}

// CompleteOrder stores the signed certificate of an order whose leaf is in the ledger,
// and makes the order "valid": on PostgreSQL in one question, because it may be asked
// again. leaves is how many the ledger must have. ErrState says that one of all this is
// not so; then nothing has changed.
func (s *Store) CompleteOrder(ctx context.Context, order, ref string, certificate []byte, leaves int64) error {
	if s.db.Dialect() != store.PostgreSQL {
		return s.Update(ctx, func(tx *Tx) error {
			size, err := tx.LedgerSize()
			if err == nil && size != leaves {
				err = ErrState
			}
			return errors.Join(err, tx.CompleteIssuance(ref, certificate), tx.MoveOrder(order, Processing, Valid, ""))
		})
	}
	done := false
	err := s.db.Ask(ctx, store.Question{
		SQL: `WITH completed AS (UPDATE issuances SET certificate = $1 WHERE ref = $2 AND length(certificate) = 0
				AND (SELECT coalesce(max(id) + 1, 0) FROM leaves) = $3 AND NOT EXISTS (SELECT 1 FROM meta WHERE name = $4) RETURNING 1),
			moved AS (UPDATE orders SET status = 'valid', reason = '' WHERE id = $5 AND status = 'processing' AND EXISTS (SELECT 1 FROM completed) RETURNING 1)
			SELECT CASE WHEN (SELECT count(*) FROM completed) = 0 THEN 0 ELSE 1 / CAST((SELECT count(*) FROM moved) AS INTEGER) END`,
		Args: []any{certificate, ref, leaves, flagRestored, order},
		Row: func(scan func(...any) error) error {
			var n int
			err := scan(&n)
			done = n == 1
			return err
		},
	})
	if err == nil && !done || store.IsDivisionByZero(err) {
		err = ErrState
	}
	return wrap(err)
}

const issuanceColumns = "SELECT id, ref, kind, subject, request, serial, leaf, tbs, certificate, created, not_after FROM issuances "

// Issuance finds an issuance by its reference.
func (tx *Tx) Issuance(ref string) (Issuance, error) {
	return scanIssuance(tx.row(issuanceColumns+"WHERE ref = $1", ref))
}

// OpenIssuance finds the unsigned issuance for a request, if a crash left one.
func (tx *Tx) OpenIssuance(kind, subject string, request []byte) (Issuance, error) {
	return scanIssuance(tx.row(issuanceColumns+"WHERE request = $1 AND kind = $2 AND subject = $3 AND length(certificate) = 0 ORDER BY id LIMIT 1",
		request, kind, subject))
}

// LatestIssuance finds the newest issuance for a request, signed or not.
func (tx *Tx) LatestIssuance(kind, subject string, request []byte) (Issuance, error) {
	return scanIssuance(tx.row(issuanceColumns+"WHERE request = $1 AND kind = $2 AND subject = $3 ORDER BY id DESC LIMIT 1",
		request, kind, subject))
}

// Issuances returns everything that was issued, oldest first.
func (tx *Tx) Issuances() ([]Issuance, error) {
	var all []Issuance
	err := tx.each(func(scan func(...any) error) error {
		i, err := scanIssuance(scan)
		all = append(all, i)
		return err
	}, issuanceColumns+"ORDER BY id")
	return all, err
}

func scanIssuance(scan func(...any) error) (Issuance, error) {
	var i Issuance
	var created, notAfter int64
	err := scan(&i.ID, &i.Ref, &i.Kind, &i.Subject, &i.Request, &i.Serial, &i.Leaf, &i.TBS, &i.Certificate, &created, &notAfter)
	if err != nil {
		return i, wrapScan(err)
	}
	i.Created, i.NotAfter = fromUnix(created), fromUnix(notAfter)
	return i, nil
}
