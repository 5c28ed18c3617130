// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"path/filepath"

	"valise/gateway/blob"
	"valise/gateway/mailbox"
	"valise/wire"
)

// openFiles opens what keeps files on their way.
func (g *Gateway) openFiles() (*blob.Store, error) {
	place := g.cfg.Files
	if place == nil {
		folder, err := blob.OpenFolder(blob.FolderConfig{Dir: filepath.Join(g.cfg.Dir, "blobs")})
		if err != nil {
			return nil, err
		}
		place = folder
	}
	return blob.Open(blob.Config{
		Place: place, Store: g.cfg.Store, Shared: g.cfg.FilesShared, Ended: g.fileEnded,
		Quota: g.limits.BlobQuota, Total: g.limits.BlobTotal, Floor: g.limits.BlobFloor, Expiry: g.limits.BlobExpiry,
	})
}

// fileEnded counts a file that has ended, and tells the device that brought it.
func (g *Gateway) fileEnded(b mailbox.Blob) {
	switch {
	case b.End == mailbox.BlobFetched:
		g.metrics.files.WithLabelValues("fetched").Inc()
	case b.Complete:
		g.metrics.files.WithLabelValues("expired").Inc()
	default:
		g.metrics.files.WithLabelValues("abandoned").Inc()
		return // nobody asks
	}
	g.notify(b.Owner, wire.NoticeFiles)
}

// blobDone notes that the device has a file, or that its recipients are known. See
// spec/wire.md, Section 8.2.
func (s *session) blobDone(ctx context.Context, r *wire.BlobDone) (wire.Answer, error) {
	err := s.g.blobs.Done(ctx, r.Blob, s.device.ID)
	if errors.Is(err, blob.ErrNotFound) {
		return wire.NewResult(r.ID, wire.NotFound), nil
	}
	if err != nil {
		return nil, err
	}
	return wire.NewResult(r.ID, wire.OK), nil
}

// getBlob says what became of a file that the device brought.
func (s *session) getBlob(ctx context.Context, r *wire.GetBlob) (wire.Answer, error) {
	st, err := s.g.blobs.Standing(ctx, r.Blob, s.device.ID)
	if errors.Is(err, blob.ErrNotFound) {
		return wire.NewResult(r.ID, wire.NotFound), nil
	}
	if err != nil {
		return nil, err
	}
	answer := &wire.BlobState{State: uint8(st.End), Have: uint32(st.Have), Of: uint32(st.Of)}
	if answer.ID = r.ID; st.End == mailbox.BlobKept {
		answer.Until = uint64(max(0, st.Expires))
	}
	return answer, nil
}
