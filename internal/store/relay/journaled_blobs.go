// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"time"

	"valise/gateway/mailbox"
)

// The records of files are in the database alone, past the journal. What depends on groups,
// their members and holds waits until the database has those too.

// BeginBlob implements mailbox.Store.
func (j *Journaled) BeginBlob(ctx context.Context, b mailbox.Blob, limits mailbox.BlobLimits, claim mailbox.Claim) (mailbox.Blob, error) {
	if err := j.settle(ctx); err != nil {
		return mailbox.Blob{}, err
	}
	return j.db.BeginBlob(ctx, b, limits, claim)
}

// BlobDone implements mailbox.Store.
func (j *Journaled) BlobDone(ctx context.Context, id [32]byte, device mailbox.Device, until int64) ([]mailbox.Blob, error) {
	if err := j.settle(ctx); err != nil {
		return nil, err
	}
	return j.db.BlobDone(ctx, id, device, until)
}

// FetchedBlobs implements mailbox.Store.
func (j *Journaled) FetchedBlobs(ctx context.Context, until int64, limit int) ([]mailbox.Blob, error) {
	if err := j.settle(ctx); err != nil {
		return nil, err
	}
	return j.db.FetchedBlobs(ctx, until, limit)
}

// SaveBlob implements mailbox.Store.
func (j *Journaled) SaveBlob(ctx context.Context, b mailbox.Blob, claim mailbox.Claim) error {
	return j.db.SaveBlob(ctx, b, claim)
}

// ReleaseBlob implements mailbox.Store.
func (j *Journaled) ReleaseBlob(ctx context.Context, b mailbox.Blob, holder [16]byte) error {
	return j.db.ReleaseBlob(ctx, b, holder)
}

// FinishBlob implements mailbox.Store.
func (j *Journaled) FinishBlob(ctx context.Context, b mailbox.Blob, holder [16]byte, expires int64) error {
	return j.db.FinishBlob(ctx, b, holder, expires)
}

// DropBlob implements mailbox.Store.
func (j *Journaled) DropBlob(ctx context.Context, b mailbox.Blob, holder [16]byte) error {
	return j.db.DropBlob(ctx, b, holder)
}

// Blobs implements mailbox.Store.
func (j *Journaled) Blobs(ctx context.Context, id [32]byte) ([]mailbox.Blob, error) {
	return j.db.Blobs(ctx, id)
}

// BlobStanding implements mailbox.Store.
func (j *Journaled) BlobStanding(ctx context.Context, id [32]byte, owner mailbox.Device) (mailbox.BlobStanding, error) {
	return j.db.BlobStanding(ctx, id, owner)
}

// ExpiredBlobs implements mailbox.Store.
func (j *Journaled) ExpiredBlobs(ctx context.Context, now time.Time, limit int) ([]mailbox.Blob, error) {
	return j.db.ExpiredBlobs(ctx, now, limit)
}

// ExpireBlob implements mailbox.Store.
func (j *Journaled) ExpireBlob(ctx context.Context, b mailbox.Blob, now time.Time, until int64) (bool, error) {
	return j.db.ExpireBlob(ctx, b, now, until)
}

// LitteredBlobs implements mailbox.Store.
func (j *Journaled) LitteredBlobs(ctx context.Context, limit int) ([]mailbox.Blob, error) {
	return j.db.LitteredBlobs(ctx, limit)
}

// WipedBlob implements mailbox.Store.
func (j *Journaled) WipedBlob(ctx context.Context, b mailbox.Blob) error {
	return j.db.WipedBlob(ctx, b)
}

// ForgetBlobs implements mailbox.Store.
func (j *Journaled) ForgetBlobs(ctx context.Context, now time.Time, limit int) error {
	return j.db.ForgetBlobs(ctx, now, limit)
}
