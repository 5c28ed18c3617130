// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"context"
	"errors"
	"time"

	"valise/bulletin/stream"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/manifest"
)

// sent is how far one gateway was told.
type sent struct {
	manifest   uint64
	leaves     int64
	checkpoint int64
	bulletin   uint64
	forwarded  int
}

var errEnded = errors.New("the feed ends")

// push tells a gateway what it does not have, and then whatever comes.
func (f *Feed) push(ctx context.Context, out *writer, c *claim) error {
	// Leaves that its checkpoint does not cover are told again: they may not be
	// ours any more.
	at := sent{manifest: c.hello.Manifest, leaves: c.head.N, checkpoint: c.head.N, bulletin: c.number()}
	beat := time.NewTicker(pulse)
	defer beat.Stop()
	for {
		changed, ok := f.wait()
		if !ok {
			return errEnded
		}
		more, err := f.step(ctx, out, &at)
		if err != nil {
			return err
		}
		if more {
			continue
		}
		if err := out.flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-beat.C:
			if err := out.send(stream.Event{Kind: stream.KindHeartbeat}); err != nil {
				return err
			}
		}
	}
}

// step sends one page: first the manifest, which says whose signatures count,
// then leaves, then the checkpoint and the bulletin that cover leaves that were
// sent. more tells that there is another page.
func (f *Feed) step(ctx context.Context, out *writer, at *sent) (more bool, err error) {
	m, raw := f.manifest()
	if m != nil && m.Number > at.manifest {
		if err := out.send(stream.Event{Kind: stream.KindManifest, Body: raw}); err != nil {
			return false, err
		}
		at.manifest = m.Number
	}
	for _, raw := range f.unsent(at) {
		if err := out.send(stream.Event{Kind: stream.KindStatement, Body: raw}); err != nil {
			return false, err
		}
	}
	if more, err = f.sendLeaves(ctx, out, at); err != nil || more {
		return more, err
	}
	if err := f.sendCheckpoint(ctx, out, m, at); err != nil {
		return false, err
	}
	if newest := f.latest(); newest != nil && newest.bulletin.Number > at.bulletin && newest.bulletin.LedgerSize <= at.leaves {
		if err := out.send(stream.Event{Kind: stream.KindBulletin, Body: newest.raw}); err != nil {
			return false, err
		}
		at.bulletin = newest.bulletin.Number
	}
	return false, nil
}

func (f *Feed) unsent(at *sent) [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := f.forwarded[at.forwarded:]
	at.forwarded = len(f.forwarded)
	return list
}

func (f *Feed) sendLeaves(ctx context.Context, out *writer, at *sent) (more bool, err error) {
	var items []ledger.Item
	err = f.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		items, err = tx.Items(at.leaves, pageItems)
		return err
	})
	if err != nil {
		return false, err
	}
	for _, i := range items {
		if err := out.send(stream.Item{Index: i.Index, Entry: i.Entry.Marshal(), Payload: i.Payload}.Event()); err != nil {
			return false, err
		}
		at.leaves = i.Index + 1
	}
	return len(items) == pageItems, nil
}

// sendCheckpoint sends the newest checkpoint. One that our own keys did not sign
// is in the database by somebody else's hand.
func (f *Feed) sendCheckpoint(ctx context.Context, out *writer, m *manifest.Manifest, at *sent) error {
	var newest authority.Checkpoint
	err := f.cfg.Store.View(ctx, func(tx *authority.Tx) (err error) {
		newest, err = tx.LatestCheckpoint()
		return err
	})
	if errors.Is(err, authority.ErrNotFound) || err == nil && (newest.Size <= at.checkpoint || newest.Size > at.leaves) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := openCheckpoint(m, newest.Note); err != nil {
		f.cfg.Log.Error("the newest checkpoint in the database is not ours; it is not passed on", "size", newest.Size, "error", err.Error())
		return nil
	}
	if err := out.send(stream.Event{Kind: stream.KindCheckpoint, Body: newest.Note}); err != nil {
		return err
	}
	at.checkpoint = newest.Size
	return nil
}
