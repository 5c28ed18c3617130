// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
	"valise/internal/store/relay/journal"
)

// errClosed is returned by what waits while the store is closed.
var errClosed = errors.New("relay store: closed")

// look runs f on a device's box, if it is in memory.
func (j *Journaled) look(d mailbox.Device, f func(*box)) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := j.boxes[d]
	if b != nil {
		f(b)
	}
	return b != nil
}

// Last implements mailbox.Store.
func (j *Journaled) Last(ctx context.Context, device mailbox.Device) (last uint64, err error) {
	if j.look(device, func(b *box) { last = b.cur.last }) {
		return last, nil
	}
	return j.db.Last(ctx, device)
}

// Recall implements mailbox.Store.
func (j *Journaled) Recall(ctx context.Context, device mailbox.Device, counter uint64) (hash [32]byte, err error) {
	known := false
	id := int64(0)
	found := j.look(device, func(b *box) {
		id = b.id
		hash, known, err = b.recall(b.cur.counter, counter, nil)
	})
	switch {
	case known:
		return hash, err
	case found:
		return j.storedHash(ctx, id, counter)
	}
	err = j.db.db.View(ctx, func(tx *store.Tx) error {
		st, err := scanState(tx.QueryRowContext(ctx, stateQuery, device[:]))
		if err == nil && (st == nil || counter == 0 || counter > st.counter || counter+mailbox.KeptHashes <= st.counter) {
			err = mailbox.ErrNotFound
		}
		if err == nil {
			hash, err = storedHash(ctx, tx, st.id, counter)
		}
		return err
	})
	return hash, err
}

// Read implements mailbox.Store.
func (j *Journaled) Read(ctx context.Context, device mailbox.Device, after uint64, count, bytes int) ([]mailbox.Entry, error) {
	return j.ReadInto(ctx, device, after, count, bytes, nil)
}

// ReadInto is Read that puts payloads into the free part of into while they fit.
func (j *Journaled) ReadInto(ctx context.Context, device mailbox.Device, after uint64, count, bytes int, into []byte) ([]mailbox.Entry, error) {
	return j.find(ctx, device, 0, after, count, bytes, into)
}

// Urgent implements mailbox.Store.
func (j *Journaled) Urgent(ctx context.Context, device mailbox.Device, precedence uint8, after uint64, count, bytes int) ([]mailbox.Entry, error) {
	return j.find(ctx, device, max(precedence, 1), after, count, bytes, nil)
}

// find reads all mail, or that of one precedence if it is not 0.
func (j *Journaled) find(ctx context.Context, device mailbox.Device, precedence uint8, after uint64, count, bytes int, into []byte) ([]mailbox.Entry, error) {
	for {
		entries, err := j.read(ctx, device, precedence, after, count, bytes, into)
		if errors.Is(err, journal.ErrReleased) {
			continue // it has been moved to the database meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("relay store: read a mailbox: %w", err)
		}
		return entries, nil
	}
}

// read takes what the database has and then what is in the journal: the numbers
// there are the higher ones.
func (j *Journaled) read(ctx context.Context, device mailbox.Device, precedence uint8, after uint64, count, bytes int, into []byte) (entries []mailbox.Entry, err error) {
	var waiting []pointer
	var first uint64
	stored, held, waits := false, false, false
	found := j.look(device, func(b *box) {
		held, waits = b.cur.hold != mailbox.Free, b.waiting > 0
		after = max(after, b.cur.acked)
		first = b.first()
		stored = b.cur.held > int64(len(b.index)) && after+1 < first
		if precedence == 0 {
			waiting = b.waitingAfter(after, count, bytes)
		} else {
			waiting = b.urgentAfter(precedence, after, count, bytes)
		}
	})
	if held {
		return nil, nil
	}
	stored = stored || !found
	if !found {
		first = math.MaxInt64
	}
	if stored && waits { // the end of a quarantine, it may be
		if err := j.settle(ctx); err != nil {
			return nil, err
		}
	}
	if stored {
		var more bool
		if precedence == 0 {
			entries, more, err = j.db.readUpTo(ctx, device, after, first-1, count, bytes)
		} else {
			entries, more, err = j.db.urgentUpTo(ctx, device, precedence, after, first-1, count, bytes)
		}
		if err != nil || more {
			return entries, err
		}
	}
	total := 0
	for i := range entries {
		total += len(entries[i].Payload)
	}
	for _, p := range waiting {
		l := p.letter
		if total += l.size; len(entries) > 0 && (total > bytes || len(entries) >= count) {
			break
		}
		e := mailbox.Entry{Number: p.number, Kind: l.kind, Group: l.group.name, Epoch: l.epoch, Sender: l.sender, Time: l.time}
		if e.Payload = into[len(into):]; cap(e.Payload) < l.size {
			e.Payload = make([]byte, l.size)
		} else {
			into = into[:len(into)+l.size]
		}
		e.Payload = e.Payload[:l.size:l.size]
		if err := j.log.ReadAt(e.Payload, l.place); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// waitingAfter copies the pointers after a number, at most so many and, beyond the
// first, with at most so many bytes of payload; mu is held.
func (b *box) waitingAfter(after uint64, count, bytes int) (list []pointer) {
	from := 0
	if len(b.index) > 0 && after >= b.index[0].number {
		from = int(min(after-b.index[0].number+1, uint64(len(b.index)))) // numbers rise by one
	}
	return upToBytes(b.index[from:], count, bytes)
}

// upToBytes copies pointers, at most so many and, beyond the first, with at most so many
// bytes of payload.
func upToBytes(index []pointer, count, bytes int) (list []pointer) {
	total := 0
	for _, p := range index {
		if total += p.letter.size; len(list) >= count || len(list) > 0 && total > bytes {
			break
		}
		list = append(list, p)
	}
	return list
}

// Known implements mailbox.Store.
func (j *Journaled) Known(ctx context.Context, devices []mailbox.Device) (map[mailbox.Device]bool, error) {
	known := make(map[mailbox.Device]bool, len(devices))
	var rest []mailbox.Device
	for _, d := range devices {
		if known[d] = j.look(d, func(*box) {}); !known[d] {
			rest = append(rest, d)
		}
	}
	j.mu.Lock()
	failed := j.failed
	j.mu.Unlock()
	if failed != nil {
		return nil, failed
	}
	stored, err := j.db.Known(ctx, rest)
	for d, there := range stored {
		known[d] = there
	}
	return known, err
}

// Totals implements mailbox.Store.
func (j *Journaled) Totals(ctx context.Context) (mailbox.Totals, error) {
	j.mu.Lock()
	j.sweeps++
	swept, upTo := j.sweeps, j.queued
	j.mu.Unlock()
	if err := j.wait(ctx, func() bool { return j.swept >= swept && j.settled >= upTo }); err != nil {
		return mailbox.Totals{}, err
	}
	t, err := j.db.Totals(ctx)
	j.mu.Lock()
	defer j.mu.Unlock()
	t.Messages += int64(j.living)
	t.Pointers += int64(j.pending)
	return t, err
}

// The following look into the database, which first takes over what is queued for
// that part of it.

// Group implements mailbox.Store.
func (j *Journaled) Group(ctx context.Context, id []byte) (*mailbox.Group, error) {
	if err := j.settle(ctx); err != nil {
		return nil, err
	}
	return j.db.Group(ctx, id)
}

// GroupsOf implements mailbox.Store.
func (j *Journaled) GroupsOf(ctx context.Context, device mailbox.Device, after int64, limit int) ([][]byte, int64, error) {
	if err := j.settle(ctx); err != nil {
		return nil, 0, err
	}
	return j.db.GroupsOf(ctx, device, after, limit)
}

// Unlisted implements mailbox.Store.
func (j *Journaled) Unlisted(ctx context.Context, after int64, limit int) ([][]byte, int64, error) {
	if err := j.settle(ctx); err != nil {
		return nil, 0, err
	}
	return j.db.Unlisted(ctx, after, limit)
}

// List implements mailbox.Store. Steps that the journal has and the database has not come
// behind it there, each with what it changes.
func (j *Journaled) List(ctx context.Context, group []byte, epoch uint64, members []mailbox.Device) error {
	if err := j.settle(ctx); err != nil {
		return err
	}
	return j.db.List(ctx, group, epoch, members)
}

// TakeKeyPackages implements mailbox.Store.
func (j *Journaled) TakeKeyPackages(ctx context.Context, suite uint16, devices []mailbox.Device, now time.Time) (taken []mailbox.KeyPackage, left map[mailbox.Device]int, err error) {
	if err := j.settle(ctx); err != nil {
		return nil, nil, err
	}
	return j.db.TakeKeyPackages(ctx, suite, devices, now)
}

// Devices implements mailbox.Store.
func (j *Journaled) Devices(ctx context.Context, address string) ([]mailbox.Device, error) {
	if err := j.settle(ctx); err != nil {
		return nil, err
	}
	return j.db.Devices(ctx, address)
}

// Arrived implements mailbox.Store.
func (j *Journaled) Arrived(ctx context.Context, address string) ([]mailbox.Device, error) {
	if err := j.settle(ctx); err != nil {
		return nil, err
	}
	return j.db.Arrived(ctx, address)
}

// Directory implements mailbox.Store.
func (j *Journaled) Directory(ctx context.Context, prefix string, limit int) ([]mailbox.Listing, error) {
	if err := j.settle(ctx); err != nil {
		return nil, err
	}
	return j.db.Directory(ctx, prefix, limit)
}

// Holds implements mailbox.Store.
func (j *Journaled) Holds(ctx context.Context) (map[mailbox.Device]mailbox.Hold, error) {
	if err := j.settle(ctx); err != nil {
		return nil, err
	}
	return j.db.Holds(ctx)
}

// Purge implements mailbox.Store.
func (j *Journaled) Purge(ctx context.Context, device mailbox.Device) error {
	return j.whole(ctx, func() error { return j.db.Purge(ctx, device) })
}

// Expire implements mailbox.Store. What is young needs nothing.
func (j *Journaled) Expire(ctx context.Context, before time.Time, limit int) (losses []mailbox.Loss, err error) {
	old := false
	j.mu.Lock()
	for _, l := range j.fifo {
		old = old || l.live > 0 && l.kind == mailbox.Content && l.time < before.UnixMilli()
	}
	j.mu.Unlock()
	if !old {
		spans, err := j.db.due(ctx, before.UnixMilli(), 1)
		if err != nil || len(spans) == 0 {
			return nil, err
		}
	}
	err = j.whole(ctx, func() error {
		losses, err = j.db.Expire(ctx, before, limit)
		return err
	})
	return losses, err
}
