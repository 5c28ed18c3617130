// SPDX-License-Identifier: Apache-2.0

package check

import "time"

// Bounds, and from where on something is wrong.
const (
	// leastSpace is what a disk needs for anything at all: two journal files of 64 MiB
	// and a transaction. Below lowPercent of the whole an operator has to look.
	leastSpace = 256 << 20
	lowPercent = 10

	// leastInodes is the same for files; files on their way take one each.
	leastInodes = 1000

	// slowSync is how long one write with its sync may take before somebody should
	// look: each message waits for one. Disks that do their work take 0.1 to 10 ms.
	slowSync = 50 * time.Millisecond

	// deadSync is how long syncs may take before the disk counts as broken.
	deadSync = 5 * time.Second

	// syncs is how many are made; the median counts.
	syncs = 5

	// wantBuffer is what package quic-go asks for a socket, as the kernel counts it
	// (twice what was asked for, socket(7)).
	wantBuffer = 7 << 20

	// nearOffset and farOffset bound how wrong a clock may be. An officer's statement
	// is taken up to two minutes ahead of the judge's clock; half of that is ours.
	nearOffset = 2 * time.Second
	farOffset  = time.Minute

	// expiring is the last part of a certificate's life, in which it should have been
	// renewed: a third.
	expiring = 3

	// leastConnections is how many a daemon takes of a database for itself.
	leastConnections = 20

	// dialLimit is how long another machine may take to answer.
	dialLimit = 10 * time.Second

	// maxAnswer bounds what is read of its answer.
	maxAnswer = 1 << 20
)
