// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// Arrive implements mailbox.Store. A device that comes back as it was changes
// nothing on disk but the time at which it was last seen, and that later.
func (j *Journaled) Arrive(ctx context.Context, a mailbox.Arrival) (mailbox.Standing, error) {
	j.commit.Lock()
	defer j.commit.Unlock()
	standing, err := j.arrive(ctx, a)
	if err != nil {
		return mailbox.Standing{}, fmt.Errorf("relay store: arrival: %w", err)
	}
	return standing, nil
}

func (j *Journaled) arrive(ctx context.Context, a mailbox.Arrival) (mailbox.Standing, error) {
	if err := j.room(ctx); err != nil {
		return mailbox.Standing{}, err
	}
	chain, err := marshalChain(a.Chain)
	if err != nil {
		return mailbox.Standing{}, err
	}
	e := j.begin(ctx)
	b, err := e.box(a.Device)
	if err != nil {
		return mailbox.Standing{}, err
	}
	item := &arrivalItem{device: a.Device, address: a.Address, chain: chain, time: a.Time.Unix()}
	card := item.card()
	same := false
	if b != nil {
		if same, err = j.sameCard(ctx, b, card); err != nil {
			return mailbox.Standing{}, err
		}
		if item.began, err = j.begins(ctx, b, a); err != nil {
			return mailbox.Standing{}, err
		}
	} else {
		b, item.first = e.newBox(a.Device), true
		item.began = a.Begin && a.Incarnation != [16]byte{}
	}
	if item.began {
		item.incarnation = a.Incarnation
	}
	if !same || item.began {
		if err := e.arrived(b, item); err != nil {
			return mailbox.Standing{}, err
		}
	}
	j.mu.Lock()
	b.card = card
	if len(j.active) < j.cfg.noticed || j.active[b] { // else it is known as of an earlier day
		b.seen = a.Time.Unix()
		j.active[b] = true
	}
	j.mu.Unlock()
	return j.standing(ctx, b, item.began, a.Time.Unix())
}

// newBox makes a device that nobody sees before the entry is committed.
func (e *entry) newBox(d mailbox.Device) *box {
	b := &box{id: e.j.nextDevice, device: d, round: e.j.round}
	b.begin(b.id, e.j.db.floor)
	b.work = b.cur
	e.j.nextDevice++ // a number that is not used after all is no loss
	return b
}

// arrived commits an arrival.
func (e *entry) arrived(b *box, item *arrivalItem) error {
	item.id = b.id
	if item.began {
		b.work.incarnation, b.work.counter = item.incarnation, 0
		e.newLife = b
	}
	e.buf = item.append(e.buf)
	e.touch(b)
	e.heavy = append(e.heavy, arrivalWork(b, item))
	return e.commit()
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
