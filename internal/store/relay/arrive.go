// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// Arrive implements mailbox.Store.
func (s *Store) Arrive(ctx context.Context, a mailbox.Arrival) (mailbox.Standing, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	var standing mailbox.Standing
	var b *batch
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		b = s.newBatch(ctx, tx)
		st, err := b.meet(a)
		if err != nil {
			return err
		}
		began, err := b.begin(a, st)
		if err != nil {
			return err
		}
		standing = mailbox.Standing{
			Incarnation: st.incarnation, Began: began, Counter: st.counter, Last: st.last, Acknowledged: st.acked,
		}
		err = tx.QueryRowContext(ctx, `SELECT count(*) FROM key_packages WHERE device = $1 AND NOT last_resort AND expires > $2`,
			st.id, a.Time.Unix()).Scan(&standing.KeyPackages)
		if err != nil {
			return err
		}
		return b.save()
	})
	if err != nil {
		s.cache.reset()
		return mailbox.Standing{}, fmt.Errorf("relay store: arrival: %w", err)
	}
	b.remember()
	return standing, nil
}

// meet finds or makes the rows of a device and keeps its newest certificate.
func (b *batch) meet(a mailbox.Arrival) (*state, error) {
	chain, err := marshalChain(a.Chain)
	if err != nil {
		return nil, err
	}
	st, err := b.state(a.Device)
	if err != nil {
		return nil, err
	}
	if st != nil {
		_, err := b.tx.ExecContext(b.ctx, `UPDATE devices SET address = $1, chain = $2, seen = $3 WHERE id = $4`,
			a.Address, chain, a.Time.Unix(), st.id)
		return st, err
	}
	st = new(state)
	err = b.tx.QueryRowContext(b.ctx, `INSERT INTO devices (device, address, chain, seen) VALUES ($1, $2, $3, $4) RETURNING id`,
		a.Device[:], a.Address, chain, a.Time.Unix()).Scan(&st.id)
	if err != nil {
		return nil, err
	}
	st.last, st.acked = b.s.floor, b.s.floor
	_, err = b.tx.ExecContext(b.ctx, `INSERT INTO states (device, incarnation, counter, last, acked, held, bytes) VALUES ($1, $2, 0, $3, $3, 0, 0)`,
		st.id, []byte{}, int64(b.s.floor))
	if err != nil {
		return nil, err
	}
	b.states[a.Device] = st
	return st, nil
}

func mayBegin(a mailbox.Arrival, st *state) bool {
	return a.Begin && a.Incarnation != st.incarnation && a.Incarnation != [16]byte{} && st.hold == mailbox.Free
}

// begin makes an incarnation the current one, unless it has been here before: a
// copy of an old state must not be able to bring it back. Nor does a device begin
// anything while it is held.
func (b *batch) begin(a mailbox.Arrival, st *state) (bool, error) {
	if !mayBegin(a, st) {
		return false, nil
	}
	result, err := b.tx.ExecContext(b.ctx, `INSERT INTO incarnations (device, incarnation, began) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		st.id, a.Incarnation[:], a.Time.Unix())
	if err != nil {
		return false, err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	// A new life has none of the old one's secrets: what was published before
	// could never be joined with.
	for _, stmt := range []string{`DELETE FROM submissions WHERE device = $1`, `DELETE FROM key_packages WHERE device = $1`} {
		if _, err := b.tx.ExecContext(b.ctx, stmt, st.id); err != nil {
			return false, err
		}
	}
	st.incarnation, st.counter = a.Incarnation, 0
	b.changed(st)
	return true, nil
}

// Recall implements mailbox.Store.
func (s tables) Recall(ctx context.Context, device mailbox.Device, counter uint64) (hash [32]byte, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		id, err := deviceRow(ctx, tx, device)
		if err != nil {
			return err
		}
		hash, err = recall(ctx, tx, id, counter)
		return err
	})
	return hash, err
}

func deviceRow(ctx context.Context, tx *store.Tx, device mailbox.Device) (id int64, err error) {
	err = tx.QueryRowContext(ctx, `SELECT id FROM devices WHERE device = $1`, device[:]).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, mailbox.ErrNotFound
	}
	return id, err
}

// A chain is stored as
//
//	opaque certificate<0..2^24-1> chain<0..*>;
func marshalChain(chain [][]byte) ([]byte, error) {
	var b cryptobyte.Builder
	for _, der := range chain {
		b.AddUint24LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes(der) })
	}
	return b.Bytes()
}

func parseChain(data []byte) ([][]byte, error) {
	s := cryptobyte.String(data)
	var chain [][]byte
	for !s.Empty() {
		var der cryptobyte.String
		if !s.ReadUint24LengthPrefixed(&der) {
			return nil, errors.New("relay store: a stored certificate chain is damaged")
		}
		chain = append(chain, der)
	}
	return chain, nil
}
