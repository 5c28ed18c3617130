// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"time"

	"valise/identity"
)

// DeviceEvidence is what a device showed for its newest certificate.
type DeviceEvidence struct {
	Device   identity.DeviceID
	Address  identity.Address
	Evidence []byte // the attestation object
}

// Evidence returns the evidence behind devices' newest certificates, in the order of
// their ids, of those after a device, at most limit of them.
func (tx *Tx) Evidence(after identity.DeviceID, limit int) ([]DeviceEvidence, error) {
	var all []DeviceEvidence
	err := tx.each(func(scan func(...any) error) error {
		var e DeviceEvidence
		var device []byte
		var address string
		if err := scan(&device, &address, &e.Evidence); err != nil {
			return wrap(err)
		}
		copy(e.Device[:], device)
		var err error
		if e.Address, err = identity.ParseAddress(address); err != nil {
			return err
		}
		if n := len(all); n > 0 && all[n-1].Device == e.Device { // two of the same second: either will do
			return nil
		}
		all = append(all, e)
		return nil
	}, `SELECT o.device, a.address, z.evidence FROM orders o
		JOIN accounts a ON a.id = o.account JOIN authorizations z ON z.order_id = o.id
		WHERE o.device > $1 AND o.status = 'valid' AND o.created =
			(SELECT max(p.created) FROM orders p WHERE p.device = o.device AND p.status = 'valid')
		ORDER BY o.device LIMIT $2`, after[:], limit)
	return all, err
}

// OrdersAfter returns orders in a state, oldest first, those after the order given
// (the zero Order: all), at most limit of them.
func (tx *Tx) OrdersAfter(status string, o Order, limit int) ([]Order, error) {
	return tx.orders(orderColumns+"WHERE status = $1 AND (created > $2 OR created = $3 AND id > $4) ORDER BY created, id LIMIT $5",
		status, unix(o.Created), unix(o.Created), o.ID, limit)
}

// SetReason notes why an order that is in a state stays there.
func (tx *Tx) SetReason(id, status, reason string) error {
	return tx.change("UPDATE orders SET reason = $1 WHERE id = $2 AND status = $3", reason, id, status)
}

// AddApplication stores a nonce that was given out for an application.
func (tx *Tx) AddApplication(nonce string, expires time.Time) error {
	return tx.exec("INSERT INTO applications (nonce, expires) VALUES ($1, $2)", nonce, unix(expires))
}

// AcceptApplication stores what was accepted under a nonce: the same thing once more
// is no error, another one is ErrState, as is a nonce that has expired.
func (tx *Tx) AcceptApplication(nonce string, now time.Time, digest [32]byte, evidence []byte) error {
	return tx.change("UPDATE applications SET digest = $1, evidence = $2 WHERE nonce = $3 AND expires >= $4 AND (length(digest) = 0 OR digest = $5)",
		digest[:], evidence, nonce, unix(now), digest[:])
}

// Accepted reports whether an application of a digest was accepted.
func (tx *Tx) Accepted(digest [32]byte) (bool, error) {
	var n int
	err := tx.row("SELECT count(*) FROM applications WHERE digest = $1", digest[:])(&n)
	return n > 0, err
}

// PurgeApplications removes nonces that nobody used in time.
func (tx *Tx) PurgeApplications(now time.Time) error {
	return tx.exec("DELETE FROM applications WHERE expires < $1 AND length(digest) = 0", unix(now))
}
