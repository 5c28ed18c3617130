// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"io"
	"time"
)

// A Place is where the bytes of files lie, under names of digits and letters. Its methods
// may be called by any goroutine, and those of several processes at the same time, but one
// name has one Draft at a time.
type Place interface {
	// Draft begins a file, or goes on with what has arrived of it: have bytes, and what the
	// last Save returned beside them. If the place has less, it begins anew.
	Draft(ctx context.Context, name string, size, have uint64, progress []byte) (Draft, error)
	// Has says whether a whole file is there, of this size.
	Has(ctx context.Context, name string, size uint64) (bool, error)
	// Open reads a whole file from an offset on; ErrNotFound if it is not there.
	Open(ctx context.Context, name string, offset, size uint64) (io.ReadCloser, error)
	// Delete removes whatever is there under a name: a whole file, a partial one.
	Delete(ctx context.Context, name string) error
	// Free is how many bytes it has room for, and false if there is no telling.
	Free(ctx context.Context) (uint64, bool)
}

// A Sweeper is a Place in which a crash can leave something that no record knows.
type Sweeper interface {
	// Sweep deletes it. Several processes may do so at the same time.
	Sweep(ctx context.Context, now time.Time) error
}

// A Draft is a file that is arriving. It belongs to one goroutine.
type Draft interface {
	io.Writer
	// Offset is where writing goes on.
	Offset() uint64
	// Save persists what was written, as far as it can, and says how far that is and what
	// is needed to go on there.
	Save(ctx context.Context) (have uint64, progress []byte, err error)
	// Whole reads what has been written, to be hashed once more; nil from a place that
	// has compared a digest of each piece itself.
	Whole() (io.Reader, error)
	// Commit gives the whole file its name.
	Commit(ctx context.Context) error
	// Close lets go of it, and keeps what was saved.
	Close() error
}
