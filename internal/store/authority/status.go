// SPDX-License-Identifier: Apache-2.0

package authority

import "time"

// A StoredCRL is a certificate revocation list, or the number of one that is being
// signed.
type StoredCRL struct {
	Number int64
	State  []byte // what it lists, hashed
	Until  time.Time
	DER    []byte // empty until it is signed
}

// ReserveCRL takes the next number, which no other list will ever have.
func (tx *Tx) ReserveCRL(state []byte, until time.Time) (int64, error) {
	if err := tx.Writable(); err != nil {
		return 0, err
	}
	var number int64
	err := tx.row(`INSERT INTO crls (number, state, until) SELECT coalesce(max(number), 0) + 1, $1, $2 FROM crls WHERE true
		RETURNING number`, state, unix(until))(&number)
	return number, err
}

// AddCRL stores a signed list under its number, and forgets older ones.
func (tx *Tx) AddCRL(c StoredCRL) error {
	if err := tx.change("UPDATE crls SET der = $1 WHERE number = $2", c.DER, c.Number); err != nil {
		return err
	}
	return tx.exec("DELETE FROM crls WHERE number < $1", c.Number)
}

// LatestCRL returns the newest list that is signed.
func (tx *Tx) LatestCRL() (StoredCRL, error) {
	var c StoredCRL
	var until int64
	err := tx.row("SELECT number, state, until, der FROM crls WHERE length(der) > 0 ORDER BY number DESC LIMIT 1")(&c.Number, &c.State, &until, &c.DER)
	c.Until = fromUnix(until)
	return c, err
}

// A StoredOCSP is a signed OCSP response.
type StoredOCSP struct {
	ID    []byte
	State []byte
	Until time.Time
	DER   []byte
}

// PutOCSP stores a response in the place of the one before, and forgets those that
// ended before now.
func (tx *Tx) PutOCSP(r StoredOCSP, now time.Time) error {
	if err := tx.exec("DELETE FROM ocsp_responses WHERE until < $1", unix(now)); err != nil {
		return err
	}
	return tx.exec(`INSERT INTO ocsp_responses (id, state, until, der) VALUES ($1, $2, $3, $4)
		ON CONFLICT (id) DO UPDATE SET state = excluded.state, until = excluded.until, der = excluded.der`,
		r.ID, r.State, unix(r.Until), r.DER)
}

// OCSP finds a response.
func (tx *Tx) OCSP(id []byte) (StoredOCSP, error) {
	r := StoredOCSP{ID: id}
	var until int64
	err := tx.row("SELECT state, until, der FROM ocsp_responses WHERE id = $1", id)(&r.State, &until, &r.DER)
	r.Until = fromUnix(until)
	return r, err
}

// LiveIssuances returns the certificates of a kind that have not expired.
func (tx *Tx) LiveIssuances(kind string, now time.Time) ([]Issuance, error) {
	var all []Issuance
	err := tx.each(func(scan func(...any) error) error {
		i, err := scanIssuance(scan)
		all = append(all, i)
		return err
	}, issuanceColumns+"WHERE kind = $1 AND not_after >= $2 ORDER BY id", kind, unix(now))
	return all, err
}
