// SPDX-License-Identifier: Apache-2.0

package group

import "valise/wire"

const (
	// MaxMembers bounds a group: the largest tree that fits a frame on the
	// hybrid suite has some 1,200 leaves.
	MaxMembers = 1000

	// maxLoaded bounds the groups in memory; one of ten devices takes about
	// 50 KiB.
	maxLoaded = 2000

	// maxLeaves bounds the members of all groups in memory, about 5 KiB each:
	// two thousand groups of a thousand devices would not fit.
	maxLeaves = 100_000

	// maxFounding bounds the tree of a new group, which holds one leaf: it is
	// refused before each leaf of a large one is checked.
	maxFounding = 2 * wire.MaxKeyPackage
)
