// SPDX-License-Identifier: Apache-2.0

package vault

const (
	// MaxValue bounds one cell. The largest are a submission that waits to be
	// sent (a commit with its Welcome, 8 MiB) and the records of a large tree.
	MaxValue = 32 << 20

	// MaxKey bounds a parent or row as the caller names it: group ids have up
	// to 255 bytes, addresses 318.
	MaxKey = 512

	// maxTable bounds a table's name, which is a word of the program.
	maxTable = 32
)
