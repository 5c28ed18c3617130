// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// A Builder computes the head of a tree leaf by leaf and keeps one hash a
// level. The zero Builder is of the empty tree.
type Builder struct {
	size  int64
	roots []tlog.Hash // of the complete subtrees, largest first: one for each bit of size
}

// Size returns the number of leaves added.
func (b *Builder) Size() int64 { return b.size }

// Add adds the next leaf.
func (b *Builder) Add(leaf Leaf) error {
	if b.size >= MaxSize {
		return fmt.Errorf("ledger: a tree of %d leaves is full", b.size)
	}
	hash := tlog.RecordHash(leaf[:])
	for rest := b.size; rest&1 == 1; rest >>= 1 {
		last := len(b.roots) - 1
		hash = tlog.NodeHash(b.roots[last], hash)
		b.roots = b.roots[:last]
	}
	b.roots = append(b.roots, hash)
	b.size++
	return nil
}

// Head returns the head of the tree so far (RFC 6962, Section 2.1).
func (b *Builder) Head() Head {
	if b.size == 0 {
		return Empty
	}
	last := len(b.roots) - 1
	hash := b.roots[last]
	for i := last - 1; i >= 0; i-- {
		hash = tlog.NodeHash(b.roots[i], hash)
	}
	return Head{N: b.size, Hash: hash}
}

// Clone returns an independent copy.
func (b *Builder) Clone() *Builder {
	return &Builder{b.size, append([]tlog.Hash(nil), b.roots...)}
}
