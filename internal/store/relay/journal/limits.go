// SPDX-License-Identifier: Apache-2.0

package journal

const (
	// DefaultSegment is the size of a file: large enough that changing files is
	// rare, small enough to be released soon.
	DefaultSegment = 64 << 20

	// unfilled is the size of a file that nobody had time to fill with zeros: every
	// sync of one waits for the file system's own records as well, so that the
	// next file should come soon, which is filled by then.
	unfilled = 4 << 20

	// aheadAfter is what part of a file is written before the next one is made ahead: a
	// quarter. A disk that writes the rest sooner than zeros beside it gets a short file.
	aheadAfter = 4

	// MaxBody bounds one batch, well above mailbox.DefaultBatchBytes and one
	// more submission, and below what a file holds.
	MaxBody = 48 << 20

	// block is what the disk writes at once; a batch shares none with another.
	block = 4096

	// keptFiles is how many released files wait to be used again.
	keptFiles = 2

	// keptBuffer is how large a buffer may stay in memory between two reads of
	// a scan.
	keptBuffer = 4 << 20
)
