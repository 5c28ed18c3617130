// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"valise/bulletin"
	"valise/bulletin/stream"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/ledger"
)

// Exported says what is in a file for gateways.
type Exported struct {
	Leaves     int64  // of the record, those before the file's first one too
	Checkpoint int64  // leaves that the checkpoint covers
	Bulletin   uint64 // number; 0: none
	Known      int64  // leaves that the bulletin was made from
}

// Export writes what a gateway without a connection is to know: manifest, leaves from an
// index on, checkpoint, bulletin. See spec/bulletin.md, Section 6.1.
func (f *Feed) Export(ctx context.Context, w io.Writer, from int64) (told Exported, err error) {
	m, raw := f.manifest()
	if m == nil {
		return told, errors.New("feed: the record has no manifest yet")
	}
	// Before the leaves, which may grow meanwhile: what is signed is of leaves that
	// will be there.
	note, latest, err := f.signed(ctx)
	if err != nil {
		return told, err
	}
	if err := stream.Write(w, stream.Event{Kind: stream.KindManifest, Body: raw}); err != nil {
		return told, err
	}
	if told.Leaves, err = f.exportLeaves(ctx, w, from); err != nil {
		return told, err
	}
	if note != nil {
		head, err := openCheckpoint(m, note)
		if err != nil {
			return told, err
		}
		if err := stream.Write(w, stream.Event{Kind: stream.KindCheckpoint, Body: note}); err != nil {
			return told, err
		}
		told.Checkpoint = head.N
	}
	if latest == nil {
		return told, nil
	}
	b, err := bulletin.Verify(latest, m)
	if err != nil {
		return told, err
	}
	told.Bulletin, told.Known = b.Number, b.LedgerSize
	return told, stream.Write(w, stream.Event{Kind: stream.KindBulletin, Body: latest})
}

// signed returns the newest checkpoint and bulletin of the database, nil where there is
// none.
func (f *Feed) signed(ctx context.Context) (note, raw []byte, err error) {
	err = f.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		note, raw = nil, nil
		checkpoint, err := tx.LatestCheckpoint()
		if err == nil {
			note = checkpoint.Note
		} else if !errors.Is(err, authority.ErrNotFound) {
			return err
		}
		newest, err := tx.LatestBulletin()
		if err == nil {
			raw = newest.JWS
		} else if !errors.Is(err, authority.ErrNotFound) {
			return err
		}
		return nil
	})
	return note, raw, err
}

func (f *Feed) exportLeaves(ctx context.Context, w io.Writer, from int64) (at int64, err error) {
	for at = from; ; {
		var items []ledger.Item
		err := f.cfg.Store.View(ctx, func(tx *authority.Tx) (err error) {
			items, err = tx.Items(at, pageItems)
			return err
		})
		if err != nil {
			return at, err
		}
		for _, i := range items {
			if err := stream.Write(w, stream.Item{Index: i.Index, Entry: i.Entry.Marshal(), Payload: i.Payload}.Event()); err != nil {
				return at, err
			}
			at = i.Index + 1
		}
		if len(items) < pageItems {
			return at, nil
		}
	}
}

// TakeBack takes in what a gateway without a connection knows, from a file that
// valise-gatewayd export made: what [Feed.Handler] does for gateways that connect. All of
// it is verified before it counts. The gateway counts as asked, by the name that the
// operator gives: who carried the file is for the operator to know.
func (f *Feed) TakeBack(ctx context.Context, gateway string, file io.Reader) (taken int64, err error) {
	r := io.LimitReader(file, maxRestore)
	first, err := stream.Read(r)
	if err != nil {
		return 0, err
	}
	c := new(claim)
	if c.hello, err = first.Hello(); err != nil {
		return 0, err
	}
	back, err := f.readReturned(r)
	if err != nil {
		return 0, err
	}
	c.manifest, c.head, c.note = back.manifest, back.head, back.note
	if back.bulletin != nil {
		if c.bulletin, err = bulletin.Verify(back.bulletin, back.manifest); err != nil {
			return 0, err
		}
	}
	p := peer{id: identity.DeviceID(sha256.Sum256([]byte("file of " + gateway))), name: gateway}
	behind, err := f.weigh(ctx, p, c)
	if err != nil || behind == nil {
		return 0, err
	}
	if len(back.items) > 0 && back.items[0].Index > behind.Size {
		return 0, fmt.Errorf("feed: the file begins with leaf %d, and leaf %d is missing here", back.items[0].Index, behind.Size)
	}
	if taken, err = f.takeIn(ctx, back); err != nil {
		f.audit(ctx, "restore refused", slog.String("reason", "not_verified"), slog.String("gateway", gateway), slog.String("detail", err.Error()))
		return 0, err
	}
	f.audit(ctx, "restored from gateway", slog.String("gateway", gateway), slog.Int64("leaves", taken), slog.Int64("checkpoint", back.head.N))
	_, err = f.weigh(ctx, p, c) // now it has nothing that is missing here
	return taken, err
}
