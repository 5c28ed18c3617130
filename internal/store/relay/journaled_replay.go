// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
	"valise/internal/store/relay/journal"
)

// replay reads again what the database does not have.
func (j *Journaled) replay(ctx context.Context) error {
	r := &replay{ctx: ctx, j: j}
	err := j.log.Replay(j.marks.light, r.batch)
	if err != nil {
		return err
	}
	j.last = j.log.Last()
	if has := max(j.marks.heavy, j.marks.mail, j.marks.light); has > j.last {
		return fmt.Errorf("%w: it ends at batch %d, and the database has %d", journal.ErrDamaged, j.last, has)
	}
	return nil
}

// A replay brings batches of the journal back into memory. Nobody else is there yet.
type replay struct {
	ctx     context.Context
	j       *Journaled
	seq     uint64
	at      journal.Place
	part    int64
	from    *box // of the submission whose items follow
	sub     submissionItem
	letters []*letter
}

// batch takes one batch in.
func (r *replay) batch(seq uint64, at journal.Place, body []byte) error {
	r.seq, r.at, r.part, r.from, r.letters = seq, at, 0, nil, nil
	if err := parseRecord(body, r); err != nil {
		return fmt.Errorf("%w: batch %d: %w", journal.ErrDamaged, seq, err)
	}
	r.j.enqueue(r.letters)
	return nil
}

// box finds a device by its row.
func (r *replay) box(id int64) (*box, error) {
	if b := r.j.byID[id]; b != nil {
		r.j.list(b) // so that it stays in memory
		return b, nil
	}
	var device []byte
	err := r.j.db.db.View(r.ctx, func(tx *store.Tx) error {
		return tx.QueryRowContext(r.ctx, `SELECT device FROM devices WHERE id = $1`, id).Scan(&device)
	})
	if err != nil || len(device) != 32 {
		return nil, fmt.Errorf("it names a device that the database does not have: %w", errors.Join(err, errRecord))
	}
	b, err := r.j.fetch(r.ctx, mailbox.Device(device))
	if b == nil || err != nil {
		return nil, errors.Join(err, errRecord)
	}
	r.j.list(b)
	return b, nil
}

// arrival implements items.
func (r *replay) arrival(a *arrivalItem) error {
	if r.seq <= r.j.marks.heavy {
		b, err := r.box(a.id)
		if err == nil && a.began {
			r.begin(b, a)
		}
		return err
	}
	b := r.j.byID[a.id]
	if b == nil {
		var err error
		if b, err = r.j.fetch(r.ctx, a.device); err != nil {
			return err
		}
	}
	if b == nil {
		b = &box{id: a.id, device: a.device}
		b.begin(a.id, r.j.db.floor)
		r.j.boxes[a.device], r.j.byID[a.id] = b, b
	}
	if b.id != a.id || b.device != a.device {
		return errRecord
	}
	r.j.nextDevice = max(r.j.nextDevice, a.id+1)
	if a.began {
		r.begin(b, a)
	}
	kept := *a
	kept.chain = slices.Clone(a.chain)
	r.j.list(b)
	r.j.addHeavy(r.seq, []heavyWork{arrivalWork(b, &kept)})
	return nil
}

func (r *replay) begin(b *box, a *arrivalItem) {
	b.cur.incarnation, b.cur.counter = a.incarnation, 0
	b.hashes, b.saved = nil, 0
	b.version++
}

// submission implements items.
func (r *replay) submission(s *submissionItem) (err error) {
	if r.from, err = r.box(s.device); err != nil {
		return err
	}
	r.sub = *s
	b := r.from
	if s.incarnation != b.cur.incarnation {
		return nil // the database knows already of the one that follows
	}
	switch next := b.saved + uint64(len(b.hashes)) + 1; {
	case s.counter < next:
		return nil // the database has it
	case s.counter > next:
		b.hashes, b.saved = nil, s.counter-1
	}
	b.keep([][32]byte{s.hash})
	return nil
}

// step implements items.
func (r *replay) step(s *stepItem) error {
	g := r.j.groups[string(s.step.Group)]
	if g == nil {
		g = &group{id: s.row, name: slices.Clone(s.step.Group)}
		g.cur.id = s.row
		r.j.groups[string(g.name)] = g
	}
	if g.id != s.row {
		return errRecord
	}
	g.cur.epoch, g.seq = s.step.To, r.seq
	r.j.nextGroup = max(r.j.nextGroup, s.row+1)
	if r.seq > r.j.marks.heavy {
		r.j.addHeavy(r.seq, []heavyWork{stepWork(s.kept())})
	}
	return nil
}

// group finds a group by its id.
func (r *replay) group(id []byte) (*group, error) {
	if g := r.j.groups[string(id)]; g != nil {
		return g, nil
	}
	g := &group{name: slices.Clone(id)}
	err := r.j.db.db.View(r.ctx, func(tx *store.Tx) error {
		return tx.QueryRowContext(r.ctx, `SELECT id, epoch FROM groups WHERE group_id = $1`, id).Scan(&g.id, &g.cur.epoch)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("it names a group that the database does not have: %w", errRecord)
	}
	g.cur.id = g.id
	r.j.groups[string(g.name)] = g
	return g, err
}

// message implements items.
func (r *replay) message(m *messageItem) error {
	g, err := r.group(m.group)
	if err != nil {
		return err
	}
	r.part++
	l := &letter{
		seq: r.seq, part: r.part, place: r.at.Plus(m.offset), size: len(m.payload), kind: m.kind, urgent: m.urgent, group: g, epoch: m.epoch,
		sender: r.from.device, from: r.from.id, incarnation: r.sub.incarnation, counter: r.sub.counter, time: r.sub.time,
		live: len(m.to),
	}
	moved := l.upTo(r.j.marks.mail, r.j.marks.part)
	for _, n := range m.to {
		b, err := r.box(n.device)
		if err != nil {
			return err
		}
		if moved {
			b.top = max(b.top, n.number)
			continue
		}
		if k := len(b.index); k > 0 && b.index[k-1].number+1 != n.number {
			return fmt.Errorf("mail %d of a device follows %d: %w", n.number, b.index[k-1].number, errRecord)
		}
		b.index = append(b.index, pointer{n.number, l})
		b.press(pointer{n.number, l})
		l.to = append(l.to, destination{b, n.number})
	}
	if !moved {
		r.letters = append(r.letters, l)
	}
	return nil
}

// keyPackage implements items.
func (r *replay) keyPackage(kp *mailbox.KeyPackage) error {
	if r.seq <= r.j.marks.heavy {
		return nil
	}
	own := *kp
	own.Device, own.Package = r.from.device, slices.Clone(kp.Package)
	work := packagesWork{owner: r.from, time: time.UnixMilli(r.sub.time), list: []mailbox.KeyPackage{own}}
	r.j.addHeavy(r.seq, []heavyWork{work.heavy()})
	return nil
}

// after implements items: what holds after the batch.
func (r *replay) after(st *state) error {
	b, err := r.box(st.id)
	if err != nil {
		return err
	}
	b.cur.counter, b.cur.last, b.cur.acked, b.cur.held, b.cur.bytes = st.counter, st.last, st.acked, st.held, st.bytes
	b.version++
	r.j.trim(b)
	return nil
}

// hold implements items.
func (r *replay) hold(device int64, hold mailbox.Hold) error {
	b, err := r.box(device)
	if err != nil {
		return err
	}
	b.cur.hold = hold
	if r.seq > r.j.marks.heavy {
		r.j.addHeavy(r.seq, []heavyWork{holdWork(b, hold)})
	}
	return nil
}
