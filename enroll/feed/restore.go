// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"valise/bulletin"
	"valise/bulletin/stream"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/manifest"
	"valise/record"
)

// restoreLimit is how long a gateway may take to give everything back.
const restoreLimit = 10 * time.Minute

// returned is what a gateway gave back.
type returned struct {
	manifest *manifest.Manifest
	note     []byte
	head     ledger.Head
	items    []ledger.Item
	bulletin []byte
}

// serveRestore takes in what this database lacks. It is possible only while the
// authority is read-only, and everything is verified before it counts.
func (f *Feed) serveRestore(w http.ResponseWriter, r *http.Request) {
	p, ok := f.admit(w, r)
	if !ok {
		return
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(restoreLimit))
	_ = control.SetWriteDeadline(time.Now().Add(2 * restoreLimit))
	err := f.cfg.Store.View(r.Context(), (*authority.Tx).Writable)
	if err == nil {
		http.Error(w, "nothing is missing", http.StatusConflict)
		return
	}
	var back *returned
	if errors.Is(err, authority.ErrRestored) {
		back, err = f.readReturned(io.LimitReader(r.Body, maxRestore))
	}
	var taken int64
	if err == nil {
		taken, err = f.takeIn(r.Context(), back)
	}
	if err != nil {
		f.cfg.Log.Error("what a gateway gave back was refused", "gateway", p.name, "error", err.Error())
		f.audit(r.Context(), "restore refused", slog.String("reason", "not_verified"), slog.String("gateway", p.name), slog.String("detail", err.Error()))
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.cfg.Log.Info("took in what was missing", "gateway", p.name, "leaves", taken, "checkpoint", back.head.N)
	f.audit(r.Context(), "restored from gateway", slog.String("gateway", p.name), slog.Int64("leaves", taken), slog.Int64("checkpoint", back.head.N))
	w.WriteHeader(http.StatusNoContent)
}

// readReturned reads manifest, checkpoint, leaves and bulletin, in that order.
func (f *Feed) readReturned(r io.Reader) (*returned, error) {
	back := new(returned)
	back.manifest, _ = f.manifest()
	step := 0
	for {
		e, err := stream.Read(r)
		if errors.Is(err, io.EOF) {
			return back, nil
		}
		if err != nil {
			return nil, err
		}
		place := map[stream.Kind]int{stream.KindManifest: 1, stream.KindCheckpoint: 2, stream.KindItem: 3, stream.KindBulletin: 4}[e.Kind]
		if place == 0 || place < step || place == step && e.Kind != stream.KindItem {
			return nil, fmt.Errorf("%w: a %v where it does not belong", stream.ErrMalformed, e.Kind)
		}
		step = place
		if err := f.readReturn(back, e); err != nil {
			return nil, err
		}
	}
}

func (f *Feed) readReturn(back *returned, e stream.Event) error {
	switch e.Kind {
	case stream.KindItem:
		i, err := e.Item()
		if err != nil {
			return err
		}
		entry, err := ledger.ParseEntry(i.Entry)
		if err != nil {
			return err
		}
		back.items = append(back.items, ledger.Item{Index: i.Index, Entry: entry, Payload: i.Payload})
		return nil
	case stream.KindBulletin:
		back.bulletin = e.Body
		return nil
	}
	c := &claim{manifest: back.manifest}
	if err := f.proof(c, e); err != nil {
		return err
	}
	back.manifest = c.manifest
	if e.Kind == stream.KindCheckpoint {
		back.note, back.head = c.note, c.head
	}
	return nil
}

// takeIn appends the leaves that are missing, after the rules of the record, and
// keeps checkpoint and bulletin. Leaves up to the checkpoint are all taken, or
// nothing is; of those after it, which the authority had told the gateway and
// not yet signed, as many as hold.
func (f *Feed) takeIn(ctx context.Context, back *returned) (taken int64, err error) {
	err = f.cfg.Book.Recover(ctx, func(tx *authority.Tx, s *record.State, take func(ledger.Item) error) error {
		before := s.Size()
		if back.head.N <= before && back.head.N > 0 {
			if ours, err := tx.LedgerHeadAt(back.head.N); err != nil || ours != back.head {
				return errors.Join(err, errFork)
			}
		}
		for _, i := range back.items {
			if i.Index < s.Size() {
				continue
			}
			err := take(i)
			if err != nil && record.ReasonOf(err) != "" && i.Index >= back.head.N {
				f.cfg.Log.Warn("a leaf that a gateway gave back, and no checkpoint covers, does not hold", "leaf", i.Index, "error", err.Error())
				break
			}
			if err != nil {
				return err
			}
			if s.Size() == back.head.N && s.Head() != back.head {
				return fmt.Errorf("feed: the leaves are not those of the checkpoint of %d", back.head.N)
			}
		}
		if s.Size() < back.head.N {
			return fmt.Errorf("feed: %d leaves of the %d that the checkpoint covers", s.Size(), back.head.N)
		}
		taken = s.Size() - before
		return f.keep(tx, s, back)
	})
	return taken, err
}

// keep stores the documents that came with the leaves.
func (f *Feed) keep(tx *authority.Tx, s *record.State, back *returned) error {
	if back.note != nil {
		newest, err := tx.LatestCheckpoint()
		if err != nil && !errors.Is(err, authority.ErrNotFound) {
			return err
		}
		if newest.Size < back.head.N {
			if err := tx.AddCheckpoint(authority.Checkpoint{Size: back.head.N, Note: back.note}); err != nil {
				return err
			}
		}
	}
	if back.bulletin == nil {
		return nil
	}
	m, _ := s.Manifest()
	if m == nil || back.manifest != nil && back.manifest.Number > m.Number {
		m = back.manifest
	}
	b, err := bulletin.Verify(back.bulletin, m)
	if err != nil {
		return err
	}
	newest, err := tx.LatestBulletin()
	if err != nil && !errors.Is(err, authority.ErrNotFound) {
		return err
	}
	if newest.Number >= b.Number {
		return nil
	}
	return tx.AddBulletin(authority.SignedBulletin{Number: b.Number, JWS: back.bulletin})
}
