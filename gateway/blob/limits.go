// SPDX-License-Identifier: Apache-2.0

package blob

import "time"

const (
	// MaxSize bounds one file: 2 GiB of content, and room for the tags of its
	// chunks.
	MaxSize = 2<<30 + 16<<20

	// syncEvery is how many bytes may arrive between two syncs of a partial
	// file: what a crash costs the sender.
	syncEvery = 8 << 20

	// partialExpiry is how long an upload may stay unfinished. Its whole size
	// counts against the owner's quota meanwhile.
	partialExpiry = 7 * 24 * time.Hour

	// expireAtOnce bounds the files that one round of Expire removes.
	expireAtOnce = 1000
)
