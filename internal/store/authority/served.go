// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"valise/ledger"
)

// A Record is the ledger of a store as it is served: http.StripPrefix("/ledger",
// ledger.Handler(store.Record())).
type Record struct{ store *Store }

var _ ledger.Finder = (*Record)(nil)

// Record returns the ledger, to be served.
func (s *Store) Record() *Record { return &Record{s} }

// Checkpoint implements ledger.Source. Before the first one is signed it fails with
// ErrNotFound.
func (r *Record) Checkpoint(ctx context.Context) (text []byte, err error) {
	err = r.store.View(ctx, func(tx *Tx) error {
		c, err := tx.LatestCheckpoint()
		text = c.Note
		return err
	})
	return text, err
}

// Hashes implements ledger.Source.
func (r *Record) Hashes(ctx context.Context, indexes []int64) (hashes []tlog.Hash, err error) {
	err = r.store.View(ctx, func(tx *Tx) (err error) {
		hashes, err = tx.Hashes().ReadHashes(indexes)
		return err
	})
	return hashes, err
}

// Leaves implements ledger.Source.
func (r *Record) Leaves(ctx context.Context, from, to int64) (leaves []ledger.Leaf, err error) {
	if from < 0 || to < from || to-from > maxLeaves {
		return nil, fmt.Errorf("authority: leaves %d to %d asked for, at most %d at once", from, to, maxLeaves)
	}
	err = r.store.View(ctx, func(tx *Tx) error {
		leaves = leaves[:0]
		return tx.each(func(scan func(...any) error) error {
			var index int64
			var data []byte
			if err := scan(&index, &data); err != nil {
				return wrap(err)
			}
			entry, err := ledger.ParseEntry(data)
			if err != nil || index != from+int64(len(leaves)) {
				return fmt.Errorf("authority: ledger leaf %d is damaged or missing", from+int64(len(leaves)))
			}
			leaves = append(leaves, entry.Leaf())
			return nil
		}, "SELECT id, entry FROM leaves WHERE id >= $1 AND id < $2 ORDER BY id", from, to)
	})
	return leaves, err
}

// Find implements ledger.Finder.
func (r *Record) Find(ctx context.Context, subject [sha256.Size]byte) (index int64, entry *ledger.Entry, err error) {
	err = r.store.View(ctx, func(tx *Tx) (err error) {
		index, entry, err = tx.FindLeaf(subject)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		err = ledger.ErrUnknown
	}
	return index, entry, err
}

// maxLeaves is one bundle of entries, the most that a tile asks for.
const maxLeaves = 256
