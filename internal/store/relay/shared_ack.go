// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"valise/gateway/mailbox"
)

// Apply implements mailbox.Store. One gateway takes in what another delivers: if a batch held
// the mailboxes that it acknowledges until it is on disk, each gateway's batches would wait for
// the others'. So acknowledgements go first, in a transaction of their own that waits for no
// disk (what is forgotten of them is delivered again, and discarded) and for nobody: a mailbox
// that another gateway has locked is passed over, and acknowledged by a later batch.
func (s *Node) Apply(ctx context.Context, submissions []*mailbox.Submission, acks []mailbox.Ack) ([]mailbox.Outcome, error) {
	overdue, err := s.acknowledge(ctx, acks)
	for errors.Is(err, errTurn) { // somebody has arrived elsewhere, which is rare: see Shared.Apply
		if _, acks, err = s.withoutMoved(ctx, nil, acks); err == nil {
			overdue, err = s.acknowledge(ctx, acks)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("relay store: acknowledge: %w", err)
	}
	if len(submissions)+len(overdue) == 0 {
		return nil, nil
	}
	return s.Shared.Apply(ctx, submissions, overdue)
}

// PutOff returns the acknowledgements that the last Apply has left for a later one.
func (s *Node) PutOff() []mailbox.Ack { return s.putOff }

// acknowledge takes out of mailboxes what devices have, where that has nobody wait, and
// returns what was put off so often that it must be done.
func (s *Node) acknowledge(ctx context.Context, acks []mailbox.Ack) (overdue []mailbox.Ack, err error) {
	s.putOff = s.putOff[:0]
	if len(acks) == 0 {
		return nil, nil
	}
	free, before := make([]mailbox.Ack, 0, len(acks)), make(map[mailbox.Device]int)
	for _, a := range acks {
		if before[a.Device] = s.passed[a.Device]; before[a.Device] >= maxPassed {
			overdue = append(overdue, a)
		} else {
			free = append(free, a)
		}
	}
	for _, a := range overdue {
		delete(s.passed, a.Device)
	}
	if len(free) == 0 {
		return overdue, nil
	}
	err = s.transact(ctx, true, func(b *sharedBatch) error {
		b.flow.Later(`SET LOCAL synchronous_commit = off`)
		all := make(map[mailbox.Device]bool, len(free))
		for _, a := range free {
			all[a.Device] = true
		}
		b.passOver = true
		if err := b.lockDevices(maps.Keys(all)); err != nil {
			return err
		}
		b.demandTurns(nil, free)
		s.putOff = s.putOff[:0]
		var done []mailbox.Ack
		for _, a := range free {
			if b.states[a.Device] == nil {
				s.putOff = append(s.putOff, a)
			} else {
				done = append(done, a)
			}
		}
		return b.note(done)
	})
	if err != nil {
		s.putOff = s.putOff[:0]
		return nil, err
	}
	for _, a := range free {
		delete(s.passed, a.Device)
	}
	for _, a := range s.putOff {
		s.passed[a.Device] = before[a.Device] + 1
	}
	return overdue, nil
}
