// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"valise/internal/store"
)

// A nonce (RFC 8555, Section 6.5) is
//
//	expiry (8) ‖ random (16) ‖ HMAC-SHA-256(secret, expiry ‖ random) (first 16)
//
// in base64url. Handing one out writes nothing, so strangers cannot fill the
// database by asking for nonces; using one stores it until its expiry, so a replay
// is found by every process on this database and after every restart.
//
// Purge forgets those that have expired, and clocks jump: a nonce that was forgotten
// under a clock ahead of ours must not be good again when the clock is right. So the
// database keeps a mark, the latest time that Purge went by. What expires up to the
// mark is refused, and new nonces expire after it. When the mark is more than a
// nonce's life ahead, the clock that set it was wrong: then a new secret makes all
// old nonces void, and the mark falls back.
const (
	nonceBody = 8 + 16
	nonceLen  = nonceBody + 16
	nonceLife = time.Hour
)

// Rows of the table meta.
const (
	nonceSecret = "nonce-secret"
	nonceMark   = "nonce-mark" // 8 bytes, seconds since 1970
)

// ErrNonce is returned for nonces that are not ours, expired, or used before.
var ErrNonce = errors.New("authority: nonce is unknown, expired or used")

// nonceState is what the database says about nonces; the same for all processes on
// it, as of the last look.
type nonceState struct {
	secret [32]byte
	mark   int64
}

// NewNonce returns a fresh nonce.
func (s *Store) NewNonce(now time.Time) string {
	state := s.nonces.Load()
	b := make([]byte, nonceBody, nonceLen)
	binary.BigEndian.PutUint64(b, uint64(max(now.Unix(), state.mark)+int64(nonceLife.Seconds())))
	rand.Read(b[8:])
	return base64.RawURLEncoding.EncodeToString(append(b, state.tag(b)...))
}

func (n *nonceState) tag(body []byte) []byte {
	mac := hmac.New(sha256.New, n.secret[:])
	mac.Write(body)
	return mac.Sum(nil)[:nonceLen-nonceBody]
}

// open checks what can be checked without the database.
func (n *nonceState) open(nonce string, now time.Time) (raw []byte, expires int64, err error) {
	raw, err = base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(raw) != nonceLen || !hmac.Equal(raw[nonceBody:], n.tag(raw[:nonceBody])) {
		return nil, 0, ErrNonce
	}
	expires = int64(binary.BigEndian.Uint64(raw))
	if now.Unix() > expires {
		return nil, 0, ErrNonce
	}
	return raw, expires, nil
}

// CheckNonce reports whether a nonce is ours and has not expired, without looking
// at the database: a cheap first look at what strangers send.
func (s *Store) CheckNonce(nonce string, now time.Time) error {
	_, _, err := s.nonces.Load().open(nonce, now)
	return err
}

// UseNonceOf is UseNonce for a request of an account, which it returns as it is at
// that moment.
func (s *Store) UseNonceOf(ctx context.Context, nonce string, account int64, now time.Time) (Account, error) {
	a, _, err := s.UseNonceAndLook(ctx, nonce, account, now, nil)
	return a, err
}

// UseNonceAndLook is UseNonceOf that may look something up by the way, where that
// spares a question; nil if it did not, or found nothing. Whose it is, is not asked.
func (s *Store) UseNonceAndLook(ctx context.Context, nonce string, account int64, now time.Time, look *Look) (a Account, found *Facts, err error) {
	if s.db.Dialect() != store.PostgreSQL {
		err = s.UseNonce(ctx, nonce, now)
		if err == nil {
			err = s.Read(ctx, func(tx *Tx) error { a, err = tx.Account(account); return err })
		}
		return a, nil, err
	}
	state := s.nonces.Load()
	raw, expires, err := state.open(nonce, now)
	if err != nil {
		return a, nil, err
	}
	used := false
	questions := []store.Question{{
		SQL:  "WITH used AS (" + useNonce + " RETURNING 1) " + accountColumns + "WHERE id = $7 AND EXISTS (SELECT 1 FROM used)",
		Args: []any{raw, expires, nonceSecret, state.secret[:], nonceMark, mark(expires), account},
		Row: func(scan func(...any) error) (err error) {
			a, err = scanAccount(scan)
			used = err == nil
			return unlessMissing(err)
		},
	}}
	if look != nil {
		query, args := look.question()
		questions = append(questions, store.Question{SQL: query, Args: args, Row: func(scan func(...any) error) error {
			f, err := scanFacts(scan)
			if found = nil; err == nil {
				found = &f
			}
			return unlessMissing(err)
		}})
	}
	err = wrap(s.db.Ask(ctx, questions...))
	switch {
	case errors.Is(err, ErrExists):
		return Account{}, nil, ErrNonce
	case err != nil:
		return Account{}, nil, err
	case !used: // the secret or the mark is another one by now
		return Account{}, nil, errors.Join(ErrNonce, s.loadNonces(ctx))
	}
	return a, found, nil
}

func unlessMissing(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// useNonce takes a nonce, its expiry, and the names and values of the secret and of
// the mark under which it was made.
const useNonce = `INSERT INTO nonces (nonce, expires) SELECT $1, $2
	WHERE EXISTS (SELECT 1 FROM meta WHERE name = $3 AND value = $4)
	AND EXISTS (SELECT 1 FROM meta WHERE name = $5 AND value < $6)`

// UseNonce marks a nonce as used. It returns ErrNonce if it was used before.
func (s *Store) UseNonce(ctx context.Context, nonce string, now time.Time) error {
	state := s.nonces.Load()
	raw, expires, err := state.open(nonce, now)
	if err != nil {
		return err
	}
	err = s.write(ctx, func(tx *Tx) error {
		return tx.change(useNonce, raw, expires, nonceSecret, state.secret[:], nonceMark, mark(expires))
	})
	switch {
	case errors.Is(err, ErrExists):
		return ErrNonce
	case errors.Is(err, ErrState): // the secret or the mark is another one by now
		return errors.Join(ErrNonce, s.loadNonces(ctx))
	}
	return err
}

// UseNonceIn marks a nonce as used in the transaction that does what it was used for: all
// of it happens, or nothing. ErrNonce says that it was used before, or is none of ours;
// it comes back from here, or from whatever the transaction asks next.
func (s *Store) UseNonceIn(tx *Tx, nonce string, now time.Time) error {
	state := s.nonces.Load()
	raw, expires, err := state.open(nonce, now)
	if err != nil {
		return err
	}
	args := []any{raw, expires, nonceSecret, state.secret[:], nonceMark, mark(expires)}
	if tx.flow != nil {
		tx.flow.Demand(ErrNonce, useNonce, args...)
		return nil
	}
	err = tx.change(useNonce, args...)
	if errors.Is(err, ErrExists) || errors.Is(err, ErrState) {
		return ErrNonce
	}
	return err
}

// RefreshNonces reads anew by what nonces are judged: after a refusal, because another
// process may have drawn another secret.
func (s *Store) RefreshNonces(ctx context.Context) error { return s.loadNonces(ctx) }

// mark is a time as the database compares it.
func mark(t int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(max(t, 0))) }

// loadNonces reads secret and mark, and draws them once in the database's life.
func (s *Store) loadNonces(ctx context.Context) error {
	return s.Update(ctx, func(tx *Tx) error {
		fresh := make([]byte, 32)
		rand.Read(fresh)
		for name, value := range map[string][]byte{nonceSecret: fresh, nonceMark: mark(0)} {
			if err := tx.exec("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", name, value); err != nil {
				return err
			}
		}
		state, err := tx.nonceState()
		if err == nil {
			s.nonces.Store(state)
		}
		return err
	})
}

func (tx *Tx) nonceState() (*nonceState, error) {
	var secret, until []byte
	state := new(nonceState)
	err := errors.Join(
		tx.row("SELECT value FROM meta WHERE name = $1", nonceSecret)(&secret),
		tx.row("SELECT value FROM meta WHERE name = $1", nonceMark)(&until),
	)
	if err != nil {
		return nil, err
	}
	if copy(state.secret[:], secret) != len(state.secret) || len(until) != 8 {
		return nil, errors.New("authority: the secret of nonces is damaged")
	}
	state.mark = int64(binary.BigEndian.Uint64(until))
	return state, nil
}

// purgeNonces forgets the used nonces that have expired.
func (s *Store) purgeNonces(ctx context.Context, now time.Time) error {
	if now.Unix() < 0 {
		return fmt.Errorf("authority: the clock says %v", now)
	}
	var state *nonceState
	err := s.Update(ctx, func(tx *Tx) (err error) {
		if state, err = tx.nonceState(); err != nil {
			return err
		}
		if state.mark > now.Add(nonceLife).Unix() {
			rand.Read(state.secret[:])
			state.mark = now.Unix()
			if err := tx.exec("DELETE FROM nonces"); err != nil {
				return err
			}
			if err := tx.exec("UPDATE meta SET value = $1 WHERE name = $2", bytes.Clone(state.secret[:]), nonceSecret); err != nil {
				return err
			}
		}
		state.mark = max(state.mark, now.Unix()-1)
		if err := tx.exec("DELETE FROM nonces WHERE expires <= $1", state.mark); err != nil {
			return err
		}
		return tx.exec("UPDATE meta SET value = $1 WHERE name = $2", mark(state.mark), nonceMark)
	})
	if err == nil {
		s.nonces.Store(state)
	}
	return err
}

// Purge removes what nobody asks for any more: used nonces after their expiry and
// the keys of expired invitations. It ends open orders whose time is over.
func (s *Store) Purge(ctx context.Context, now time.Time) error {
	n := unix(now)
	err := s.Update(ctx, func(tx *Tx) error {
		for _, step := range []func() error{
			func() error {
				return tx.exec("UPDATE invitations SET key = $1 WHERE expires < $2 AND length(key) > 0", []byte{}, n)
			},
			func() error {
				return tx.exec("UPDATE orders SET status = 'invalid', reason = 'order_expired' WHERE status IN ('pending', 'ready') AND expires < $1", n)
			},
			func() error {
				return tx.exec("UPDATE authorizations SET status = 'expired', reason = 'order_expired' WHERE status = 'pending' AND expires < $1", n)
			},
		} {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, s.purgeNonces(ctx, now))
}
