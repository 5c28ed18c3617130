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

const blobColumns = `SELECT b.name, b.id, g.group_id, b.size, d.device, b.complete, b.created, b.expires
	FROM blobs b JOIN groups g ON g.id = b.grp JOIN devices d ON d.id = b.owner `

// BeginBlob implements mailbox.Store.
func (s tables) BeginBlob(ctx context.Context, b mailbox.Blob, quota uint64) (blob mailbox.Blob, err error) {
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		var grp int64
		err := tx.QueryRowContext(ctx, `SELECT id FROM groups WHERE group_id = $1`, b.Group).Scan(&grp)
		if errors.Is(err, sql.ErrNoRows) {
			return mailbox.ErrNotFound
		}
		if err != nil {
			return err
		}
		owner, err := deviceRow(ctx, tx, b.Owner)
		if err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, `INSERT INTO blobs (name, id, grp, size, owner, complete, created, expires)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
			b.Name, b.ID[:], grp, int64(b.Size), owner, false, b.Created, b.Expires)
		if err != nil {
			return err
		}
		if added, err := result.RowsAffected(); err != nil || added > 0 && quota > 0 {
			if err := withinQuota(ctx, tx, owner, quota, err); err != nil {
				return err
			}
		}
		blob, err = scanBlob(tx.QueryRowContext(ctx, blobColumns+`WHERE b.id = $1 AND b.grp = $2`, b.ID[:], grp))
		return err
	})
	if err != nil {
		return mailbox.Blob{}, fmt.Errorf("relay store: begin a file: %w", err)
	}
	return blob, nil
}

// withinQuota sums up an owner's files, the new one included; its error rolls
// the new one back.
func withinQuota(ctx context.Context, tx *store.Tx, owner int64, quota uint64, err error) error {
	if err != nil {
		return err
	}
	var owned uint64
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(sum(CASE WHEN size < $1 THEN $1 ELSE size END), 0)
		FROM blobs WHERE owner = $2`, mailbox.BlobUnit, owner).Scan(&owned); err != nil {
		return err
	}
	if owned > quota {
		return mailbox.ErrQuota
	}
	return nil
}

func scanBlob(row interface{ Scan(...any) error }) (b mailbox.Blob, err error) {
	var id, owner []byte
	if err := row.Scan(&b.Name, &id, &b.Group, &b.Size, &owner, &b.Complete, &b.Created, &b.Expires); err != nil {
		return b, err
	}
	copy(b.ID[:], id)
	copy(b.Owner[:], owner)
	return b, nil
}

func (s tables) blobs(ctx context.Context, where string, args ...any) (list []mailbox.Blob, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		list = nil
		rows, err := tx.QueryContext(ctx, blobColumns+where, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			b, err := scanBlob(rows)
			if err != nil {
				return err
			}
			list = append(list, b)
		}
		return rows.Err()
	})
	return list, err
}

// Blobs implements mailbox.Store.
func (s tables) Blobs(ctx context.Context, id [32]byte) ([]mailbox.Blob, error) {
	return s.blobs(ctx, `WHERE b.id = $1 ORDER BY b.name`, id[:])
}

// ExpiredBlobs implements mailbox.Store.
func (s tables) ExpiredBlobs(ctx context.Context, now time.Time, limit int) ([]mailbox.Blob, error) {
	return s.blobs(ctx, `WHERE b.expires <= $1 ORDER BY b.expires LIMIT $2`, now.Unix(), limit)
}

// FinishBlob implements mailbox.Store.
func (s tables) FinishBlob(ctx context.Context, name string, expires int64) error {
	return s.db.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE blobs SET complete = $1, expires = $2 WHERE name = $3`, true, expires, name)
		return err
	})
}

// DropBlob implements mailbox.Store.
func (s tables) DropBlob(ctx context.Context, name string) error {
	return s.db.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM blobs WHERE name = $1`, name)
		return err
	})
}
