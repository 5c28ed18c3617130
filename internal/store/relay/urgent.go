// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"fmt"
	"math"
	"sort"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// Urgent content is found by rows of a small table (in memory: lists beside the index)
// that have nothing of what is not urgent. They go later than the mail does: each is
// looked at together with what its number stands for, and Tidy takes away what was
// acknowledged.

// isUrgent says whether a message of a submission has such rows.
func isUrgent(sub *mailbox.Submission, kind mailbox.Kind) bool {
	return sub.Precedence >= mailbox.Immediate && sub.Precedence <= mailbox.Flash && kind == mailbox.Content
}

// Urgent implements mailbox.Store.
func (s tables) Urgent(ctx context.Context, device mailbox.Device, precedence uint8, after uint64, count, bytes int) ([]mailbox.Entry, error) {
	entries, _, err := s.urgentUpTo(ctx, device, precedence, after, math.MaxInt64, count, bytes)
	return entries, err
}

// urgentUpTo is readUpTo for one precedence.
func (s tables) urgentUpTo(ctx context.Context, device mailbox.Device, precedence uint8, after, upTo uint64, count, bytes int) ([]mailbox.Entry, bool, error) {
	return s.some(ctx, count, bytes, `SELECT m.number, m.kind, g.group_id, m.epoch, d.device, m.time, m.payload
		FROM urgent u
		JOIN mail m ON m.device = u.device AND m.number = u.number
		JOIN groups g ON g.id = m.grp
		JOIN devices d ON d.id = m.sender
		WHERE u.device = (SELECT o.id FROM devices o JOIN states s ON s.device = o.id WHERE o.device = $1 AND s.hold = 0)
			AND u.precedence = $2 AND u.number > $3 AND u.number <= $4 AND m.kind = $5
		ORDER BY u.number LIMIT $6`, device[:], int64(precedence), int64(after), int64(upTo), int64(mailbox.Content), count)
}

// noteUrgent writes the rows of one message.
func (b *batch) noteUrgent(device int64, precedence uint8, number uint64) error {
	_, err := b.tx.ExecContext(b.ctx, `INSERT INTO urgent (device, precedence, number) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, device, int64(precedence), int64(number))
	return err
}

// urgentRows are those of a transaction on PostgreSQL.
type urgentRows struct{ device, precedence, number []int64 }

func (u *urgentRows) add(device int64, precedence uint8, number uint64) {
	u.device, u.precedence, u.number = append(u.device, device), append(u.precedence, int64(precedence)), append(u.number, int64(number))
}

func (u *urgentRows) flush(flow *store.Flow) {
	if len(u.device) > 0 {
		flow.Later(`INSERT INTO urgent (device, precedence, number) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) ON CONFLICT DO NOTHING`,
			u.device, u.precedence, u.number)
	}
}

const overUrgent = `FROM urgent WHERE number <= (SELECT s.acked FROM states s WHERE s.device = urgent.device)`

// tidyUrgent takes away rows of mail that was acknowledged. Where nothing is urgent it
// writes nothing.
func (s tables) tidyUrgent(ctx context.Context) error {
	var some bool
	err := s.db.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 `+overUrgent+`)`).Scan(&some)
	})
	if err == nil && some {
		err = s.db.Update(ctx, func(tx *store.Tx) error {
			_, err := tx.ExecContext(ctx, `DELETE `+overUrgent)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("relay store: tidy: %w", err)
	}
	return nil
}

// pressing is the urgent mail in a box's index, by precedence.
type pressing [mailbox.Flash - mailbox.Immediate + 1][]pointer

// press notes that an entry of the index is urgent, if it is.
func (b *box) press(p pointer) {
	if p.letter.urgent == 0 {
		return
	}
	if b.urgent == nil {
		b.urgent = new(pressing)
	}
	i := p.letter.urgent - mailbox.Immediate
	b.urgent[i] = append(b.urgent[i], p)
}

// unpress drops what is not in the index any more.
func (b *box) unpress() {
	if b.urgent == nil {
		return
	}
	first, left := b.first(), 0
	for i, list := range b.urgent {
		n := sort.Search(len(list), func(k int) bool { return list[k].number >= first })
		clear(list[:n])
		b.urgent[i] = list[n:]
		left += len(list) - n
	}
	if left == 0 {
		b.urgent = nil
	}
}

// urgentAfter is waitingAfter for one precedence.
func (b *box) urgentAfter(precedence uint8, after uint64, count, bytes int) []pointer {
	if b.urgent == nil || precedence < mailbox.Immediate || precedence > mailbox.Flash {
		return nil
	}
	list := b.urgent[precedence-mailbox.Immediate]
	return upToBytes(list[sort.Search(len(list), func(k int) bool { return list[k].number > after }):], count, bytes)
}
