// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

// A nonce (RFC 8555, Section 6.5) is
//
//	expiry (8) ‖ random (16) ‖ HMAC-SHA-256(secret, expiry ‖ random) (first 16)
//
// in base64url. Handing one out writes nothing, so strangers cannot fill the
// database by asking for nonces; using one stores it until its expiry, so a replay
// is found by every process on this database and after every restart.
const (
	nonceBody = 8 + 16
	nonceLen  = nonceBody + 16
	nonceLife = time.Hour
)

// ErrNonce is returned for nonces that are not ours, expired, or used before.
var ErrNonce = errors.New("authority: nonce is unknown, expired or used")

// NewNonce returns a fresh nonce.
func (s *Store) NewNonce(now time.Time) string {
	b := make([]byte, nonceBody, nonceLen)
	binary.BigEndian.PutUint64(b, uint64(now.Add(nonceLife).Unix()))
	rand.Read(b[8:])
	return base64.RawURLEncoding.EncodeToString(append(b, s.nonceTag(b)...))
}

func (s *Store) nonceTag(body []byte) []byte {
	mac := hmac.New(sha256.New, s.secret[:])
	mac.Write(body)
	return mac.Sum(nil)[:nonceLen-nonceBody]
}

// CheckNonce reports whether a nonce is ours and has not expired, without looking
// at the database: a cheap first look at what strangers send.
func (s *Store) CheckNonce(nonce string, now time.Time) error {
	_, _, err := s.openNonce(nonce, now)
	return err
}

// UseNonce marks a nonce as used. It returns ErrNonce if it was used before.
func (s *Store) UseNonce(ctx context.Context, nonce string, now time.Time) error {
	raw, expires, err := s.openNonce(nonce, now)
	if err != nil {
		return err
	}
	return s.Update(ctx, func(tx *Tx) error {
		err := tx.exec("INSERT INTO nonces (nonce, expires) VALUES ($1, $2)", raw, expires)
		if errors.Is(err, ErrExists) {
			return ErrNonce
		}
		return err
	})
}

func (s *Store) openNonce(nonce string, now time.Time) (raw []byte, expires int64, err error) {
	raw, err = base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(raw) != nonceLen || !hmac.Equal(raw[nonceBody:], s.nonceTag(raw[:nonceBody])) {
		return nil, 0, ErrNonce
	}
	expires = int64(binary.BigEndian.Uint64(raw))
	if now.Unix() > expires {
		return nil, 0, ErrNonce
	}
	return raw, expires, nil
}

// Purge removes what nobody asks for any more: used nonces after their expiry and
// the keys of expired invitations. It ends open orders whose time is over.
func (s *Store) Purge(ctx context.Context, now time.Time) error {
	return s.Update(ctx, func(tx *Tx) error {
		n := unix(now)
		return errors.Join(
			tx.exec("DELETE FROM nonces WHERE expires < $1", n),
			tx.exec("UPDATE invitations SET key = $1 WHERE expires < $2 AND length(key) > 0", []byte{}, n),
			tx.exec("UPDATE orders SET status = 'invalid', reason = 'order_expired' WHERE status IN ('pending', 'ready') AND expires < $1", n),
			tx.exec("UPDATE authorizations SET status = 'expired', reason = 'order_expired' WHERE status = 'pending' AND expires < $1", n),
		)
	})
}
