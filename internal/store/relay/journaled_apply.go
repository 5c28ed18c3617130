// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"valise/gateway/mailbox"
	"valise/internal/store"
	"valise/internal/store/relay/journal"
)

// entry is what becomes one batch in the journal, and then of what is in memory. It
// implements ground.
type entry struct {
	ctx      context.Context
	j        *Journaled
	buf      []byte   // with journal.Head bytes left free
	changed  []change // to be published
	newLives []*box   // of them, those that begin an incarnation
	letters  []*letter
	offsets  []int // of the letters' payloads in buf
	news     map[string]*group
	stepped  []*group
	heavy    []heavyWork
	adding   map[stockKey]int
	placed   []mailbox.Placed // of all outcomes

	older, newer *box // that were looked up last: most messages concern two
}

// A change is what an entry does to one box, beside its state.
type change struct {
	box   *box
	fresh [][32]byte // hashes of its submissions
	given []*letter  // its mail, with the last numbers
}

type stockKey struct {
	device int64
	suite  uint16
}

// begin starts an entry; commit is held until it is published or given up.
func (j *Journaled) begin(ctx context.Context) *entry {
	j.round++
	k := &j.kept
	e := &entry{ctx: ctx, j: j, changed: k.changed, letters: k.letters, offsets: k.offsets}
	e.buf = append(k.buf[:0], make([]byte, journal.Head+1)...)
	*k = entry{}
	return e
}

// keep keeps an entry's memory for the next one. commit is held.
func (e *entry) keep() {
	if cap(e.buf) > keptBuffer || len(e.changed) > keptChanges || len(e.letters) > keptChanges {
		return
	}
	for i := range e.changed {
		c := &e.changed[i]
		c.box, c.fresh, c.given = nil, kept(c.fresh), kept(c.given)
	}
	clear(e.letters)
	e.j.kept = entry{buf: e.buf[:0], changed: e.changed[:0], letters: e.letters[:0], offsets: e.offsets[:0]}
}

// kept empties a slice, and keeps its memory if that is little.
func kept[T any](list []T) []T {
	if clear(list); cap(list) > keptOfBox {
		return nil
	}
	return list[:0]
}

// Apply implements mailbox.Store.
func (j *Journaled) Apply(ctx context.Context, submissions []*mailbox.Submission, acks []mailbox.Ack) ([]mailbox.Outcome, error) {
	j.commit.Lock()
	defer j.commit.Unlock()
	outcomes, err := j.apply(ctx, submissions, acks)
	if err != nil {
		return nil, fmt.Errorf("relay store: %w", err)
	}
	return outcomes, nil
}

func (j *Journaled) apply(ctx context.Context, submissions []*mailbox.Submission, acks []mailbox.Ack) ([]mailbox.Outcome, error) {
	if err := j.room(ctx); err != nil {
		return nil, err
	}
	e := j.begin(ctx)
	outcomes, err := e.add(submissions, acks)
	if err != nil {
		return nil, err
	}
	return outcomes, e.commit()
}

// placesOf is how many mailboxes submissions may put something into.
func placesOf(submissions []*mailbox.Submission) (n int) {
	for _, sub := range submissions {
		for i := range sub.Messages {
			n += len(sub.Messages[i].To)
		}
	}
	return n
}

// add judges submissions, and puts what is to be done into the entry.
func (e *entry) add(submissions []*mailbox.Submission, acks []mailbox.Ack) ([]mailbox.Outcome, error) {
	for _, a := range acks {
		if err := e.acknowledge(a); err != nil {
			return nil, err
		}
	}
	outcomes := make([]mailbox.Outcome, len(submissions))
	e.placed = make([]mailbox.Placed, 0, placesOf(submissions))
	for i, sub := range submissions {
		var err error
		if outcomes[i], err = e.submit(sub); err != nil {
			return nil, err
		}
	}
	return outcomes, nil
}

// room waits until the mover has made enough of it.
func (j *Journaled) room(ctx context.Context) error { return j.wait(ctx, j.roomy) }

// roomy says whether there is room; mu is held.
func (j *Journaled) roomy() bool {
	_, files := j.log.Oldest(j.marks.light)
	return files <= j.cfg.maxFiles && j.pending <= 2*j.cfg.pointers && j.weight <= j.cfg.maxWeight
}

// box finds a device, in memory or in the database; nil if it never arrived.
func (e *entry) box(d mailbox.Device) (*box, error) {
	if b := e.older; b != nil && b.device == d {
		return b, nil
	}
	if b := e.newer; b != nil && b.device == d {
		return b, nil
	}
	b := e.j.boxes[d] // nobody else writes it while commit is held
	if b == nil {
		var err error
		if b, err = e.j.fetch(e.ctx, d); b == nil || err != nil {
			return nil, err
		}
	}
	if b.round != e.j.round {
		b.round, b.work, b.slot = e.j.round, b.cur, 0
	}
	e.older, e.newer = e.newer, b
	return b, nil
}

// fetch brings a device from the database into memory.
func (j *Journaled) fetch(ctx context.Context, d mailbox.Device) (*box, error) {
	var st *state
	err := j.db.db.View(ctx, func(tx *store.Tx) (err error) {
		st, err = scanState(tx.QueryRowContext(ctx, stateQuery, d[:]))
		return err
	})
	if err != nil || st == nil || st.id == 0 {
		return nil, err
	}
	return j.remember(d, st), nil
}

// remember keeps a device in memory that the database has.
func (j *Journaled) remember(d mailbox.Device, st *state) *box {
	b := &box{id: st.id, device: d, cur: *st}
	b.saved, b.swept, b.top = b.cur.counter, b.cur.acked, b.cur.last
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.boxes) >= maxCached {
		j.forget()
	}
	j.boxes[d], j.byID[b.id] = b, b
	return b
}

// forget drops the boxes that the database has; mu and commit are held.
func (j *Journaled) forget() {
	for d, b := range j.boxes {
		if !b.listed && b.round != j.round {
			delete(j.boxes, d)
			delete(j.byID, b.id)
		}
	}
}

// state implements ground.
func (e *entry) state(d mailbox.Device) (*state, error) {
	b, err := e.box(d)
	if b == nil || err != nil {
		return nil, err
	}
	return &b.work, nil
}

// lookup finds a group, in this entry, in memory, or in the database.
func (e *entry) lookup(id []byte) (*group, error) {
	g := e.news[string(id)]
	if g == nil {
		g = e.j.groups[string(id)]
	}
	if g == nil {
		g = &group{name: slices.Clone(id)}
		err := e.j.db.db.View(e.ctx, func(tx *store.Tx) error {
			err := tx.QueryRowContext(e.ctx, `SELECT id, epoch FROM groups WHERE group_id = $1`, id).Scan(&g.cur.id, &g.cur.epoch)
			if errors.Is(err, sql.ErrNoRows) {
				return nil
			}
			return err
		})
		if g.id = g.cur.id; err != nil || g.id == 0 {
			return nil, err
		}
		e.j.keepGroup(g)
	}
	if g.round != e.j.round {
		g.round, g.work = e.j.round, g.cur
	}
	return g, nil
}

// keepGroup keeps a group in memory. Too many are dropped; those of which the
// database has not the newest step stay.
func (j *Journaled) keepGroup(g *group) {
	if len(j.groups) >= maxCached {
		j.mu.Lock()
		has := j.marks.heavy
		j.mu.Unlock()
		for name, old := range j.groups {
			if old.seq <= has && old.round != j.round {
				delete(j.groups, name)
			}
		}
	}
	j.groups[string(g.name)] = g
}

// group implements ground.
func (e *entry) group(id []byte) (*groupRow, error) {
	g, err := e.lookup(id)
	if g == nil || err != nil {
		return nil, err
	}
	return &g.work, nil
}

// recall implements ground.
func (e *entry) recall(from *state, counter uint64) ([32]byte, error) {
	b := e.j.byID[from.id]
	e.j.mu.Lock()
	hash, known, err := b.recall(b.work.counter, counter, e.fresh(b))
	e.j.mu.Unlock()
	if known || err != nil {
		return hash, err
	}
	return e.j.storedHash(e.ctx, from.id, counter)
}

func (j *Journaled) storedHash(ctx context.Context, device int64, counter uint64) (hash [32]byte, err error) {
	err = j.db.db.View(ctx, func(tx *store.Tx) error {
		hash, err = storedHash(ctx, tx, device, counter)
		return err
	})
	return hash, err
}

// stock implements ground.
func (e *entry) stock(of *state, suite uint16, now int64) (n int, err error) {
	if err := e.j.settle(e.ctx); err != nil {
		return 0, err
	}
	err = e.j.db.db.View(e.ctx, func(tx *store.Tx) error {
		return tx.QueryRowContext(e.ctx, `SELECT count(*) FROM key_packages WHERE device = $1 AND suite = $2 AND last_resort = 0 AND expires > $3`,
			of.id, int64(suite), now).Scan(&n)
	})
	return n + e.adding[stockKey{of.id, suite}], err
}

// acknowledge notes that a device has its mail up to a number.
func (e *entry) acknowledge(a mailbox.Ack) error {
	b, err := e.box(a.Device)
	if err != nil || b == nil || a.Number <= b.work.acked || a.Number > b.work.last {
		return err
	}
	e.j.mu.Lock()
	from, first := b.work.acked, b.first()
	var held, bytes int64
	for _, p := range b.index { // in order, and what is acknowledged has been cut off
		if p.number > a.Number {
			break
		}
		if p.number > from {
			held, bytes = held+1, bytes+int64(p.letter.size)
		}
	}
	e.j.mu.Unlock()
	if from+1 < first && b.work.held > held {
		stored, size, err := e.j.storedMail(e.ctx, b.id, from, min(a.Number, first-1))
		if err != nil {
			return err
		}
		held, bytes = held+stored, bytes+size
	}
	b.work.acked = a.Number
	b.work.held -= held
	b.work.bytes -= bytes
	e.touch(b)
	return nil
}

// storedMail sums up what of a mailbox the database has, after one number and up to
// another.
func (j *Journaled) storedMail(ctx context.Context, device int64, after, upTo uint64) (held, bytes int64, err error) {
	err = j.db.db.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(length(m.payload)), 0) FROM mailbox b JOIN messages m ON m.id = b.message
			WHERE b.device = $1 AND b.number > $2 AND b.number <= $3`, device, int64(after), int64(upTo)).Scan(&held, &bytes)
	})
	return held, bytes, err
}

// touch returns what this entry changes in a box. It holds until the next touch.
func (e *entry) touch(b *box) *change {
	if b.slot == 0 {
		if n := len(e.changed); n < cap(e.changed) {
			e.changed = e.changed[:n+1] // with the memory of an entry before
		} else {
			e.changed = append(e.changed, change{})
		}
		b.slot = len(e.changed)
		e.changed[b.slot-1].box = b
	}
	return &e.changed[b.slot-1]
}

// fresh returns the hashes of a box's submissions in this entry.
func (e *entry) fresh(b *box) [][32]byte {
	if b.slot == 0 {
		return nil
	}
	return e.changed[b.slot-1].fresh
}

func (e *entry) submit(sub *mailbox.Submission) (mailbox.Outcome, error) {
	_, refusal, err := e.j.judge.decide(e, sub)
	if err != nil {
		return mailbox.Outcome{}, err
	}
	if refusal != nil {
		return *refusal, nil
	}
	from, err := e.box(sub.Device)
	if err != nil {
		return mailbox.Outcome{}, err
	}
	from.work.counter = sub.Counter
	c := e.touch(from)
	c.fresh = append(c.fresh, sub.Hash)
	item := submissionItem{device: from.id, counter: sub.Counter, hash: sub.Hash, time: sub.Time.UnixMilli(), incarnation: sub.Incarnation}
	e.buf = item.append(e.buf)
	if err := e.step(sub.Step); err != nil {
		return mailbox.Outcome{}, err
	}
	first := len(e.placed)
	for i := range sub.Messages {
		if err := e.deliver(sub, i, from); err != nil {
			return mailbox.Outcome{}, err
		}
	}
	e.publish(sub, from)
	return mailbox.Outcome{Verdict: mailbox.Done, Placed: e.placed[first:len(e.placed):len(e.placed)]}, nil
}

func (e *entry) step(step *mailbox.Step) error {
	if step == nil {
		return nil
	}
	g, err := e.lookup(step.Group)
	if err != nil {
		return err
	}
	if step.Create {
		g = &group{id: e.j.nextGroup, name: slices.Clone(step.Group), work: groupRow{id: e.j.nextGroup}, round: e.j.round}
		e.j.nextGroup++ // a number that is not used after all is no loss
		if e.news == nil {
			e.news = make(map[string]*group)
		}
		e.news[string(g.name)] = g
	}
	g.work.epoch = step.To
	e.stepped = append(e.stepped, g)
	item := &stepItem{row: g.id, step: *step, lists: true}
	e.buf = item.append(e.buf)
	e.heavy = append(e.heavy, stepWork(item.kept()))
	return nil
}

// deliver puts a message into the entry once, with the number that it gets in each
// recipient's mailbox.
func (e *entry) deliver(sub *mailbox.Submission, i int, from *box) error {
	m := &sub.Messages[i]
	to, err := keptFor(e, m.To)
	if err != nil || len(to) == 0 {
		return err
	}
	g, err := e.lookup(m.Group)
	if err != nil {
		return err
	}
	if g == nil {
		return fmt.Errorf("message for an unknown group: %w", mailbox.ErrNotFound)
	}
	l := &letter{
		part: int64(len(e.letters)) + 1, size: len(m.Payload), kind: m.Kind, group: g, epoch: m.Epoch,
		sender: sub.Device, from: from.id, incarnation: sub.Incarnation, counter: sub.Counter, time: sub.Time.UnixMilli(),
		live: len(to),
	}
	if l.to = l.one[:0]; len(to) > len(l.one) {
		l.to = make([]destination, 0, len(to))
	}
	if isUrgent(sub, m.Kind) {
		l.urgent = sub.Precedence
	}
	for _, d := range to {
		b, err := e.box(d)
		if err != nil {
			return err
		}
		b.work.last++
		b.work.held++
		b.work.bytes += int64(len(m.Payload))
		c := e.touch(b)
		c.given = append(c.given, l)
		l.to = append(l.to, destination{b, b.work.last})
		e.placed = append(e.placed, mailbox.Placed{Device: d, Number: b.work.last, Message: i})
	}
	var offset int
	e.buf, offset = l.append(e.buf, m.Payload)
	e.letters, e.offsets = append(e.letters, l), append(e.offsets, offset-journal.Head)
	return nil
}

func (e *entry) publish(sub *mailbox.Submission, owner *box) {
	if len(sub.KeyPackages) == 0 {
		return
	}
	work := packagesWork{owner: owner, time: sub.Time}
	for i := range sub.KeyPackages {
		kp := sub.KeyPackages[i]
		e.buf = appendPackage(e.buf, &kp)
		kp.Package = slices.Clone(kp.Package)
		work.list = append(work.list, kp)
		if !kp.LastResort && kp.Expires > sub.Time.Unix() {
			if e.adding == nil {
				e.adding = make(map[stockKey]int)
			}
			e.adding[stockKey{owner.id, kp.Suite}]++
		}
	}
	e.heavy = append(e.heavy, work.heavy())
}

// commit writes the entry to the journal, and when it is on disk lets everybody see
// what has changed.
func (e *entry) commit() error {
	j := e.j
	if len(e.changed) == 0 && len(e.heavy) == 0 {
		return nil
	}
	defer e.keep()
	for i := range e.changed {
		e.buf = appendState(e.buf, &e.changed[i].box.work)
	}
	e.buf[journal.Head] = recordVersion
	seq, at, err := j.log.Append(e.buf)
	j.at("journaled")
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed = err; err != nil {
		return err
	}
	for _, b := range e.newLives {
		b.hashes, b.saved = nil, 0
	}
	for i := range e.changed {
		c := &e.changed[i]
		b := c.box
		if b.version == 0 {
			j.boxes[b.device], j.byID[b.id] = b, b // it may be new
		}
		b.cur = b.work
		b.version++
		b.keep(c.fresh)
		b.take(c.given)
		j.trim(b)
		j.list(b)
	}
	for i, l := range e.letters {
		l.seq, l.place = seq, at.Plus(e.offsets[i])
	}
	j.enqueue(e.letters)
	for _, g := range e.stepped {
		g.cur, g.seq = g.work, seq
		j.groups[string(g.name)] = g
	}
	j.addHeavy(seq, e.heavy)
	j.last = seq
	j.aim()
	return nil
}
