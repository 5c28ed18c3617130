// SPDX-License-Identifier: Apache-2.0

package relay

import "time"

const (
	// keptFiles of the journal are left alone: what is acknowledged in time needs
	// never be moved. With files of 64 MiB it is what a busy gateway takes in
	// within seconds, and what is read again after a crash within one.
	keptFiles = 2

	// maxFiles of the journal may wait to be moved; then commits wait too.
	maxFiles = 6

	// maxPointers of mail may be in the index in memory, about 250 bytes each with
	// their letters, before the mover starts; commits wait at twice as many.
	maxPointers = 250_000

	// maxWeight bounds the steps, KeyPackages and certificates in memory that the
	// database does not have yet.
	maxWeight = 64 << 20

	// heavyPause is how long steps, KeyPackages and certificates may wait for others
	// before the database gets them, when nobody wants to see them: a hundred devices
	// that arrive together cost one transaction.
	heavyPause = 50 * time.Millisecond

	// maxArrivals bounds the devices whose arrival is one batch of the journal, and so how
	// long messages wait for them: some 2 KiB each, and a look into the database.
	maxArrivals = 64

	// maxNoticed bounds the devices that stay in memory only because the database does
	// not know yet when they came last: more of them would crowd out what the cache is
	// for, and be looked through at each device that is fetched.
	maxNoticed = maxCached / 2

	// movedPointers and movedBytes bound one transaction of the mover, so that
	// others who write to the database wait a fraction of a second.
	movedPointers = 4000
	movedBytes    = 8 << 20

	// keptBuffer is how large the buffer of a batch may stay in memory.
	keptBuffer = 4 << 20

	// keptChanges and keptOfBox bound what a batch leaves for the next one: devices, and
	// of each hashes and letters, 40 bytes for both. Together this is at most 3 MB.
	keptChanges = 1024
	keptOfBox   = 64

	// maxNews bounds what one notification holds: PostgreSQL takes less than 8,000 bytes of
	// text, and base64 makes four of three.
	maxNews = 7996 / 4 * 3

	// maxPending bounds the news that wait to be told, some 50 bytes each: what a busy
	// gateway has in seconds. With more, others are told to look everywhere.
	maxPending = 100_000

	// maxPassed is how often an acknowledgement is put off because another gateway is at the
	// mailbox, before a batch waits for that.
	maxPassed = 8

	// tellPause and longTellPause are between attempts to tell, and tellTimeout ends one.
	tellPause     = 20 * time.Millisecond
	longTellPause = 2 * time.Second
	tellTimeout   = 10 * time.Second

	// followPause and longFollowPause are between attempts to listen.
	followPause     = 50 * time.Millisecond
	longFollowPause = 5 * time.Second

	// signOfLife is how often a node says that it lives, and finds out whether it hears.
	signOfLife  = 5 * time.Second
	signTimeout = 10 * time.Second

	// lockAttempts and lockPause are how long a node waits for the locks of a predecessor
	// that is about to end.
	lockAttempts = 20
	lockPause    = 50 * time.Millisecond

	// maxNodes bounds a list of nodes, and forgottenNode is after which time without a sign
	// of life one is not on it any more.
	maxNodes      = 1000
	forgottenNode = 30 * 24 * time.Hour

	// savedBoxes bounds the states in one transaction of the mover.
	savedBoxes = 2000
)
