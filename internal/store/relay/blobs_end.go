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

// awaited finds a recipient that is waited for: one that has not said that it has the
// file, stands in the group's tree, and is not held.
const awaited = `SELECT 1 FROM blob_recipients r JOIN group_members m ON m.device = r.device AND m.grp = b.grp
	JOIN states s ON s.device = r.device WHERE r.blob = b.name AND r.has = 0 AND s.hold = 0`

// fetched are the files that nobody is waited for. Of a group that was lost in a restore
// nobody knows who is in it.
const fetched = `WHERE b.announced = 1 AND b.ended = 0 AND b.complete AND g.epoch < $1 AND NOT EXISTS (` + awaited + `) `

// BlobDone implements mailbox.Store.
func (s tables) BlobDone(ctx context.Context, id [32]byte, device mailbox.Device, until int64) (ended []mailbox.Blob, err error) {
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		ended = nil
		row, err := deviceRow(ctx, tx, device)
		if err != nil {
			return err
		}
		list, err := selectBlobs(ctx, tx, `WHERE b.id = $1 ORDER BY b.name`, id[:])
		if err != nil {
			return err
		}
		concerned := false
		for _, b := range list {
			known, err := noteDone(ctx, tx, b, row, b.Owner == device)
			if err != nil {
				return err
			}
			concerned = concerned || known
		}
		if !concerned {
			return mailbox.ErrNotFound
		}
		all, err := selectBlobs(ctx, tx, fetched+`AND b.id = $2`, int64(mailbox.LostEpoch), id[:])
		if err != nil {
			return err
		}
		ended, err = endFetched(ctx, tx, all, until)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("relay store: a file is done with: %w", err)
	}
	return ended, nil
}

// noteDone notes it for one record, and says whether that concerns the device.
func noteDone(ctx context.Context, tx *store.Tx, b mailbox.Blob, device int64, owner bool) (bool, error) {
	switch {
	case b.End != mailbox.BlobKept && owner:
		return true, nil
	case b.End == mailbox.BlobKept && !b.Complete:
		return false, nil
	case owner:
		return true, announce(ctx, tx, b, device)
	}
	return changed(tx.ExecContext(ctx, `INSERT INTO blob_recipients (blob, device, has)
		SELECT b.name, m.device, 1 FROM blobs b JOIN group_members m ON m.grp = b.grp WHERE b.name = $1 AND m.device = $2
		ON CONFLICT (blob, device) DO UPDATE SET has = 1`, b.Name, device))
}

// announce fixes a file's recipients: all in the group's tree but its owner. Of a group
// whose members are not listed yet none are known, and its files expire.
func announce(ctx context.Context, tx *store.Tx, b mailbox.Blob, owner int64) error {
	first, err := changed(tx.ExecContext(ctx, `UPDATE blobs SET announced = 1 WHERE name = $1 AND announced = 0
		AND (SELECT listed FROM groups WHERE id = blobs.grp) = 1`, b.Name))
	if err != nil || !first {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO blob_recipients (blob, device, has)
		SELECT b.name, m.device, 0 FROM blobs b JOIN group_members m ON m.grp = b.grp WHERE b.name = $1 AND m.device <> $2
		ON CONFLICT (blob, device) DO NOTHING`, b.Name, owner)
	return err
}

// endFetched ends files, and returns those that this transaction has ended.
func endFetched(ctx context.Context, tx *store.Tx, list []mailbox.Blob, until int64) (ended []mailbox.Blob, err error) {
	for _, b := range list {
		mine, err := changed(tx.ExecContext(ctx, `UPDATE blobs SET ended = $1, litter = 1, expires = $2 WHERE name = $3 AND life = $4 AND ended = 0`,
			int64(mailbox.BlobFetched), until, b.Name, int64(b.Life)))
		if err != nil {
			return nil, err
		}
		if mine {
			b.End, b.Litter, b.Expires = mailbox.BlobFetched, true, until
			ended = append(ended, b)
		}
	}
	return ended, nil
}

// FetchedBlobs implements mailbox.Store.
func (s tables) FetchedBlobs(ctx context.Context, until int64, limit int) (ended []mailbox.Blob, err error) {
	list, err := s.blobs(ctx, fetched+`ORDER BY b.name LIMIT $2`, int64(mailbox.LostEpoch), limit)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		// Looked at again: somebody may have been resumed.
		list, err := selectBlobs(ctx, tx, fetched+`ORDER BY b.name LIMIT $2`, int64(mailbox.LostEpoch), limit)
		if err != nil {
			return err
		}
		ended, err = endFetched(ctx, tx, list, until)
		return err
	})
	return ended, err
}

// BlobStanding implements mailbox.Store.
func (s tables) BlobStanding(ctx context.Context, id [32]byte, owner mailbox.Device) (st mailbox.BlobStanding, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		st = mailbox.BlobStanding{}
		// One that is there goes before one that is not.
		list, err := selectBlobs(ctx, tx, `WHERE b.id = $1 AND d.device = $2 ORDER BY b.ended, b.name`, id[:], owner[:])
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return mailbox.ErrNotFound
		}
		st.Blob = list[0]
		err = tx.QueryRowContext(ctx, `SELECT coalesce(sum(r.has), 0), count(*) FROM blob_recipients r
			JOIN blobs b ON b.name = r.blob WHERE r.blob = $1 AND b.announced = 1`, st.Name).Scan(&st.Have, &st.Of)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return st, err
}

// ExpireBlob implements mailbox.Store.
func (s tables) ExpireBlob(ctx context.Context, b mailbox.Blob, now time.Time, until int64) (ended bool, err error) {
	err = s.db.Update(ctx, func(tx *store.Tx) (err error) {
		ended, err = changed(tx.ExecContext(ctx, `UPDATE blobs SET ended = $1, litter = 1, expires = $2, holder = $3
			WHERE name = $4 AND life = $5 AND ended = 0 AND expires <= $6 AND held_until <= $6`,
			int64(mailbox.BlobExpired), until, []byte{}, b.Name, int64(b.Life), now.Unix()))
		return err
	})
	return ended, err
}

// WipedBlob implements mailbox.Store.
func (s tables) WipedBlob(ctx context.Context, b mailbox.Blob) error {
	return s.db.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE blobs SET litter = 0 WHERE name = $1 AND life = $2 AND ended > 0`, b.Name, int64(b.Life))
		return err
	})
}

// ForgetBlobs implements mailbox.Store.
func (s tables) ForgetBlobs(ctx context.Context, now time.Time, limit int) error {
	list, err := s.blobs(ctx, `WHERE b.ended > 0 AND b.litter = 0 AND b.expires <= $1 ORDER BY b.expires LIMIT $2`, now.Unix(), limit)
	if err != nil || len(list) == 0 {
		return err
	}
	return s.db.Update(ctx, func(tx *store.Tx) error {
		for _, b := range list {
			gone, err := changed(tx.ExecContext(ctx, `DELETE FROM blobs WHERE name = $1 AND life = $2 AND ended > 0 AND litter = 0`, b.Name, int64(b.Life)))
			if err != nil {
				return err
			}
			if !gone {
				continue
			}
			if _, err := tx.ExecContext(ctx, `DELETE FROM blob_recipients WHERE blob = $1`, b.Name); err != nil {
				return err
			}
		}
		return nil
	})
}
