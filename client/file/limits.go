// SPDX-License-Identifier: Apache-2.0

package file

const (
	// ChunkSize is what this package cuts files into: small enough that a lost
	// connection repeats little, large enough that a tag a chunk costs nothing. Files over
	// largeFile are cut into LargeChunk, because a plan has a digest for each chunk.
	ChunkSize  = 256 << 10
	LargeChunk = 1 << 20
	largeFile  = 1 << 30

	// minChunk and maxChunk bound the chunks of files from others: memory is one
	// chunk and its tag, and a tiny chunk would cost more in tags than in file.
	minChunk = 1 << 10
	maxChunk = 4 << 20

	// MaxSize bounds one file's plaintext.
	MaxSize = 10 << 30

	// syncEvery is how many bytes may arrive between two syncs of an unfinished file: what a
	// loss of power costs.
	syncEvery = 64 << 20

	// spare is what a fetched file leaves free on its disk.
	spare = 64 << 20

	// maxName bounds a name in bytes: file systems take 255, and room is left
	// for a number that tells two files of one name apart.
	maxName = 200

	// maxNumbered is how many files of one name a folder is searched through.
	maxNumbered = 10000

	overhead = 16 // the GCM tag on each chunk
)
