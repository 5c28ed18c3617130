// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"math"

	"valise/gateway/mailbox"
)

// Govern implements mailbox.Node.
func (s *Node) Govern(ctx context.Context, law uint64) error {
	if law > math.MaxInt64 {
		return fmt.Errorf("relay store: %d is no number of a bulletin", law)
	}
	s.node.law.Store(int64(law))
	err := s.change(ctx, func(b *sharedBatch) error {
		highest, err := b.number(`SELECT number FROM law WHERE one = 1 FOR UPDATE`)
		if err == nil && highest < int64(law) {
			b.flow.Change(`UPDATE law SET number = $1 WHERE one = 1`, int64(law))
		}
		if err == nil && highest > int64(law) {
			err = mailbox.ErrOlderLaw
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("relay store: bulletin %d: %w", law, err)
	}
	return nil
}

// mayHold says whether this gateway may lay a hold on a device, or lift it, and notes by
// which bulletin it does. The device is locked.
func (b *sharedBatch) mayHold(st *state, hold mailbox.Hold) error {
	if b.s.node == nil {
		return nil
	}
	law := b.s.node.law.Load()
	if law < 0 {
		return nil
	}
	highest, err := b.number(`SELECT number FROM law WHERE one = 1 FOR SHARE`)
	if err != nil {
		return err
	}
	laid, err := b.number(`SELECT law FROM states WHERE device = $1`, st.id)
	if err != nil {
		return err
	}
	if highest > law || hold == mailbox.Free && st.hold != mailbox.Free && laid >= law {
		return mailbox.ErrOlderLaw
	}
	b.flow.Later(`UPDATE states SET law = $1 WHERE device = $2`, law, st.id)
	return nil
}

// Turn implements mailbox.Node. The lock is a line's: one that is lost gives the turn back.
func (s *Node) Turn(ctx context.Context, task string) (done func(), err error) {
	return s.turn(ctx, task)
}

func (s *Shared) turn(ctx context.Context, task string) (done func(), err error) {
	line, err := s.db.Line(ctx)
	if err != nil {
		return nil, fmt.Errorf("relay store: %w", err)
	}
	ours, err := line.Lock(ctx, turnLocks|int64(taskNumber(task)), false)
	if err == nil && !ours {
		err = mailbox.ErrOthersTurn
	}
	if err != nil {
		return nil, fmt.Errorf("relay store: %s: %w", task, errors.Join(err, line.Close()))
	}
	return func() { _ = line.Close() }, nil
}
