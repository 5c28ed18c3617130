// SPDX-License-Identifier: Apache-2.0

package feed

import "time"

const (
	// pageItems is how many leaves are read at once for a gateway that catches
	// up; a page of ordinary ones takes 64 KiB, of the largest 64 MiB.
	pageItems = 16

	// maxHello bounds what a gateway opens a stream with: its manifest, its
	// checkpoint and its bulletin, which are the authority's own documents.
	maxHello = 40 << 20

	// maxRestore bounds what a gateway gives back at once: a backup that is a
	// hundred thousand ordinary leaves old.
	maxRestore = 1 << 30

	// maxStreams bounds the gateways that are served at once.
	maxStreams = 64

	// maxForwarded bounds the statements that the record cannot take at present.
	maxForwarded = 1024

	// writeLimit is how long a gateway may take to accept one page: one that is
	// slower is dropped, and resumes where it was.
	writeLimit = 15 * time.Second

	// pulse is how often a stream on which nothing happens says that it lives.
	pulse = 10 * time.Second

	// gather is how long one change waits for others. It is nothing beside the
	// seconds in which a suspension must be obeyed.
	gather = 50 * time.Millisecond

	// pollEvery is how often the database is looked at for what another process
	// recorded or published.
	pollEvery = 500 * time.Millisecond

	// firstPause and lastPause bound the wait after a token that did not sign.
	firstPause = time.Second
	lastPause  = 15 * time.Second
)
