// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/mod/sumdb/note"

	"valise/bulletin"
	"valise/ledger"
	"valise/manifest"
	"valise/statement"
)

// forked notes a contradiction, for ever: it does not go away by itself, and neither
// does the document that shows it.
func (f *Feed) forked(ctx context.Context, evidence []byte, what string, args ...any) error {
	err := fmt.Errorf("%w: %s", ErrFork, fmt.Sprintf(what, args...))
	f.cfg.Log.Error("the authority's record contradicts this gateway's copy", "error", err.Error())
	if f.fork == nil {
		f.fork = err
		f.event(ctx, "record forked", "record_contradicts", slog.String("detail", err.Error()))
		if kept := keepEvidence(f.cfg.Path, err, evidence); kept != nil {
			f.cfg.Log.Error("the contradiction is not on disk", "error", kept.Error())
		}
	}
	return err
}

func refuse(what string, err error) error { return fmt.Errorf("%w: %s: %w", ErrRefused, what, err) }

// takeManifest verifies a manifest under the pinned root and keeps it if it is
// newer. One that is older, or the same, changes nothing.
func (f *Feed) takeManifest(ctx context.Context, raw []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := manifest.ParseManifest(raw, f.cfg.Root)
	if err != nil {
		return refuse("manifest", err)
	}
	if m.Domain != f.cfg.Domain {
		return refuse("manifest", fmt.Errorf("it is for %s", m.Domain))
	}
	if f.manifest != nil && m.Number == f.manifest.Number && m.Digest() != f.manifest.Digest() {
		return f.forked(ctx, raw, "two manifests of number %d", m.Number)
	}
	if f.manifest != nil && m.Number <= f.manifest.Number {
		return nil
	}
	if err := m.Follows(f.manifest); err != nil {
		return f.forked(ctx, raw, "%v", err)
	}
	if err := f.copy.put(ctx, putManifest, int64(m.Number), raw); err != nil {
		return err
	}
	f.manifest = m
	f.put(f.Set().WithManifest(m))
	f.cfg.Log.Info("manifest", "number", m.Number)
	return nil
}

// openCheckpoint verifies a checkpoint by the keys that count at a time; at the
// zero time, by all that the manifest names.
func openCheckpoint(text []byte, m *manifest.Manifest, at time.Time) (ledger.Head, error) {
	if m == nil {
		return ledger.Head{}, refuse("checkpoint", errors.New("there is no manifest yet"))
	}
	var verifiers []note.Verifier
	for _, key := range m.LedgerKeys(at) {
		v, err := ledger.Verifier(m.Origin, key)
		if err != nil {
			return ledger.Head{}, err
		}
		verifiers = append(verifiers, v)
	}
	head, err := ledger.OpenCheckpoint(text, verifiers...)
	if err != nil {
		return head, refuse("checkpoint", err)
	}
	return head, nil
}

// takeCheckpoint verifies a checkpoint and that it is of the leaves held.
func (f *Feed) takeCheckpoint(ctx context.Context, text []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	head, err := openCheckpoint(text, f.manifest, f.cfg.Now())
	if err != nil {
		return err
	}
	size, signed, err := f.copy.sizes(ctx)
	if err != nil {
		return err
	}
	if head.N > size {
		return refuse("checkpoint", fmt.Errorf("of %d leaves, and we were told %d", head.N, size))
	}
	ours, err := f.copy.head(ctx, head.N)
	if err != nil {
		return err
	}
	if ours != head {
		return f.forked(ctx, text, "a checkpoint of %d leaves is not of those that we were told", head.N)
	}
	if head.N <= signed {
		return nil
	}
	return f.copy.put(ctx, putCheckpoint, head.N, text)
}

// takeBulletin verifies a bulletin and puts it in force.
func (f *Feed) takeBulletin(ctx context.Context, raw []byte) error {
	ctx = context.WithoutCancel(ctx) // what is in force is on disk, also when we are stopping
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := bulletin.Verify(raw, f.manifest)
	if err != nil {
		return refuse("bulletin", err)
	}
	if err := f.sameRecord(ctx, b, raw); err != nil {
		return err
	}
	next, err := f.Set().WithBulletin(b)
	switch {
	case errors.Is(err, bulletin.ErrOld) && b.Number == f.Set().Number():
		return f.copy.putBulletin(ctx, b, raw) // the disk may have failed when it came first
	case errors.Is(err, bulletin.ErrOld):
		return nil
	case errors.Is(err, bulletin.ErrFork):
		return f.forked(ctx, raw, "bulletin %d contradicts bulletin %d", b.Number, f.Set().Number())
	case err != nil:
		return err
	}
	// In force first: what it takes away must not wait for a disk.
	f.put(next)
	return errors.Join(f.copy.putBulletin(ctx, b, raw), f.makeUp(ctx, b))
}

// makeUp obeys what found no room before there was this bulletin.
func (f *Feed) makeUp(ctx context.Context, b *bulletin.Bulletin) error {
	if !f.missed {
		return nil
	}
	f.missed = false
	set := f.Set()
	err := f.copy.eachStatement(ctx, b.LedgerSize, func(i ledger.Item) {
		set = f.obey(ctx, set, i.Payload, i.Index, i.Entry.Time)
	})
	f.missed = f.missed || err != nil
	f.put(set)
	return err
}

// sameRecord compares the record that a bulletin was made from with the copy, as
// far as that goes.
func (f *Feed) sameRecord(ctx context.Context, b *bulletin.Bulletin, raw []byte) error {
	size, _, err := f.copy.sizes(ctx)
	if err != nil || b.LedgerSize > size {
		return err
	}
	head, err := f.copy.head(ctx, b.LedgerSize)
	if err != nil {
		return err
	}
	if head.Hash != b.LedgerRoot {
		return f.forked(ctx, raw, "bulletin %d was made from another record of %d leaves", b.Number, b.LedgerSize)
	}
	return nil
}

// put puts standings in force.
func (f *Feed) put(set *bulletin.Set) {
	f.set.Store(set)
	f.apply(set)
}

// takeStatement obeys a statement that came by hand, or that the record cannot
// hold at present, and keeps it.
func (f *Feed) takeStatement(ctx context.Context, raw []byte) error {
	ctx = context.WithoutCancel(ctx) // what is in force is on disk, also when we are stopping
	f.mu.Lock()
	defer f.mu.Unlock()
	leaf, err := f.copy.leafOf(ctx, raw)
	if err != nil {
		return err
	}
	now := f.cfg.Now()
	next, holds, err := f.weigh(f.Set(), raw, leaf, now)
	if err != nil {
		return refuse("statement", err)
	}
	if !holds {
		return nil
	}
	if next != f.Set() {
		f.put(next)
		f.event(ctx, "statement obeyed", "", slog.Int64("leaf", leaf))
	}
	// Also when it was obeyed before: the disk may have failed then.
	return f.copy.keepStatement(ctx, seen{raw, now})
}

// obeyLeaf obeys a statement that arrived as a leaf, before it is on disk.
func (f *Feed) obeyLeaf(ctx context.Context, i ledger.Item) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if next := f.obey(ctx, f.Set(), i.Payload, i.Index, i.Entry.Time); next != f.Set() {
		f.put(next)
		f.event(ctx, "statement obeyed", "", slog.Int64("leaf", i.Index))
	}
}

// takeLeaves puts leaves on disk. What is held already is compared; leaves
// without a checkpoint that the authority lost give way to those that it has.
func (f *Feed) takeLeaves(ctx context.Context, items []ledger.Item) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	size, signed, err := f.copy.sizes(ctx)
	if err != nil {
		return err
	}
	gaveWay := false
	for len(items) > 0 && items[0].Index < size {
		ours, err := f.copy.leaf(ctx, items[0].Index)
		if err != nil {
			return err
		}
		if !bytes.Equal(ours, items[0].Entry.Marshal()) {
			if err := f.giveWay(ctx, signed, items[0]); err != nil {
				return err
			}
			size, gaveWay = items[0].Index, true
			break
		}
		items = items[1:]
	}
	if len(items) == 0 {
		return nil
	}
	if items[0].Index != size {
		return refuse("leaf", fmt.Errorf("leaf %d comes where leaf %d is due", items[0].Index, size))
	}
	if err := f.copy.append(ctx, items); err != nil {
		return err
	}
	if gaveWay { // what was kept of the others may stand here again, and now has its leaf
		f.recorded(ctx, items)
	}
	last := items[len(items)-1].Index + 1
	if b := f.Set().Bulletin(); b != nil && size < b.LedgerSize && b.LedgerSize <= last {
		return f.sameRecord(ctx, b, nil) // both are in the copy
	}
	return nil
}

// recorded takes note of where statements stand that were in force already.
func (f *Feed) recorded(ctx context.Context, items []ledger.Item) {
	set := f.Set()
	for _, i := range items {
		if i.Entry.Kind == ledger.KindStatement {
			set = f.obey(ctx, set, i.Payload, i.Index, i.Entry.Time)
		}
	}
	f.put(set)
}

// giveWay drops leaves from an index on that nothing signed covers. Statements
// in them stay in force: they were signed by officers, wherever they stand.
func (f *Feed) giveWay(ctx context.Context, signed int64, other ledger.Item) error {
	from := other.Index
	if b := f.Set().Bulletin(); from < signed || b != nil && from < b.LedgerSize {
		return f.forked(ctx, other.Payload, "leaf %d is another one", from)
	}
	var keep []seen
	err := f.copy.eachStatement(ctx, from, func(i ledger.Item) {
		st, err := statement.Parse(i.Payload)
		if err != nil || !bulletin.Concerns(st.Body) {
			return
		}
		if _, holds, _ := f.weigh(f.Set(), i.Payload, i.Index, i.Entry.Time); holds {
			keep = append(keep, seen{i.Payload, i.Entry.Time})
		}
	})
	if err != nil {
		return err
	}
	f.cfg.Log.Warn("leaves without a checkpoint give way to others", "from", from, "statements_kept", len(keep))
	if err := f.copy.truncate(ctx, from, keep); err != nil {
		return err
	}
	now, err := f.copy.held(ctx)
	if err != nil {
		return err
	}
	set, err := f.rebuild(ctx, now)
	if err != nil {
		return err
	}
	f.put(set)
	return nil
}
