// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"fmt"
	"slices"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// moverPause is how long the mover waits after an error (a full disk, say) before
// it tries again.
const moverPause = 500 * time.Millisecond

// move brings into the database what it is to have, until Close.
func (j *Journaled) move() {
	defer close(j.done)
	ctx := context.Background()
	for {
		step := j.awaitWork()
		if step == nil {
			return
		}
		err := step(ctx)
		j.mu.Lock()
		if j.err = err; err != nil {
			j.err = fmt.Errorf("move mail from the journal to the database: %w", err)
		}
		j.changed.Broadcast()
		j.mu.Unlock()
		if err != nil {
			j.pause()
		}
	}
}

// pause waits for a while, or for Close.
func (j *Journaled) pause() {
	over := false
	timer := time.AfterFunc(moverPause, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		over = true
		j.changed.Broadcast()
	})
	defer timer.Stop()
	j.mu.Lock()
	defer j.mu.Unlock()
	for !over && !j.ending {
		j.changed.Wait()
	}
}

// awaitWork returns the next step of the mover, nil when the store is closed. What
// somebody may be waiting for comes first.
func (j *Journaled) awaitWork() func(context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		switch {
		case j.ending:
			return nil
		case j.heavyDue():
			return j.moveHeavy
		case j.swept < j.sweeps:
			return j.sweep
		case j.target > j.marks.light && !j.mailMoved():
			return j.moveMail
		case j.target > j.marks.light:
			return j.saveStates
		}
		if j.aim(); j.target <= j.marks.light {
			j.changed.Wait()
		}
	}
}

// aim decides up to which batch to move; mu is held.
func (j *Journaled) aim() {
	if j.target > j.marks.light {
		return
	}
	last, files := j.log.Oldest(j.marks.light)
	switch {
	case files > j.cfg.files:
		j.target = last
	case j.pending > j.cfg.pointers:
		j.target = j.fifo[len(j.fifo)/2].seq
	}
	if j.target > j.marks.light || len(j.heavy) > 0 {
		j.changed.Broadcast()
	}
}

// mailMoved says whether all mail up to the target is in the database; mu is held.
func (j *Journaled) mailMoved() bool {
	return j.marks.mail > j.target || j.marks.mail == j.target && j.marks.part == wholeBatch
}

// wholeBatch is the part of a mark that stands behind all of its batch.
const wholeBatch = 1 << 40

// wait blocks until what it waits for is so, the mover is stuck, or ctx ends. so is
// called with mu held.
func (j *Journaled) wait(ctx context.Context, so func() bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if so() {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.changed.Broadcast()
	})
	defer stop()
	j.waiters++
	defer func() { j.waiters-- }()
	j.aim()
	j.changed.Broadcast()
	for !so() {
		switch {
		case j.err != nil:
			return j.err
		case ctx.Err() != nil:
			return ctx.Err()
		case j.ending:
			return errClosed
		}
		j.changed.Wait()
	}
	return nil
}

// heavyDue says whether heavy work is to be moved now: somebody waits for the mover, or
// nobody has for heavyPause. What comes together costs one transaction. mu is held.
func (j *Journaled) heavyDue() bool {
	if len(j.heavy) == 0 {
		return false
	}
	if left := heavyPause - time.Since(j.heavy[0].queued); j.waiters == 0 && left > 0 {
		if j.pauses == nil {
			j.pauses = time.AfterFunc(left, func() {
				j.mu.Lock()
				defer j.mu.Unlock()
				j.pauses = nil
				j.changed.Broadcast()
			})
		}
		return false
	}
	return true
}

// settle waits until the database has all heavy work so far.
func (j *Journaled) settle(ctx context.Context) error {
	j.mu.Lock()
	upTo := j.queued
	j.mu.Unlock()
	return j.wait(ctx, func() bool { return j.settled >= upTo })
}

// update runs f in one transaction of the database that begins with the heavy work
// that is queued, and sets the marks. look is called with mu held: what it takes
// is of the same moment as that work, so that what a new incarnation drops is
// dropped neither after something of its own was saved, nor before something of
// the former one's is.
func (j *Journaled) update(ctx context.Context, look func(), f func(b *batch, m *marks) error) error {
	j.mu.Lock()
	work, m := slices.Clone(j.heavy), j.marks
	look()
	j.mu.Unlock()
	err := j.db.db.Update(ctx, func(tx *store.Tx) error {
		b, after := j.db.newBatch(ctx, tx), m
		for _, w := range work {
			if err := w.do(b); err != nil {
				return err
			}
			after.heavy = w.seq
		}
		if err := f(b, &after); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE journal SET heavy = $1, mail = $2, part = $3, light = $4`,
			int64(after.heavy), int64(after.mail), after.part, int64(after.light))
		m = after
		return err
	})
	if err != nil {
		return err
	}
	j.at("moved")
	j.mu.Lock()
	defer j.mu.Unlock()
	j.marks = m
	j.heavyDone(len(work))
	return nil
}

func (j *Journaled) moveHeavy(ctx context.Context) error {
	return j.update(ctx, func() {}, func(*batch, *marks) error { return nil })
}

// moved is a letter with those of its recipients who still wait for it.
type moved struct {
	letter  *letter
	to      []destination
	payload []byte
}

// portion takes letters from the head of the queue, up to the target and to what one
// transaction may hold. mark is the last one looked at.
func (j *Journaled) portion() (list []moved, at marks) {
	j.mu.Lock()
	defer j.mu.Unlock()
	pointers, bytes := 0, 0
	for _, l := range j.fifo {
		if l.seq > j.target {
			break
		}
		if pointers >= movedPointers || bytes >= movedBytes {
			return list, at
		}
		at.mail, at.part = l.seq, l.part
		if l.live == 0 {
			continue
		}
		m := moved{letter: l, to: make([]destination, 0, l.live)}
		for _, d := range l.to {
			if d.number > d.box.cur.acked {
				m.to = append(m.to, d)
			}
		}
		list = append(list, m)
		pointers, bytes = pointers+len(m.to), bytes+l.size
	}
	at.mail, at.part = j.target, wholeBatch
	return list, at
}

// moveMail moves a portion of the mail up to the target.
func (j *Journaled) moveMail(ctx context.Context) error {
	list, at := j.portion()
	for i := range list {
		list[i].payload = make([]byte, list[i].letter.size)
		if err := j.log.ReadAt(list[i].payload, list[i].letter.place); err != nil {
			return err
		}
	}
	err := j.update(ctx, func() {}, func(b *batch, m *marks) error {
		m.mail, m.part = at.mail, at.part
		for i := range list {
			if err := b.store(&list[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for n < len(j.fifo) && j.fifo[n].upTo(at.mail, at.part) {
		l := j.fifo[n]
		for _, d := range l.to {
			d.box.top = max(d.box.top, d.number)
			j.drop(d.box, d.number)
		}
		n++
	}
	j.fifo = slices.Delete(j.fifo, 0, n)
	return nil
}

// store puts a letter into the database, for those who wait for it.
func (b *batch) store(m *moved) error {
	l := m.letter
	var id int64
	err := b.tx.StmtContext(b.ctx, b.s.q.putMessage).QueryRowContext(b.ctx,
		int64(l.kind), l.group.id, int64(l.epoch), l.from, l.time, len(m.to), m.payload, l.incarnation[:], int64(l.counter)).Scan(&id)
	if err != nil {
		return err
	}
	point := b.tx.StmtContext(b.ctx, b.s.q.putPointer)
	for _, d := range m.to {
		if _, err := point.ExecContext(b.ctx, d.box.id, int64(d.number), id); err != nil {
			return err
		}
		if l.urgent > 0 {
			if err := b.noteUrgent(d.box.id, l.urgent, d.number); err != nil {
				return err
			}
		}
	}
	return nil
}

// saved is what of one box goes into the database.
type saved struct {
	box     *box
	state   state
	version uint64
	from    uint64 // hashes are those of the counters after it
	hashes  [][32]byte
	sweep   bool
	seen    int64
}

// unsaved takes what a box has that the database has not; mu is held.
func unsaved(b *box) saved {
	return saved{
		box: b, state: b.cur, version: b.version, from: b.saved, hashes: b.hashes[:len(b.hashes):len(b.hashes)],
		sweep: b.unswept(), seen: b.seen,
	}
}

// saveStates saves the states of all that has changed up to the target, and then
// gives the journal's files up to there free.
func (j *Journaled) saveStates(ctx context.Context) error {
	j.mu.Lock()
	target := j.target
	boxes := make([]*box, 0, len(j.active))
	for b := range j.active {
		boxes = append(boxes, b)
	}
	j.mu.Unlock()
	slices.SortFunc(boxes, func(a, b *box) int { return int(a.id - b.id) })
	for {
		n := min(len(boxes), savedBoxes)
		last := n == len(boxes)
		err := j.save(ctx, boxes[:n], func(m *marks) {
			if last {
				m.light = target
			}
		})
		if err != nil {
			return err
		}
		if boxes = boxes[n:]; last {
			err := j.log.Release(target)
			j.at("released")
			return err
		}
	}
}

// sweep takes mail out of the database that was acknowledged.
func (j *Journaled) sweep(ctx context.Context) error {
	j.mu.Lock()
	asked := j.sweeps
	var boxes []*box
	for b := range j.active {
		if b.unswept() {
			boxes = append(boxes, b)
		}
	}
	j.mu.Unlock()
	for len(boxes) > 0 {
		n := min(len(boxes), savedBoxes)
		if err := j.save(ctx, boxes[:n], func(*marks) {}); err != nil {
			return err
		}
		boxes = boxes[n:]
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.swept = asked
	return nil
}

// save brings boxes' states, hashes and acknowledgements into the database.
func (j *Journaled) save(ctx context.Context, boxes []*box, mark func(*marks)) error {
	var list []saved
	look := func() {
		for _, b := range boxes {
			list = append(list, unsaved(b))
		}
	}
	err := j.update(ctx, look, func(b *batch, m *marks) error {
		mark(m)
		for i := range list {
			if err := b.saveBox(&list[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range list {
		list[i].done()
		j.rest(list[i].box)
	}
	return nil
}

func (b *batch) saveBox(s *saved) error {
	st := &s.state
	if s.sweep {
		if _, _, err := b.dropMail(st.id, st.acked); err != nil {
			return err
		}
	}
	if err := saveHashes(b.ctx, b.tx, st.id, s.from, s.hashes); err != nil {
		return err
	}
	if s.seen != 0 {
		if _, err := b.tx.ExecContext(b.ctx, `UPDATE devices SET seen = $1 WHERE id = $2`, s.seen, st.id); err != nil {
			return err
		}
	}
	_, err := b.tx.StmtContext(b.ctx, b.s.q.saveState).ExecContext(b.ctx,
		st.incarnation[:], int64(st.counter), int64(st.last), int64(st.acked), st.held, st.bytes, st.id)
	return err
}

// done notes in a box what the database has; mu is held.
func (s *saved) done() {
	b := s.box
	b.stored = max(b.stored, s.version)
	if s.sweep {
		b.swept = max(b.swept, s.state.acked)
	}
	if b.seen == s.seen {
		b.seen = 0
	}
	// A new incarnation has begun its hashes anew meanwhile.
	if upTo := s.from + uint64(len(s.hashes)); b.cur.incarnation == s.state.incarnation && b.saved < upTo {
		b.hashes = b.hashes[upTo-b.saved:]
		b.saved = upTo
	}
	if len(b.hashes) == 0 {
		b.hashes = nil
	}
}

// list puts a box on the list of those that the database has to hear of; mu is held.
func (j *Journaled) list(b *box) {
	if !b.listed {
		b.listed, j.active[b] = true, true
	}
}

// rest takes a box that the database has off the list; mu is held.
func (j *Journaled) rest(b *box) {
	if b.clean() {
		delete(j.active, b)
		b.listed = false
	}
}

// enqueue puts the letters of a batch into the queue; mu is held.
func (j *Journaled) enqueue(letters []*letter) {
	for _, l := range letters {
		j.pending += len(l.to)
	}
	j.living += len(letters)
	j.fifo = append(j.fifo, letters...)
	// Letters that nobody waits for any more must not stay until the mover
	// comes to them.
	if len(j.fifo) > 4096 && len(j.fifo) > 2*j.living {
		j.fifo = slices.DeleteFunc(j.fifo, func(l *letter) bool { return l.live == 0 })
	}
}

// trim drops what a box has acknowledged; mu is held.
func (j *Journaled) trim(b *box) {
	n := 0
	for n < len(b.index) && b.index[n].number <= b.cur.acked {
		j.unlink(&b.index[n])
		n++
	}
	b.cut(n)
}

// drop takes the pointers up to a number, which the database has, out of an index;
// mu is held.
func (j *Journaled) drop(b *box, upTo uint64) {
	n := 0
	for n < len(b.index) && b.index[n].number <= upTo {
		j.unlink(&b.index[n])
		n++
	}
	b.cut(n)
	j.rest(b)
}

func (j *Journaled) unlink(p *pointer) {
	j.pending--
	if p.letter.live--; p.letter.live == 0 {
		j.living--
	}
	p.letter = nil
}

func (b *box) cut(n int) {
	if b.index = b.index[n:]; len(b.index) == 0 {
		b.index = nil
	}
	b.unpress()
}

// whole runs f, which changes the database by itself, while nothing else changes:
// first the database takes over everything, and afterwards everything is read
// from it again.
func (j *Journaled) whole(ctx context.Context, f func() error) error {
	j.commit.Lock()
	defer j.commit.Unlock()
	j.mu.Lock()
	upTo, sweep := j.last, j.sweeps+1
	j.sweeps = sweep
	j.mu.Unlock()
	err := j.wait(ctx, func() bool {
		if j.marks.light < upTo && j.target <= j.marks.light {
			j.target = upTo
			j.changed.Broadcast()
		}
		return j.marks.light >= upTo && len(j.heavy) == 0 && j.swept >= sweep
	})
	if err != nil {
		return err
	}
	j.db.cache.reset()
	err = f()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.boxes, j.byID = make(map[mailbox.Device]*box), make(map[int64]*box)
	j.active, j.groups = make(map[*box]bool), make(map[string]*group)
	return err
}

// Flush makes the database take over everything, so that it can be looked at alone.
func (j *Journaled) Flush(ctx context.Context) error {
	return j.whole(ctx, func() error { return nil })
}
