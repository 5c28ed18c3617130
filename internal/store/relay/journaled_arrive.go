// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// An arriving device waits for the group that it comes to the disk with.
type arriving struct {
	mailbox.Arrival
	ctx  context.Context
	done chan struct{} // closed when standing and err are set

	absent bool   // the database does not have it
	stored *state // as the database has it; nil: it was not asked
	box    *box
	item   *arrivalItem
	card   [32]byte

	standing mailbox.Standing
	err      error
}

// Arrive implements mailbox.Store. A device that comes back as it was changes
// nothing on disk but the time at which it was last seen, and that later. Those
// that come while others are being written to the disk are written together.
func (j *Journaled) Arrive(ctx context.Context, a mailbox.Arrival) (mailbox.Standing, error) {
	w := &arriving{Arrival: a, ctx: ctx, done: make(chan struct{})}
	j.door.Lock()
	j.arrivals = append(j.arrivals, w)
	if !j.receiving {
		j.receiving = true
		go j.receive()
	}
	j.door.Unlock()
	err := ctx.Err()
	select {
	case <-w.done:
		err = w.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return mailbox.Standing{}, fmt.Errorf("relay store: arrival: %w", err)
	}
	return w.standing, nil
}

// receive takes in groups of devices until none waits.
func (j *Journaled) receive() {
	for {
		j.commit.Lock()
		group := j.nextArrivals()
		if len(group) > 0 {
			j.takeIn(group)
		}
		j.commit.Unlock()
		if len(group) == 0 {
			return
		}
		for _, w := range group {
			close(w.done)
		}
	}
}

// nextArrivals takes those off the queue that go to the disk together: the first
// ones, up to a device that is among them already.
func (j *Journaled) nextArrivals() []*arriving {
	j.door.Lock()
	defer j.door.Unlock()
	n, among := 0, make(map[mailbox.Device]bool)
	for n < len(j.arrivals) && n < maxArrivals && !among[j.arrivals[n].Device] {
		among[j.arrivals[n].Device] = true
		n++
	}
	group := j.arrivals[:n:n]
	if j.arrivals = j.arrivals[n:]; len(j.arrivals) == 0 {
		j.arrivals = nil
	}
	j.receiving = n > 0
	return group
}

// takeIn makes one entry of a group. Who has gone meanwhile is left out, and what is
// wrong with one is not the others' fault; commit is held.
func (j *Journaled) takeIn(group []*arriving) {
	ctx := context.Background() // the work is everybody's
	err := j.room(ctx)
	if err == nil {
		err = j.lookUp(ctx, group)
	}
	if err != nil {
		for _, w := range group {
			w.err = err
		}
		return
	}
	e := j.begin(ctx)
	for _, w := range group {
		if w.err = w.ctx.Err(); w.err == nil {
			w.err = e.arrive(w)
		}
	}
	err = e.commit()
	for _, w := range group {
		if w.err == nil {
			w.err = err
		}
		if w.err == nil {
			w.standing, w.err = j.greet(ctx, w)
		}
	}
}

// lookUp reads what the database has of devices that are not in memory, in one
// transaction.
func (j *Journaled) lookUp(ctx context.Context, group []*arriving) error {
	known := func(w *arriving) bool { return j.boxes[w.Device] != nil } // nobody else writes it while commit is held
	if !slices.ContainsFunc(group, func(w *arriving) bool { return !known(w) }) {
		return nil
	}
	return j.db.db.View(ctx, func(tx *store.Tx) error {
		for _, w := range group {
			if known(w) {
				continue
			}
			var err error
			if w.stored, err = scanState(tx.QueryRowContext(ctx, stateQuery, w.Device[:])); err != nil {
				return err
			}
			w.absent = w.stored == nil
		}
		return nil
	})
}

// arrive puts one of a group into the entry.
func (e *entry) arrive(w *arriving) error {
	chain, err := marshalChain(w.Chain)
	if err != nil {
		return err
	}
	if e.j.boxes[w.Device] == nil && w.stored != nil {
		e.j.remember(w.Device, w.stored)
	}
	if !w.absent {
		if w.box, err = e.box(w.Device); err != nil {
			return err
		}
	}
	item := &arrivalItem{device: w.Device, address: w.Address, chain: chain, time: w.Time.Unix()}
	w.item, w.card = item, item.card()
	same := false
	if w.box != nil {
		if same, err = e.j.sameCard(e.ctx, w.box, w.card); err != nil {
			return err
		}
		if item.began, err = e.j.begins(e.ctx, w.box, w.Arrival); err != nil {
			return err
		}
	} else {
		w.box, item.first = e.newBox(w.Device), true
		item.began = w.Begin && w.Incarnation != [16]byte{}
	}
	if item.began {
		item.incarnation = w.Incarnation
	}
	if !same || item.began {
		e.arrived(w.box, item)
	}
	return nil
}

// greet is for a device whose group is on disk.
func (j *Journaled) greet(ctx context.Context, w *arriving) (mailbox.Standing, error) {
	b := w.box
	j.mu.Lock()
	b.card = w.card
	if len(j.active) < j.cfg.noticed || b.listed { // else it is known as of an earlier day
		b.seen = w.item.time
		j.list(b)
	}
	j.mu.Unlock()
	return j.standing(ctx, b, w.item.began, w.item.time)
}

// newBox makes a device that nobody sees before the entry is committed.
func (e *entry) newBox(d mailbox.Device) *box {
	b := &box{id: e.j.nextDevice, device: d, round: e.j.round}
	b.begin(b.id, e.j.db.floor)
	b.work = b.cur
	e.j.nextDevice++ // a number that is not used after all is no loss
	return b
}

// arrived adds an arrival to the entry.
func (e *entry) arrived(b *box, item *arrivalItem) {
	item.id = b.id
	if item.began {
		b.work.incarnation, b.work.counter = item.incarnation, 0
		e.newLives = append(e.newLives, b)
	}
	e.buf = item.append(e.buf)
	e.touch(b)
	e.heavy = append(e.heavy, arrivalWork(b, item))
}

func (a *arrivalItem) card() [32]byte {
	return sha256.Sum256(append(append([]byte(a.address), 0), a.chain...))
}

// sameCard says whether a device comes with the certificate that is on record.
func (j *Journaled) sameCard(ctx context.Context, b *box, card [32]byte) (bool, error) {
	j.mu.Lock()
	known := b.card
	j.mu.Unlock()
	if known != [32]byte{} {
		return known == card, nil
	}
	if err := j.settle(ctx); err != nil {
		return false, err
	}
	var stored arrivalItem
	err := j.db.db.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT address, chain FROM devices WHERE id = $1`, b.id).Scan(&stored.address, &stored.chain)
	})
	return stored.card() == card, err
}

// begins says whether an arrival begins an incarnation: one that has never been
// here before, of a device that is not held.
func (j *Journaled) begins(ctx context.Context, b *box, a mailbox.Arrival) (bool, error) {
	if !a.Begin || a.Incarnation == b.cur.incarnation || a.Incarnation == [16]byte{} || b.cur.hold != mailbox.Free {
		return false, nil
	}
	if err := j.settle(ctx); err != nil {
		return false, err
	}
	err := j.db.db.View(ctx, func(tx *store.Tx) error {
		var one int
		return tx.QueryRowContext(ctx, `SELECT 1 FROM incarnations WHERE device = $1 AND incarnation = $2`, b.id, a.Incarnation[:]).Scan(&one)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	return false, err
}

func (j *Journaled) standing(ctx context.Context, b *box, began bool, now int64) (mailbox.Standing, error) {
	st := b.cur
	standing := mailbox.Standing{
		Incarnation: st.incarnation, Began: began, Counter: st.counter, Last: st.last, Acknowledged: st.acked,
	}
	if began {
		return standing, nil // its KeyPackages are gone
	}
	j.mu.Lock()
	waiting := b.waiting > 0
	j.mu.Unlock()
	if waiting {
		if err := j.settle(ctx); err != nil {
			return standing, err
		}
	}
	err := j.db.db.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT count(*) FROM key_packages WHERE device = $1 AND last_resort = 0 AND expires > $2`, st.id, now).
			Scan(&standing.KeyPackages)
	})
	return standing, err
}

// Quarantine implements mailbox.Store.
func (j *Journaled) Quarantine(ctx context.Context, device mailbox.Device, on bool) error {
	j.commit.Lock()
	defer j.commit.Unlock()
	if err := j.quarantine(ctx, device, on); err != nil {
		return fmt.Errorf("relay store: quarantine: %w", err)
	}
	return nil
}

func (j *Journaled) quarantine(ctx context.Context, device mailbox.Device, on bool) error {
	if err := j.room(ctx); err != nil {
		return err
	}
	hold := mailbox.Free
	if on {
		hold = mailbox.Quarantined
	}
	e := j.begin(ctx)
	b, err := e.box(device)
	if err != nil {
		return err
	}
	if b == nil {
		return mailbox.ErrNotFound
	}
	if b.cur.hold == mailbox.Purged || b.cur.hold == hold {
		return nil
	}
	b.work.hold = hold
	e.buf = appendHold(e.buf, b.id, hold)
	e.touch(b)
	e.heavy = append(e.heavy, holdWork(b, hold))
	return e.commit()
}
