// SPDX-License-Identifier: Apache-2.0

package stream

// Bounds on what the other side may send. Both sides are authenticated, and
// either may have been taken over.
const (
	// maxManifest is package manifest's bound.
	maxManifest = 512 << 10

	// maxItem bounds a leaf: a payload of at most 4 MiB, which is the ledger's
	// bound, and its entry.
	maxItem = 4<<20 + 1<<10

	// maxCheckpoint is the ledger's bound.
	maxCheckpoint = 8 << 10

	// maxBulletin is package bulletin's bound.
	maxBulletin = 32 << 20

	// maxStatement is package statement's bound for what concerns standings.
	maxStatement = 64 << 10

	// maxSize is the ledger's bound on leaves.
	maxSize = 1 << 48
)
