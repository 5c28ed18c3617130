// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"valise/gateway/mailbox"
)

// locked locks one device that has arrived.
func (b *sharedBatch) locked(device mailbox.Device) (*state, error) {
	if err := b.lockDevices(slices.Values([]mailbox.Device{device})); err != nil {
		return nil, err
	}
	if st := b.states[device]; st != nil {
		return st, nil
	}
	return nil, mailbox.ErrNotFound
}

// Quarantine implements mailbox.Store.
func (s *Shared) Quarantine(ctx context.Context, device mailbox.Device, on bool) error {
	err := s.change(ctx, func(b *sharedBatch) error {
		st, err := b.locked(device)
		if err != nil || st.hold == mailbox.Purged {
			return err
		}
		hold := mailbox.Free
		if on {
			hold = mailbox.Quarantined
		}
		if err := b.mayHold(st, hold); err != nil {
			return err
		}
		st.hold = hold
		b.changed(st)
		return nil
	})
	if err != nil {
		return fmt.Errorf("relay store: quarantine: %w", err)
	}
	return nil
}

// Purge implements mailbox.Store.
func (s *Shared) Purge(ctx context.Context, device mailbox.Device) error {
	for done := false; !done; {
		err := s.change(ctx, func(b *sharedBatch) (err error) {
			done, err = b.purge(device)
			return err
		})
		if err != nil {
			return fmt.Errorf("relay store: purge: %w", err)
		}
	}
	return nil
}

// purge deletes a portion; with the last one it says so for ever.
func (b *sharedBatch) purge(device mailbox.Device) (done bool, err error) {
	st, err := b.locked(device)
	if err != nil {
		return false, err
	}
	if err := b.mayHold(st, mailbox.Purged); err != nil {
		return false, err
	}
	st.hold = max(st.hold, mailbox.Quarantined)
	b.changed(st)
	upTo, err := b.number(`SELECT coalesce(max(number), 0) FROM (SELECT number FROM mailbox WHERE device = $1 ORDER BY number LIMIT $2) AS portion`, st.id, purgePortion)
	if err != nil {
		return false, err
	}
	if err := b.acknowledge([]mailbox.Ack{{Device: device, Number: uint64(upTo)}}); err != nil || st.held > 0 {
		return false, err
	}
	b.flow.Later(`DELETE FROM key_packages WHERE device = $1`, st.id)
	b.flow.Later(`UPDATE blobs SET expires = 0 WHERE owner = $1 AND NOT complete`, st.id)
	st.hold = mailbox.Purged
	return true, nil
}

// Expire implements mailbox.Store.
func (s *Shared) Expire(ctx context.Context, before time.Time, limit int) (losses []mailbox.Loss, err error) {
	if s.node != nil { // all of them would look through all mailboxes, and wait for each other
		done, err := s.turn(ctx, "expire")
		if errors.Is(err, mailbox.ErrOthersTurn) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		defer done()
	}
	spans, err := s.due(ctx, before.UnixMilli(), limit)
	if err == nil && len(spans) > 0 {
		err = s.change(ctx, func(b *sharedBatch) error {
			if err := b.lockSpans(spans, before.UnixMilli()); err != nil {
				return err
			}
			losses, err = expire(b, spans, before.UnixMilli(), ofAge)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("relay store: expire: %w", err)
	}
	return losses, nil
}

// lockSpans locks the mailboxes of spans and of those who sent what is in them. Who
// that is never changes; what is left in them is read again under the locks.
func (b *sharedBatch) lockSpans(spans []dueSpan, before int64) error {
	devices := make(map[mailbox.Device]bool)
	groups := make(map[string]bool)
	for _, span := range spans {
		devices[span.device] = true
		all, err := b.agedOf(&state{id: span.id}, span, before)
		if err != nil {
			return err
		}
		for _, a := range all {
			devices[a.sender], groups[string(a.groupID)] = true, false
		}
	}
	if err := b.lockDevices(maps.Keys(devices)); err != nil {
		return err
	}
	return b.lockGroups(groups)
}

// agedOf implements mailer.
func (b *sharedBatch) agedOf(st *state, span dueSpan, before int64) (all []aged, err error) {
	rows, err := b.flow.Query(selectAged, st.id, int64(span.first), int64(span.last), int64(mailbox.Content), before)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	return collectAged(rows)
}

// expiredAt implements mailer. What this transaction has put there itself is not
// written yet.
func (b *sharedBatch) expiredAt(st *state, kind mailbox.Kind, first aged) (mailbox.Span, *aged, error) {
	rows, err := b.flow.Query(selectExpired, st.id, int64(first.number-1), int64(kind), first.group, first.sender[:])
	if err != nil {
		return mailbox.Span{}, nil, err
	}
	defer rows.Close()
	if !rows.Next() {
		return mailbox.Span{}, nil, rows.Err()
	}
	return scanExpired(rows, first)
}

// dropPointers implements mailer.
func (b *sharedBatch) dropPointers(st *state, run []aged) error {
	all := make([]numbers, len(run))
	for i, a := range run {
		all[i] = numbers{st, a.number - 1, a.number}
	}
	return b.drop(all)
}

// putNotice implements mailer.
func (b *sharedBatch) putNotice(st *state, number uint64, n notice) error {
	about, err := addressed(b, n.about)
	if err != nil {
		return err
	}
	b.put(st, number, &body{n.kind, n.group, n.epoch, about.id, n.time, 0, n.payload, nil})
	return nil
}
