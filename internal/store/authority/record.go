// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"valise/ledger"
)

// AppendIssuance appends the leaf of a certificate that is going to be signed, in
// this transaction, and returns its index. Transactions are serialized, so indexes
// have no gaps and the tree never forks.
func (tx *Tx) AppendIssuance(tbs []byte) (int64, error) {
	entry, err := ledger.NewIssuance(tbs)
	if err != nil {
		return 0, err
	}
	size, err := tx.LedgerSize()
	if err != nil {
		return 0, err
	}
	hashes, err := ledger.Append(size, entry.Leaf(), storedHashes{tx})
	if err != nil {
		return 0, err
	}
	if err := tx.exec("INSERT INTO leaves (id, entry) VALUES ($1, $2)", size, entry.Marshal()); err != nil {
		return 0, err
	}
	for i, h := range hashes {
		if err := tx.exec("INSERT INTO hashes (id, hash) VALUES ($1, $2)", ledger.Count(size)+int64(i), h[:]); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// LedgerSize returns the number of leaves.
func (tx *Tx) LedgerSize() (int64, error) {
	var size int64
	err := tx.row("SELECT coalesce(max(id) + 1, 0) FROM leaves")(&size)
	return size, err
}

// LedgerEntry returns the entry behind a leaf.
func (tx *Tx) LedgerEntry(index int64) (*ledger.Entry, error) {
	var data []byte
	if err := tx.row("SELECT entry FROM leaves WHERE id = $1", index)(&data); err != nil {
		return nil, err
	}
	return ledger.ParseEntry(data)
}

// LedgerHead returns size and root hash of the tree.
func (tx *Tx) LedgerHead() (ledger.Head, error) {
	size, err := tx.LedgerSize()
	if err != nil {
		return ledger.Head{}, err
	}
	return ledger.HeadOf(size, storedHashes{tx})
}

// ProveInclusion proves that a leaf stands in the tree as it is now.
func (tx *Tx) ProveInclusion(index int64) (tlog.RecordProof, error) {
	size, err := tx.LedgerSize()
	if err != nil {
		return nil, err
	}
	return ledger.ProveInclusion(size, index, storedHashes{tx})
}

// storedHashes reads the tree's hashes within a transaction.
type storedHashes struct{ tx *Tx }

// ReadHashes implements tlog.HashReader.
func (s storedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		var h []byte
		if err := s.tx.row("SELECT hash FROM hashes WHERE id = $1", index)(&h); err != nil {
			return nil, fmt.Errorf("ledger hash %d: %w", index, err)
		}
		if copy(out[i][:], h) != len(out[i]) {
			return nil, fmt.Errorf("authority: ledger hash %d is damaged", index)
		}
	}
	return out, nil
}
