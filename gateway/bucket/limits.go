// SPDX-License-Identifier: Apache-2.0

package bucket

import (
	"time"

	"valise/gateway/blob"
)

const (
	// pieceTime bounds one request that carries a piece, its repetitions included: the
	// device that sends the file waits for it. 8 MiB in it are a line of 1 Mbit/s.
	pieceTime = 90 * time.Second

	// askTime bounds any other request.
	askTime = 30 * time.Second

	// retries is how often the client library tries a request.
	retries = 3

	// DefaultUploads is how many files may arrive at one time: each has a piece in memory.
	DefaultUploads = 32

	// maxPieces is what a file of the largest size has: object stores take 10,000.
	maxPieces = blob.MaxSize/blob.Piece + 1

	// maxUpload and maxTag bound the names that the store gives to uploads and pieces.
	maxUpload = 2048
	maxTag    = 256

	// listed is how many pieces or uploads one answer names.
	listed = 1000

	// staleAfter is how old an upload is that no record knows any more: longer than a
	// file may stay unfinished.
	staleAfter = 9 * 24 * time.Hour
)
