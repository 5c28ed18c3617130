// SPDX-License-Identifier: Apache-2.0

package blob

import "time"

const (
	// MaxSize bounds one file: 10 GiB of content, and room for the tags of its
	// chunks.
	MaxSize = 10<<30 + 48<<20

	// Piece is how many bytes may arrive between two moments at which a partial file is
	// synced and its record says so: what a crash costs the sender, and what one sync
	// asks of a disk that also takes messages. It is also one part in a bucket, of which a
	// file may have 10,000.
	Piece = 8 << 20

	// sweepEvery is how often a place that can lose track of something looks for it.
	sweepEvery = 6 * time.Hour

	// claimFor is how long a process may write a file without saying so again, and
	// claimAgain when it does. A sender may be silent for a minute between the two.
	claimFor   = 3 * time.Minute
	claimAgain = 30 * time.Second

	// claimSlack is how long before its claim ends a process stops writing: clocks of
	// gateways that share a database differ by less.
	claimSlack = 20 * time.Second

	// partialExpiry is how long an upload may stay unfinished. Its whole size
	// counts against the owner's quota meanwhile.
	partialExpiry = 7 * 24 * time.Hour

	// toldFor is how long the record of a file that has ended stays, to tell its owner.
	toldFor = 30 * 24 * time.Hour

	// endAtOnce bounds the files that one round of Expire ends or wipes.
	endAtOnce = 1000

	// DefaultFloor is what a folder's disk keeps free for everything else: the
	// journal, the database, logs.
	DefaultFloor = 1 << 30

	// maxProgress bounds what a place keeps of a partial file beside its bytes: the
	// largest is the name of an upload to a bucket.
	maxProgress = 4 << 10

	// maxHash bounds the state of a hash between two saves; SHA-256's has 108 bytes.
	maxHash = 255
)
