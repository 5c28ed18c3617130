// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"valise/internal/store"
	"valise/ledger"
)

// A Feed is the record that a gateway serves to its devices.
var _ ledger.Finder = (*Feed)(nil)

// Manifest returns the newest manifest, nil if there is none.
func (f *Feed) Manifest(ctx context.Context) ([]byte, error) {
	return f.copy.newest(ctx, newestManifest)
}

// Bulletin returns the newest bulletin, nil if there is none.
func (f *Feed) Bulletin(ctx context.Context) ([]byte, error) {
	return f.copy.newest(ctx, newestBulletin)
}

// Checkpoint implements ledger.Source.
func (f *Feed) Checkpoint(ctx context.Context) ([]byte, error) {
	text, err := f.copy.newest(ctx, newestCheckpoint)
	if err == nil && text == nil {
		err = fmt.Errorf("%w: there is no checkpoint yet", ledger.ErrYoung)
	}
	return text, err
}

// Hashes implements ledger.Source.
func (f *Feed) Hashes(ctx context.Context, indexes []int64) (out []tlog.Hash, err error) {
	err = f.copy.db.View(ctx, func(tx *store.Tx) error {
		out, err = stored{ctx, tx}.ReadHashes(indexes)
		return err
	})
	return out, err
}

// Leaves implements ledger.Source.
func (f *Feed) Leaves(ctx context.Context, from, to int64) ([]ledger.Leaf, error) {
	if from < 0 || to < from {
		return nil, fmt.Errorf("feed: no leaves from %d to %d", from, to)
	}
	var all []ledger.Leaf
	err := f.copy.db.View(ctx, func(tx *store.Tx) error {
		all = nil
		return each(ctx, tx, func(rows *sql.Rows) error {
			var data []byte
			if err := rows.Scan(&data); err != nil {
				return err
			}
			entry, err := ledger.ParseEntry(data)
			if err != nil {
				return err
			}
			all = append(all, entry.Leaf())
			return nil
		}, "SELECT entry FROM leaves WHERE id >= $1 AND id < $2 ORDER BY id", from, to)
	})
	if err == nil && int64(len(all)) != to-from {
		err = fmt.Errorf("feed: %d leaves from %d to %d", len(all), from, to)
	}
	return all, err
}

// Find implements ledger.Finder.
func (f *Feed) Find(ctx context.Context, subject [32]byte) (index int64, entry *ledger.Entry, err error) {
	err = f.copy.db.View(ctx, func(tx *store.Tx) error {
		var data []byte
		err := tx.QueryRowContext(ctx, "SELECT id, entry FROM leaves WHERE subject = $1 ORDER BY id LIMIT 1", subject[:]).Scan(&index, &data)
		if errors.Is(err, sql.ErrNoRows) {
			return ledger.ErrUnknown
		}
		if err != nil {
			return err
		}
		entry, err = ledger.ParseEntry(data)
		return err
	})
	return index, entry, err
}
