// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// errTurn ends a transaction with something of a connection that is over.
var errTurn = errors.New("a device has arrived once more since at another gateway")

// demandTurns has the transaction fail if a device has arrived once more since the connection
// that something came over. The rows of the devices are locked by now, as Arrive locks them:
// what is committed here was there before the device's newest Welcome.
func (b *sharedBatch) demandTurns(submissions []*mailbox.Submission, acks []mailbox.Ack) {
	if b.s.node == nil {
		return
	}
	var devices [][]byte
	var turns []int64
	for _, seat := range seatsOf(submissions, acks) {
		devices, turns = append(devices, seat.Device[:]), append(turns, int64(seat.Turn))
	}
	if len(devices) > 0 { // division by zero is how a statement fails by itself
		b.flow.Later(`SELECT 1 / CAST(count(*) = 0 AS INTEGER) FROM unnest($1::bytea[], $2::bigint[]) AS q(device, turn)
			JOIN devices d ON d.device = q.device WHERE d.turn > q.turn`, devices, turns)
	}
}

// seatsOf lists the connections that something came over: one for each device and turn.
func seatsOf(submissions []*mailbox.Submission, acks []mailbox.Ack) (seats []mailbox.Seat) {
	met := make(map[mailbox.Seat]bool)
	add := func(seat mailbox.Seat) {
		if seat.Turn > 0 && !met[seat] {
			met[seat], seats = true, append(seats, seat)
		}
	}
	for _, sub := range submissions {
		if sub != nil {
			add(mailbox.Seat{Device: sub.Device, Turn: sub.Turn})
		}
	}
	for _, a := range acks {
		add(mailbox.Seat{Device: a.Device, Turn: a.Turn})
	}
	return seats
}

// withoutMoved takes out what came over connections that are over.
func (s *Shared) withoutMoved(ctx context.Context, submissions []*mailbox.Submission, acks []mailbox.Ack) ([]*mailbox.Submission, []mailbox.Ack, error) {
	seats := seatsOf(submissions, acks)
	devices := make([]mailbox.Device, len(seats))
	for i := range seats {
		devices[i] = seats[i].Device
	}
	turns, err := s.byDevice(ctx, `SELECT device, turn FROM devices WHERE device = ANY($1)`, devices)
	if err != nil {
		return nil, nil, err
	}
	left := make([]*mailbox.Submission, len(submissions))
	for i, sub := range submissions {
		if sub != nil && (sub.Turn == 0 || turns[sub.Device] <= sub.Turn) {
			left[i] = sub
		}
	}
	var kept []mailbox.Ack
	for _, a := range acks {
		if a.Turn == 0 || turns[a.Device] <= a.Turn {
			kept = append(kept, a)
		}
	}
	return left, kept, nil
}

// Epochs implements mailbox.Node.
func (s *Node) Epochs(ctx context.Context, groups [][]byte) (epochs map[string]uint64, err error) {
	err = s.db.Look(ctx, func(rows store.Rows) error {
		epochs = make(map[string]uint64, len(groups))
		for rows.Next() {
			var id []byte
			var epoch int64
			if err := rows.Scan(&id, &epoch); err != nil {
				return err
			}
			if epoch < 0 {
				return errors.New("a group's row is damaged")
			}
			epochs[string(id)] = uint64(epoch)
		}
		return rows.Err()
	}, `SELECT group_id, epoch FROM groups WHERE group_id = ANY($1)`, groups)
	if err != nil {
		return nil, fmt.Errorf("relay store: %w", err)
	}
	return epochs, nil
}
