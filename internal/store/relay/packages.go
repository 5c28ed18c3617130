// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// TakeKeyPackages implements mailbox.Store.
func (s *Store) TakeKeyPackages(ctx context.Context, suite uint16, devices []mailbox.Device, now time.Time) (taken []mailbox.KeyPackage, left map[mailbox.Device]int, err error) {
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		taken, left = nil, make(map[mailbox.Device]int)
		for _, d := range devices {
			kp, n, err := takeOne(ctx, tx, suite, d, now.Unix())
			if errors.Is(err, mailbox.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			taken, left[d] = append(taken, kp), n
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("relay store: hand out key packages: %w", err)
	}
	return taken, left, nil
}

// takeOne hands out the oldest one-time package and removes it in the same
// transaction, so that no two askers get the same; a last resort stays.
func takeOne(ctx context.Context, tx *store.Tx, suite uint16, d mailbox.Device, now int64) (mailbox.KeyPackage, int, error) {
	kp := mailbox.KeyPackage{Device: d, Suite: suite}
	owner, err := freeDeviceRow(ctx, tx, d)
	if err != nil {
		return kp, 0, err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM key_packages WHERE device = $1 AND suite = $2 AND expires <= $3`, owner, int64(suite), now); err != nil {
		return kp, 0, err
	}
	var row int64
	err = tx.QueryRowContext(ctx, `SELECT id, last_resort, expires, package FROM key_packages
		WHERE device = $1 AND suite = $2 ORDER BY last_resort, id LIMIT 1`, owner, int64(suite)).
		Scan(&row, &kp.LastResort, &kp.Expires, &kp.Package)
	if errors.Is(err, sql.ErrNoRows) {
		return kp, 0, mailbox.ErrNotFound
	}
	if err != nil || kp.LastResort {
		return kp, 0, err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM key_packages WHERE id = $1`, row); err != nil {
		return kp, 0, err
	}
	var left int
	err = tx.QueryRowContext(ctx, `SELECT count(*) FROM key_packages WHERE device = $1 AND suite = $2 AND NOT last_resort`, owner, int64(suite)).Scan(&left)
	return kp, left, err
}
