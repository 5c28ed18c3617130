// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"errors"
	"time"

	"valise/identity"
)

// MaxGatewayRequests bounds the requests that wait: far more than an authority has
// gateways. The oldest makes room.
const MaxGatewayRequests = 100

// ErrGatewayRequest says that a request's parts are too long to be kept.
var ErrGatewayRequest = errors.New("authority: a gateway's request is too large to be kept")

// maxGatewayRequest bounds evidence, names and CSR in all.
const maxGatewayRequest = 1 << 20

// A GatewayRequest waits for officers. Nothing rests on it: what officers sign is made
// from it and shown to them, and what is issued is what they signed.
type GatewayRequest struct {
	Key      identity.DeviceID
	Change   string
	Names    string // separated by spaces
	CSR      []byte
	Evidence []byte
	Created  time.Time
}

// PutGatewayRequest stores a request in the place of the last one for the same key.
func (tx *Tx) PutGatewayRequest(r GatewayRequest) error {
	if err := tx.Writable(); err != nil {
		return err
	}
	if len(r.Names)+len(r.CSR)+len(r.Evidence) > maxGatewayRequest {
		return ErrGatewayRequest
	}
	if err := tx.DropGatewayRequest(r.Key); err != nil {
		return err
	}
	err := tx.exec("INSERT INTO gateway_requests (device, change, names, csr, evidence, created) VALUES ($1, $2, $3, $4, $5, $6)",
		r.Key[:], r.Change, r.Names, r.CSR, blob(r.Evidence), unix(r.Created))
	if err != nil {
		return err
	}
	return tx.exec("DELETE FROM gateway_requests WHERE device NOT IN (SELECT device FROM gateway_requests ORDER BY created DESC, device LIMIT $1)", MaxGatewayRequests)
}

// DropGatewayRequest removes a key's request; there may be none.
func (tx *Tx) DropGatewayRequest(key identity.DeviceID) error {
	return tx.exec("DELETE FROM gateway_requests WHERE device = $1", key[:])
}

// GatewayRequests returns all of them, oldest first.
func (tx *Tx) GatewayRequests() (all []GatewayRequest, err error) {
	err = tx.each(func(scan func(...any) error) error {
		var r GatewayRequest
		var key []byte
		var created int64
		if err := scan(&key, &r.Change, &r.Names, &r.CSR, &r.Evidence, &created); err != nil {
			return wrap(err)
		}
		copy(r.Key[:], key)
		r.Created = fromUnix(created)
		all = append(all, r)
		return nil
	}, "SELECT device, change, names, csr, evidence, created FROM gateway_requests ORDER BY created, device")
	return all, err
}
