// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// ErrProof is wrapped by every error of a proof that does not prove what it
// should: the record must not be trusted.
var ErrProof = errors.New("ledger: proof refused")

// A Head names a tree: its size and root hash. Whose word it is, is the
// business of whoever signs it.
type Head = tlog.Tree

// Empty is the head of the tree without leaves: SHA-256 of nothing (RFC 6962,
// Section 2.1).
var Empty = Head{Hash: sha256.Sum256(nil)}

// Count returns the number of hashes stored for a tree of size leaves, which
// is the index of the first one that appending to it adds.
func Count(size int64) int64 { return tlog.StoredHashCount(size) }

// Append returns the hashes to store, at indexes from Count(size) on, so that
// the tree of size leaves in stored gains one. A leaf's own hash comes first.
func Append(size int64, leaf Leaf, stored tlog.HashReader) ([]tlog.Hash, error) {
	if size < 0 || size >= MaxSize {
		return nil, fmt.Errorf("ledger: appending to a tree of %d leaves", size)
	}
	hashes, err := tlog.StoredHashes(size, leaf[:], stored)
	if err != nil {
		return nil, fmt.Errorf("ledger: appending leaf %d: %w", size, err)
	}
	return hashes, nil
}

// HeadOf computes the head of the first size leaves in stored.
func HeadOf(size int64, stored tlog.HashReader) (Head, error) {
	if size < 0 || size > MaxSize {
		return Head{}, fmt.Errorf("ledger: head of a tree of %d leaves", size)
	}
	root, err := tlog.TreeHash(size, stored)
	if err != nil {
		return Head{}, fmt.Errorf("ledger: head of %d leaves: %w", size, err)
	}
	return Head{N: size, Hash: root}, nil
}

// ProveInclusion proves that leaf index stands in the tree of size leaves (RFC
// 6962, Section 2.1.1).
func ProveInclusion(size, index int64, stored tlog.HashReader) (tlog.RecordProof, error) {
	if index < 0 || index >= size || size > MaxSize {
		return nil, fmt.Errorf("ledger: no leaf %d in a tree of %d", index, size)
	}
	proof, err := tlog.ProveRecord(size, index, stored)
	if err != nil {
		return nil, fmt.Errorf("ledger: proving leaf %d of %d: %w", index, size, err)
	}
	return proof, nil
}

// CheckInclusion checks that leaf stands at index in the tree that head names.
func CheckInclusion(head Head, index int64, leaf Leaf, proof tlog.RecordProof) error {
	if index < 0 || index >= head.N || head.N > MaxSize || len(proof) > maxProof {
		return fmt.Errorf("%w: leaf %d of %d with %d hashes", ErrProof, index, head.N, len(proof))
	}
	if err := tlog.CheckRecord(proof, head.N, head.Hash, index, tlog.RecordHash(leaf[:])); err != nil {
		return fmt.Errorf("%w: leaf %d of %d: %w", ErrProof, index, head.N, err)
	}
	return nil
}

// ProveGrowth proves that the tree of newSize leaves extends that of oldSize
// (RFC 6962, Section 2.1.2). Every tree extends the empty one: no hashes.
func ProveGrowth(oldSize, newSize int64, stored tlog.HashReader) (tlog.TreeProof, error) {
	if oldSize < 0 || oldSize > newSize || newSize > MaxSize {
		return nil, fmt.Errorf("ledger: a tree of %d leaves does not extend one of %d", newSize, oldSize)
	}
	if oldSize == 0 {
		return tlog.TreeProof{}, nil
	}
	proof, err := tlog.ProveTree(newSize, oldSize, stored)
	if err != nil {
		return nil, fmt.Errorf("ledger: proving growth from %d to %d: %w", oldSize, newSize, err)
	}
	return proof, nil
}

// CheckGrowth checks that the tree that newer names extends the one that older
// names: nothing was changed or taken out.
func CheckGrowth(older, newer Head, proof tlog.TreeProof) error {
	if older.N < 0 || older.N > newer.N || newer.N > MaxSize || len(proof) > maxProof {
		return fmt.Errorf("%w: growth from %d to %d with %d hashes", ErrProof, older.N, newer.N, len(proof))
	}
	if older.N == 0 {
		return checkEmpty(older, newer, proof)
	}
	if err := tlog.CheckTree(proof, newer.N, newer.Hash, older.N, older.Hash); err != nil {
		return fmt.Errorf("%w: growth from %d to %d: %w", ErrProof, older.N, newer.N, err)
	}
	return nil
}

// checkEmpty covers the empty tree, which tlog's proofs leave out.
func checkEmpty(older, newer Head, proof tlog.TreeProof) error {
	if len(proof) > 0 || older != Empty || newer.N == 0 && newer != Empty {
		return fmt.Errorf("%w: the empty tree has another hash", ErrProof)
	}
	return nil
}
