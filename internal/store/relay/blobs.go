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

const blobColumns = `SELECT b.name, b.id, g.group_id, b.size, d.device, b.complete, b.created, b.expires,
	b.ended, b.litter, b.life, b.have, b.progress
	FROM blobs b JOIN groups g ON g.id = b.grp JOIN devices d ON d.id = b.owner `

func scanBlob(row scanner) (b mailbox.Blob, err error) {
	var id, owner []byte
	var litter int64
	if err := row.Scan(&b.Name, &id, &b.Group, &b.Size, &owner, &b.Complete, &b.Created, &b.Expires,
		&b.End, &litter, &b.Life, &b.Have, &b.Progress); err != nil {
		return b, err
	}
	b.Litter = litter != 0
	copy(b.ID[:], id)
	copy(b.Owner[:], owner)
	return b, nil
}

// BeginBlob implements mailbox.Store.
func (s tables) BeginBlob(ctx context.Context, b mailbox.Blob, limits mailbox.BlobLimits, claim mailbox.Claim) (blob mailbox.Blob, err error) {
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
		added, err := changed(tx.ExecContext(ctx, `INSERT INTO blobs (name, id, grp, size, owner, complete, created, expires)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
			b.Name, b.ID[:], grp, int64(b.Size), owner, false, b.Created, b.Expires))
		if err != nil {
			return err
		}
		find := func() (err error) {
			blob, err = scanBlob(tx.QueryRowContext(ctx, blobColumns+`WHERE b.id = $1 AND b.grp = $2`, b.ID[:], grp))
			return err
		}
		if err := find(); err != nil {
			return err
		}
		if blob.End != mailbox.BlobKept {
			if err := revive(ctx, tx, &blob, b, owner); err != nil {
				return err
			}
			added = true
			if err := find(); err != nil {
				return err
			}
		}
		if blob.Complete {
			return nil
		}
		if err := within(ctx, tx, owner, limits, added); err != nil {
			return err
		}
		return take(ctx, tx, blob, claim)
	})
	if err != nil {
		return mailbox.Blob{}, fmt.Errorf("relay store: begin a file: %w", err)
	}
	return blob, nil
}

// revive makes a file that has ended one that is about to arrive. What is left of its
// former life has to be deleted first.
func revive(ctx context.Context, tx *store.Tx, old *mailbox.Blob, b mailbox.Blob, owner int64) error {
	if old.Litter {
		return mailbox.ErrClaimed
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM blob_recipients WHERE blob = $1`, old.Name); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `UPDATE blobs SET size = $1, owner = $2, complete = $3, created = $4, expires = $5,
		ended = 0, life = life + 1, have = 0, progress = $6, holder = $6, held_until = 0, announced = 0 WHERE name = $7`,
		int64(b.Size), owner, false, b.Created, b.Expires, []byte{}, old.Name)
	return err
}

// within sums up what is announced, the new file included; its error rolls the new one
// back. What has been taken before is measured against the room alone.
func within(ctx context.Context, tx *store.Tx, owner int64, limits mailbox.BlobLimits, added bool) error {
	for _, bound := range []struct {
		most  uint64
		new   bool
		err   error
		query string
		args  []any
	}{
		{limits.Owner, true, mailbox.ErrQuota, `SELECT coalesce(sum(CASE WHEN size < $1 THEN $1 ELSE size END), 0)
			FROM blobs WHERE ended = 0 AND owner = $2`, []any{mailbox.BlobUnit, owner}},
		{limits.Total, true, mailbox.ErrRoom, `SELECT coalesce(sum(CASE WHEN size < $1 THEN $1 ELSE size END), 0)
			FROM blobs WHERE ended = 0`, []any{mailbox.BlobUnit}},
		{limits.Room, false, mailbox.ErrRoom, `SELECT coalesce(sum(size - have), 0) FROM blobs WHERE ended = 0 AND NOT complete`, nil},
	} {
		if bound.most == 0 || bound.new && !added {
			continue
		}
		var used uint64
		if err := tx.QueryRowContext(ctx, bound.query, bound.args...).Scan(&used); err != nil {
			return err
		}
		if used > bound.most {
			return bound.err
		}
	}
	return nil
}

// take claims a file's bytes.
func take(ctx context.Context, tx *store.Tx, b mailbox.Blob, claim mailbox.Claim) error {
	n, err := changed(tx.ExecContext(ctx, `UPDATE blobs SET holder = $1, held_until = $2
		WHERE name = $3 AND (holder = $1 OR held_until <= $4 OR $5 = 1)`,
		claim.Holder[:], claim.Until, b.Name, claim.Now, flagged(claim.Alone)))
	if err == nil && !n {
		err = mailbox.ErrClaimed
	}
	return err
}

// SaveBlob implements mailbox.Store.
func (s tables) SaveBlob(ctx context.Context, b mailbox.Blob, claim mailbox.Claim) error {
	return s.claimed(ctx, `UPDATE blobs SET have = $1, progress = $2, held_until = $3
		WHERE name = $4 AND life = $5 AND holder = $6 AND ended = 0 AND NOT complete`,
		int64(b.Have), notNil(b.Progress), claim.Until, b.Name, int64(b.Life), claim.Holder[:])
}

// FinishBlob implements mailbox.Store.
func (s tables) FinishBlob(ctx context.Context, b mailbox.Blob, holder [16]byte, expires int64) error {
	return s.claimed(ctx, `UPDATE blobs SET complete = $1, expires = $2, have = size, progress = $3, holder = $3, held_until = 0
		WHERE name = $4 AND life = $5 AND ended = 0 AND (complete OR holder = $6)`,
		true, expires, []byte{}, b.Name, int64(b.Life), holder[:])
}

// DropBlob implements mailbox.Store.
func (s tables) DropBlob(ctx context.Context, b mailbox.Blob, holder [16]byte) error {
	return s.claimed(ctx, `UPDATE blobs SET ended = $1, litter = 1, expires = 0, holder = $2, held_until = 0
		WHERE name = $3 AND life = $4 AND ended = 0 AND (complete OR holder = $5)`,
		int64(mailbox.BlobExpired), []byte{}, b.Name, int64(b.Life), holder[:])
}

// claimed does one statement, which changes nothing without the claim.
func (s tables) claimed(ctx context.Context, query string, args ...any) error {
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		n, err := changed(tx.ExecContext(ctx, query, args...))
		if err == nil && !n {
			err = mailbox.ErrClaimed
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("relay store: a file: %w", err)
	}
	return nil
}

// ReleaseBlob implements mailbox.Store.
func (s tables) ReleaseBlob(ctx context.Context, b mailbox.Blob, holder [16]byte) error {
	return s.db.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE blobs SET holder = $1, held_until = 0 WHERE name = $2 AND holder = $3`, []byte{}, b.Name, holder[:])
		return err
	})
}

// changed says whether a statement has changed anything.
func changed(result sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

func flagged(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func (s tables) blobs(ctx context.Context, where string, args ...any) (list []mailbox.Blob, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		list, err = selectBlobs(ctx, tx, where, args...)
		return err
	})
	return list, err
}

func selectBlobs(ctx context.Context, tx *store.Tx, where string, args ...any) (list []mailbox.Blob, err error) {
	rows, err := tx.QueryContext(ctx, blobColumns+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		b, err := scanBlob(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, rows.Err()
}

// Blobs implements mailbox.Store.
func (s tables) Blobs(ctx context.Context, id [32]byte) ([]mailbox.Blob, error) {
	return s.blobs(ctx, `WHERE b.id = $1 ORDER BY b.name`, id[:])
}

// ExpiredBlobs implements mailbox.Store.
func (s tables) ExpiredBlobs(ctx context.Context, now time.Time, limit int) ([]mailbox.Blob, error) {
	return s.blobs(ctx, `WHERE b.expires <= $1 AND b.ended = 0 AND b.held_until <= $1 ORDER BY b.expires LIMIT $2`, now.Unix(), limit)
}

// LitteredBlobs implements mailbox.Store.
func (s tables) LitteredBlobs(ctx context.Context, limit int) ([]mailbox.Blob, error) {
	return s.blobs(ctx, `WHERE b.litter = 1 ORDER BY b.name LIMIT $1`, limit)
}
