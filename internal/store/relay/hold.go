// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"fmt"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// purgePortion is how much mail one transaction deletes: others wait for it.
const purgePortion = 1000

// Quarantine implements mailbox.Store.
func (s *Store) Quarantine(ctx context.Context, device mailbox.Device, on bool) error {
	err := s.change(ctx, func(b *batch) error {
		st, err := b.state(device)
		switch {
		case err != nil:
			return err
		case st == nil:
			return mailbox.ErrNotFound
		case st.hold == mailbox.Purged:
			return nil
		case on:
			return b.lay(st, mailbox.Quarantined)
		}
		return b.lay(st, mailbox.Free)
	})
	if err != nil {
		return fmt.Errorf("relay store: quarantine: %w", err)
	}
	return nil
}

// change runs f in a transaction that may change states.
func (s *Store) change(ctx context.Context, f func(b *batch) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var b *batch
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		b = s.newBatch(ctx, tx)
		if err := f(b); err != nil {
			return err
		}
		return b.save()
	})
	if err != nil {
		s.cache.reset()
		return err
	}
	b.remember()
	return nil
}

func (b *batch) lay(st *state, hold mailbox.Hold) error {
	if st.hold == hold {
		return nil
	}
	st.hold = hold
	_, err := b.tx.ExecContext(b.ctx, `UPDATE states SET hold = $1 WHERE device = $2`, int64(hold), st.id)
	return err
}

// Purge implements mailbox.Store. The mail goes in portions, behind a quarantine.
func (s *Store) Purge(ctx context.Context, device mailbox.Device) error {
	for done := false; !done; {
		err := s.change(ctx, func(b *batch) (err error) {
			done, err = b.purge(device)
			return err
		})
		if err != nil {
			return fmt.Errorf("relay store: purge: %w", err)
		}
	}
	return nil
}

// purge deletes a portion; with the last one it says so for ever.
func (b *batch) purge(device mailbox.Device) (done bool, err error) {
	st, err := b.state(device)
	if err == nil && st == nil {
		err = mailbox.ErrNotFound
	}
	if err != nil {
		return false, err
	}
	if st.hold == mailbox.Free {
		if err := b.lay(st, mailbox.Quarantined); err != nil {
			return false, err
		}
	}
	var upTo, found int64
	err = b.tx.QueryRowContext(b.ctx, `SELECT coalesce(max(number), 0), count(*) FROM
		(SELECT number FROM mailbox WHERE device = $1 ORDER BY number LIMIT $2) AS portion`, st.id, purgePortion).Scan(&upTo, &found)
	if err != nil {
		return false, err
	}
	if found > 0 {
		if err := b.acknowledge(mailbox.Ack{Device: device, Number: uint64(upTo)}); err != nil {
			return false, err
		}
	}
	if found == purgePortion {
		return false, nil
	}
	// Files that are not complete can be of use to nobody else; they go with the
	// expired ones.
	for _, stmt := range []string{
		`DELETE FROM key_packages WHERE device = $1`, `UPDATE blobs SET expires = 0 WHERE owner = $1 AND NOT complete`,
	} {
		if _, err := b.tx.ExecContext(b.ctx, stmt, st.id); err != nil {
			return false, err
		}
	}
	return true, b.lay(st, mailbox.Purged)
}

// Holds implements mailbox.Store.
func (s tables) Holds(ctx context.Context) (holds map[mailbox.Device]mailbox.Hold, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		holds = make(map[mailbox.Device]mailbox.Hold)
		rows, err := tx.QueryContext(ctx, `SELECT d.device, s.hold FROM states s JOIN devices d ON d.id = s.device WHERE s.hold > 0`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var device []byte
			var hold mailbox.Hold
			if err := rows.Scan(&device, &hold); err != nil {
				return err
			}
			holds[mailbox.Device(device)] = hold
		}
		return rows.Err()
	})
	return holds, err
}

// freeDeviceRow finds a device that is not held.
func freeDeviceRow(ctx context.Context, tx *store.Tx, device mailbox.Device) (int64, error) {
	id, err := deviceRow(ctx, tx, device)
	if err != nil {
		return 0, err
	}
	var hold mailbox.Hold
	if err := tx.QueryRowContext(ctx, `SELECT hold FROM states WHERE device = $1`, id).Scan(&hold); err != nil {
		return 0, err
	}
	if hold != mailbox.Free {
		return 0, mailbox.ErrNotFound
	}
	return id, nil
}

// Arrived implements mailbox.Store.
func (s tables) Arrived(ctx context.Context, address string) ([]mailbox.Device, error) {
	return s.devices(ctx, `SELECT device FROM devices WHERE address = $1 ORDER BY id`, address)
}
