// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// Apply implements mailbox.Store.
func (s *Store) Apply(ctx context.Context, submissions []*mailbox.Submission, acks []mailbox.Ack) ([]mailbox.Outcome, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	var outcomes []mailbox.Outcome
	var b *batch
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		b = s.newBatch(ctx, tx)
		outcomes = make([]mailbox.Outcome, len(submissions))
		for _, a := range acks {
			if err := b.acknowledge(a); err != nil {
				return err
			}
		}
		for i, sub := range submissions {
			var err error
			if outcomes[i], err = b.submit(sub); err != nil {
				return err
			}
		}
		return b.save()
	})
	if err != nil {
		s.cache.reset() // whether the last commit took place may be unknown
		return nil, fmt.Errorf("relay store: %w", err)
	}
	b.remember()
	return outcomes, nil
}

// submit checks everything first and then writes: a submission that is refused
// leaves no trace in the batch's transaction.
func (b *batch) submit(sub *mailbox.Submission) (mailbox.Outcome, error) {
	from, refusal, err := b.s.judge.decide(b, sub)
	if err != nil {
		return mailbox.Outcome{}, err
	}
	if refusal != nil {
		return *refusal, nil
	}
	return b.write(sub, from)
}

// recall implements ground.
func (b *batch) recall(from *state, counter uint64) ([32]byte, error) {
	return recall(b.ctx, b.tx, from.id, counter)
}

// stock implements ground.
func (b *batch) stock(of *state, suite uint16, now int64) (n int, err error) {
	err = b.tx.StmtContext(b.ctx, b.s.q.countPackages).QueryRowContext(b.ctx, of.id, int64(suite), now).Scan(&n)
	return n, err
}

// recall reads the hash of a submission that was done.
func recall(ctx context.Context, tx *store.Tx, device int64, counter uint64) (hash [32]byte, err error) {
	var stored []byte
	err = tx.QueryRowContext(ctx, `SELECT hash FROM submissions WHERE device = $1 AND slot = $2 AND counter = $3`,
		device, int64(counter%mailbox.KeptHashes), int64(counter)).Scan(&stored)
	if errors.Is(err, sql.ErrNoRows) {
		return hash, mailbox.ErrNotFound
	}
	copy(hash[:], stored)
	return hash, err
}

func (b *batch) write(sub *mailbox.Submission, from *state) (mailbox.Outcome, error) {
	from.counter = sub.Counter
	b.changed(from)
	_, err := b.tx.StmtContext(b.ctx, b.s.q.remember).ExecContext(b.ctx,
		from.id, int64(sub.Counter%mailbox.KeptHashes), int64(sub.Counter), sub.Hash[:])
	if err != nil {
		return mailbox.Outcome{}, err
	}
	if sub.Step != nil {
		if err := b.step(sub.Step); err != nil {
			return mailbox.Outcome{}, err
		}
	}
	outcome := mailbox.Outcome{Verdict: mailbox.Done}
	for i := range sub.Messages {
		if err := b.deliver(sub, i, from, &outcome); err != nil {
			return mailbox.Outcome{}, err
		}
	}
	return outcome, b.publish(sub, from)
}

func (b *batch) step(step *mailbox.Step) error {
	g, err := b.group(step.Group)
	if err != nil {
		return err
	}
	if step.Create {
		g = new(groupRow)
		err := b.tx.StmtContext(b.ctx, b.s.q.newGroup).QueryRowContext(b.ctx, step.Group, int64(step.To), step.Info).Scan(&g.id)
		if err != nil {
			return err
		}
		b.groups[string(step.Group)] = g
	} else {
		result, err := b.tx.StmtContext(b.ctx, b.s.q.stepGroup).ExecContext(b.ctx, int64(step.To), step.Info, g.id, int64(step.From))
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n != 1 {
			return fmt.Errorf("group epoch moved inside a transaction (%d rows, %w)", n, err)
		}
	}
	g.epoch = step.To
	if err := b.keepMembers(g.id, step); err != nil {
		return err
	}
	return b.keepRecords(g.id, step.Records)
}

// keepRecords changes a group's public state.
func (b *batch) keepRecords(group int64, records []mailbox.Record) (err error) {
	for _, r := range records {
		if r.Value == nil {
			_, err = b.tx.StmtContext(b.ctx, b.s.q.dropRecord).ExecContext(b.ctx, group, r.Key)
		} else {
			_, err = b.tx.StmtContext(b.ctx, b.s.q.putRecord).ExecContext(b.ctx, group, r.Key, r.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deliver stores a message once and points to it from each recipient's mailbox,
// under the next number of that mailbox's own.
func (b *batch) deliver(sub *mailbox.Submission, i int, from *state, outcome *mailbox.Outcome) error {
	m := &sub.Messages[i]
	to, err := keptFor(b, m.To)
	if err != nil || len(to) == 0 {
		return err
	}
	g, err := b.group(m.Group)
	if err != nil {
		return err
	}
	if g == nil {
		return fmt.Errorf("message for an unknown group: %w", mailbox.ErrNotFound)
	}
	var id int64
	err = b.tx.StmtContext(b.ctx, b.s.q.putMessage).QueryRowContext(b.ctx,
		int64(m.Kind), g.id, int64(m.Epoch), from.id, sub.Time.UnixMilli(), len(to), m.Payload, sub.Incarnation[:], int64(sub.Counter)).Scan(&id)
	if err != nil {
		return err
	}
	point := b.tx.StmtContext(b.ctx, b.s.q.putPointer)
	for _, d := range to {
		st := b.states[d]
		st.last++
		st.held++
		st.bytes += int64(len(m.Payload))
		b.changed(st)
		if _, err := point.ExecContext(b.ctx, st.id, int64(st.last), id); err != nil {
			return err
		}
		if isUrgent(sub, m.Kind) {
			if err := b.noteUrgent(st.id, sub.Precedence, st.last); err != nil {
				return err
			}
		}
		outcome.Placed = append(outcome.Placed, mailbox.Placed{Device: d, Number: st.last, Message: i})
	}
	return nil
}

func (b *batch) publish(sub *mailbox.Submission, owner *state) error {
	if len(sub.KeyPackages) == 0 {
		return nil
	}
	if _, err := b.tx.StmtContext(b.ctx, b.s.q.dropExpired).ExecContext(b.ctx, owner.id, sub.Time.Unix()); err != nil {
		return err
	}
	for _, kp := range sub.KeyPackages {
		if kp.LastResort {
			if _, err := b.tx.StmtContext(b.ctx, b.s.q.dropLastResort).ExecContext(b.ctx, owner.id, int64(kp.Suite)); err != nil {
				return err
			}
		}
		_, err := b.tx.StmtContext(b.ctx, b.s.q.putPackage).ExecContext(b.ctx,
			owner.id, int64(kp.Suite), kp.LastResort, kp.Expires, kp.Package)
		if err != nil {
			return err
		}
	}
	return nil
}

// acknowledge removes the mail that a device has, and messages that nobody
// waits for any more.
func (b *batch) acknowledge(a mailbox.Ack) error {
	st, err := b.state(a.Device)
	if err != nil || st == nil || a.Number <= st.acked || a.Number > st.last {
		return err
	}
	held, bytes, err := b.dropMail(st.id, a.Number)
	if err != nil {
		return err
	}
	st.held -= held
	st.bytes -= bytes
	st.acked = a.Number
	b.changed(st)
	return nil
}

// dropMail removes the pointers of a mailbox up to a number, and messages to which no
// other points, and says how many of how many bytes there were.
func (b *batch) dropMail(device int64, upTo uint64) (held, bytes int64, err error) {
	rows, err := b.tx.StmtContext(b.ctx, b.s.q.pointers).QueryContext(b.ctx, device, int64(upTo))
	if err != nil {
		return 0, 0, err
	}
	type pointed struct{ message, refs, size int64 }
	var all []pointed
	for rows.Next() {
		var p pointed
		if err := rows.Scan(&p.message, &p.refs, &p.size); err != nil {
			return 0, 0, errors.Join(err, rows.Close())
		}
		all = append(all, p)
	}
	if err := rows.Err(); err != nil {
		return 0, 0, err
	}
	if _, err := b.tx.StmtContext(b.ctx, b.s.q.dropPointers).ExecContext(b.ctx, device, int64(upTo)); err != nil {
		return 0, 0, err
	}
	for _, p := range all {
		stmt := b.s.q.unref
		if p.refs == 1 {
			stmt = b.s.q.dropLast
		}
		if _, err := b.tx.StmtContext(b.ctx, stmt).ExecContext(b.ctx, p.message); err != nil {
			return 0, 0, err
		}
		held, bytes = held+1, bytes+p.size
	}
	return held, bytes, nil
}
