// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"fmt"
	"math"
	"slices"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// ever is after every message: what is withheld may be of any age.
const ever = math.MaxInt64

// Withhold implements mailbox.Store.
func (s *Store) Withhold(ctx context.Context, device mailbox.Device, numbers []uint64) (losses []mailbox.Loss, err error) {
	spans, err := s.spansOf(ctx, device, numbers)
	if err == nil && len(spans) > 0 {
		err = s.change(ctx, func(b *batch) error {
			losses, err = expire(b, spans, ever, refused)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("relay store: withhold: %w", err)
	}
	return losses, nil
}

// Withhold implements mailbox.Store.
func (s *Shared) Withhold(ctx context.Context, device mailbox.Device, numbers []uint64) (losses []mailbox.Loss, err error) {
	spans, err := s.spansOf(ctx, device, numbers)
	if err == nil && len(spans) > 0 {
		err = s.change(ctx, func(b *sharedBatch) error {
			if err := b.lockSpans(spans, ever); err != nil {
				return err
			}
			losses, err = expire(b, spans, ever, refused)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("relay store: withhold: %w", err)
	}
	return losses, nil
}

// Withhold implements mailbox.Store.
func (j *Journaled) Withhold(ctx context.Context, device mailbox.Device, numbers []uint64) (losses []mailbox.Loss, err error) {
	err = j.whole(ctx, func() error {
		losses, err = j.db.Withhold(ctx, device, numbers)
		return err
	})
	return losses, err
}

// spansOf puts numbers of one mailbox into rows without gaps.
func (s tables) spansOf(ctx context.Context, device mailbox.Device, numbers []uint64) (spans []dueSpan, err error) {
	sorted := slices.Compact(slices.Sorted(slices.Values(numbers)))
	err = s.db.View(ctx, func(tx *store.Tx) error {
		spans = nil
		var id int64
		if err := tx.QueryRowContext(ctx, `SELECT id FROM devices WHERE device = $1`, device[:]).Scan(&id); err != nil {
			return err
		}
		for _, n := range sorted {
			if last := len(spans) - 1; last >= 0 && spans[last].last+1 == n {
				spans[last].last = n
				continue
			}
			spans = append(spans, dueSpan{id: id, device: device, first: n, last: n})
		}
		return nil
	})
	return spans, err
}
