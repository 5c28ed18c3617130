// SPDX-License-Identifier: Apache-2.0

package mls

import "math/bits"

// Array-based trees, RFC 9420, Appendix C. Leaves have even numbers, parents
// odd ones; the number of leaves is always a power of two.

// A nodeIndex numbers a node from left to right.
type nodeIndex uint32

func (l LeafIndex) node() nodeIndex  { return nodeIndex(l) * 2 }
func (x nodeIndex) isLeaf() bool     { return x&1 == 0 }
func (x nodeIndex) leaf() LeafIndex  { return LeafIndex(x / 2) }
func (x nodeIndex) level() int       { return bits.TrailingZeros32(^uint32(x)) }
func (x nodeIndex) left() nodeIndex  { return x ^ 1<<(x.level()-1) }
func (x nodeIndex) right() nodeIndex { return x ^ 3<<(x.level()-1) }

// nodeWidth is the number of nodes of a tree of so many leaves.
func nodeWidth(leaves uint32) uint32 {
	if leaves == 0 {
		return 0
	}
	return 2*leaves - 1
}

// fullWidth rounds a number of leaves up to a power of two.
func fullWidth(leaves uint32) uint32 {
	if leaves <= 1 {
		return leaves
	}
	return 1 << bits.Len32(leaves-1)
}

// rootOf is the root of a full tree of so many leaves.
func rootOf(leaves uint32) nodeIndex { return nodeIndex(leaves - 1) }

// parent of a node that is not the root.
func (x nodeIndex) parent() nodeIndex {
	k := x.level()
	return (x | 1<<k) &^ (1 << (k + 1))
}

// sibling of a node that is not the root.
func (x nodeIndex) sibling() nodeIndex {
	p := x.parent()
	if x < p {
		return p.right()
	}
	return p.left()
}

// covers says whether y lies in the subtree of x.
func (x nodeIndex) covers(y nodeIndex) bool {
	span := nodeIndex(1)<<x.level() - 1
	return y >= x-span && y <= x+span
}

// commonAncestor is the lowest node that covers both.
func commonAncestor(x, y nodeIndex) nodeIndex {
	for !x.covers(y) {
		x = x.parent()
	}
	return x
}
