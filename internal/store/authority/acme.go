// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"context"
	"errors"
)

// ChangeAccountKey gives an account another key (RFC 8555, Section 7.3.5). It returns
// ErrState if the account has another key than expected, is closed, or has an order
// whose evidence is bound to the present key; ErrExists if the new key has an account.
func (tx *Tx) ChangeAccountKey(id int64, expected, thumbprint string, jwk []byte) error {
	_, err := tx.AccountByKey(thumbprint)
	if err == nil {
		return ErrExists
	}
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	return tx.change(`UPDATE accounts SET thumbprint = $1, jwk = $2 WHERE id = $3 AND thumbprint = $4 AND status = 'valid'
		AND NOT EXISTS (SELECT 1 FROM orders WHERE account = accounts.id AND status IN ('ready', 'processing'))`,
		thumbprint, jwk, id, expected)
}

// IssuanceBySerial finds a certificate by its serial number, or one that is going to
// have it.
func (tx *Tx) IssuanceBySerial(serial []byte) (Issuance, error) {
	return scanIssuance(tx.row(issuanceColumns+"WHERE serial = $1", serial))
}

// ReplaceCertificate notes which certificate an order replaces (RFC 9773, Section 5).
func (tx *Tx) ReplaceCertificate(order, certificate string) error {
	return tx.exec("INSERT INTO replacements (order_id, certificate) VALUES ($1, $2)", order, certificate)
}

// Replaced reports whether an order that was finalized replaces the certificate.
func (tx *Tx) Replaced(certificate string) (bool, error) {
	var n int
	err := tx.row(`SELECT count(*) FROM replacements JOIN orders ON orders.id = replacements.order_id
		WHERE replacements.certificate = $1 AND orders.status IN ('processing', 'valid')`, certificate)(&n)
	return n > 0, err
}

// FinalizeOrder is Tx.FinalizeOrder as a transaction by itself.
func (s *Store) FinalizeOrder(ctx context.Context, id string, csr []byte) error {
	return s.write(ctx, func(tx *Tx) error { return tx.FinalizeOrder(id, csr) })
}
