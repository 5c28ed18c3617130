// SPDX-License-Identifier: Apache-2.0

package mailbox

import (
	"context"
	"time"
)

// A Blob is the record of one file on its way through a group.
type Blob struct {
	ID       [32]byte
	Group    []byte
	Size     uint64
	Owner    Device
	Complete bool
	Created  int64 // seconds since 1970
	Expires  int64
	Name     string // of its bytes, with Life: digits and letters only

	End      BlobEnd
	Litter   bool   // deleted, and its bytes may still lie about
	Life     uint64 // rises when it is brought again after it was deleted
	Have     uint64 // bytes that have been persisted, until it is complete
	Progress []byte // what it takes to go on there
}

// A BlobEnd says why a file is not there any more.
type BlobEnd uint8

// The ends of a file; the numbers are those of wire.BlobState.
const (
	BlobKept    BlobEnd = 0 // it is there
	BlobFetched BlobEnd = 1 // all recipients have it
	BlobExpired BlobEnd = 2 // its time was over
)

// BlobLimits bound what may be announced; 0 means no bound.
type BlobLimits struct {
	Owner uint64 // of one device's files, in bytes
	Total uint64 // of all files
	Room  uint64 // of what is announced and has not arrived yet
}

// A Claim is the right to write a file's bytes, for one process and a while.
type Claim struct {
	Holder [16]byte
	Now    int64 // seconds since 1970
	Until  int64
	Alone  bool // there is no other process: what another one held is free
}

// A BlobStanding is a file as its owner is told of it.
type BlobStanding struct {
	Blob
	Have, Of int // so many of its recipients have it; of 0 before they are known
}

// Blobs are the methods of a Store for the records of files. Where it lists files to be
// worked on, any number of processes may do so: each change is won by one of them.
type Blobs interface {
	// BeginBlob records a file that is about to arrive, or returns the record that exists
	// for the same group and id, and claims it unless it is complete. It returns
	// ErrNotFound for an unknown group, ErrQuota and ErrRoom beyond the limits, and
	// ErrClaimed while another process writes the file.
	BeginBlob(ctx context.Context, b Blob, limits BlobLimits, claim Claim) (Blob, error)
	// SaveBlob says how far a claimed file has come, and claims it longer. It returns
	// ErrClaimed if the claim was lost.
	SaveBlob(ctx context.Context, b Blob, claim Claim) error
	// ReleaseBlob gives a claim back.
	ReleaseBlob(ctx context.Context, b Blob, holder [16]byte) error
	// FinishBlob marks a claimed file as complete, or one that is complete as brought
	// again, and sets when it expires. It returns ErrClaimed if the claim was lost.
	FinishBlob(ctx context.Context, b Blob, holder [16]byte, expires int64) error
	// DropBlob ends a claimed file that cannot become what it was announced as, or a
	// complete one whose bytes are lost.
	DropBlob(ctx context.Context, b Blob, holder [16]byte) error

	// Blobs returns the records with an id, one for each group that has it or had it.
	Blobs(ctx context.Context, id [32]byte) ([]Blob, error)
	// BlobStanding returns the record of a file that a device brought, or ErrNotFound.
	BlobStanding(ctx context.Context, id [32]byte, owner Device) (BlobStanding, error)

	// BlobDone notes that a device is done with a file: its owner, that its recipients are
	// known, which are those in the group's tree now; anybody else in the tree, that the
	// file is its own now. It returns ErrNotFound for others. What all recipients have
	// now is ended, remembered until a moment (seconds since 1970), and returned; a
	// recipient that is not in the tree any more, or is held, is not waited for.
	BlobDone(ctx context.Context, id [32]byte, device Device, until int64) ([]Blob, error)
	// FetchedBlobs ends and returns files that all recipients have because some of them
	// are not waited for any more, at most limit.
	FetchedBlobs(ctx context.Context, until int64, limit int) ([]Blob, error)

	// ExpiredBlobs lists files whose time is over and that are not being written.
	ExpiredBlobs(ctx context.Context, now time.Time, limit int) ([]Blob, error)
	// ExpireBlob ends one of them, if it is still so, and remembers it until a moment.
	ExpireBlob(ctx context.Context, b Blob, now time.Time, until int64) (bool, error)
	// LitteredBlobs lists files that ended and whose bytes may still lie about.
	LitteredBlobs(ctx context.Context, limit int) ([]Blob, error)
	// WipedBlob says that the bytes of a file's life are deleted.
	WipedBlob(ctx context.Context, b Blob) error
	// ForgetBlobs forgets files that have ended, when nobody needs to be told any more.
	ForgetBlobs(ctx context.Context, now time.Time, limit int) error
}
