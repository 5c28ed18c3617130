// SPDX-License-Identifier: Apache-2.0

package mailbox

import "time"

const (
	// DefaultBatch caps one transaction: beyond it a batch gains little speed
	// and the first sender in it waits for the last.
	DefaultBatch = 256

	// DefaultBatchBytes caps the payload of one transaction, so that a few
	// large commits do not hold up everybody and the write-ahead log stays small.
	DefaultBatchBytes = 8 << 20

	// yields is how often the committer lets others run before it takes a batch. A
	// packet becomes a submission in three steps, each a goroutine of its own.
	yields = 3

	// queueLength is how many submissions wait for the committer before their
	// connections stop being read.
	queueLength = 4096

	// idleAck is how long an acknowledgement may stay in memory when nothing
	// is put. Losing one costs a repeated delivery, which devices discard.
	idleAck = 250 * time.Millisecond

	// slowLook is how long mail that another gateway took in waits at most, where that
	// gateway has ended before it could tell of it; and lookPortion is for how many devices
	// the store is asked at once. Ten thousand connections cost ten small questions.
	slowLook    = 10 * time.Second
	lookPortion = 1000

	// recentEntries and recentBytes bound the mail kept in memory for a
	// connected device between commit and delivery; what does not fit is read
	// from the store.
	recentEntries = 64
	recentBytes   = 256 << 10

	// keptEntries bounds the empty memory that is kept for the next of them, 130
	// bytes each.
	keptEntries = 32

	// BlobUnit is what the smallest file counts against its owner's quota: a
	// quota of bytes bounds the number of records and of files on disk too.
	BlobUnit = 64 << 10

	// KeptHashes is how many of each device's latest submissions can be told
	// apart from a different one under the same counter. A device has at most
	// wire.MaxPending (256) in flight.
	KeptHashes = 1024

	// Defaults of Quota.
	DefaultMailboxMessages = 100_000
	DefaultMailboxBytes    = 512 << 20
)

// DefaultPackages is how many one-time KeyPackages of one suite a device may
// have on stock, and LowPackages is when it is asked for more.
const (
	DefaultPackages = 200
	LowPackages     = 10
)
