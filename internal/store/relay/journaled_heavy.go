// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"slices"
	"time"

	"valise/gateway/mailbox"
)

// heavyWork is what the database takes over at once, in the background: what is
// rare, and looked at in the database only. Who wants to look calls settle first.
type heavyWork struct {
	seq  uint64 // of its batch
	box  *box   // whose KeyPackages or certificate it concerns; may be nil
	size int
	// queued is when it came.
	queued time.Time
	do     func(*batch) error // may be called again, after a crash too
}

// addHeavy queues work; mu is held.
func (j *Journaled) addHeavy(seq uint64, list []heavyWork) {
	now := time.Now()
	for _, w := range list {
		w.seq, w.queued = seq, now
		if w.box != nil {
			w.box.waiting++
		}
		j.heavy = append(j.heavy, w)
		j.weight += w.size
		j.queued++
	}
}

// heavyDone takes work off the queue that the database has; mu is held.
func (j *Journaled) heavyDone(n int) {
	for i := range n {
		if b := j.heavy[i].box; b != nil {
			b.waiting--
			j.rest(b)
		}
		j.weight -= j.heavy[i].size
	}
	j.heavy = slices.Delete(j.heavy, 0, n)
	j.settled += uint64(n)
}

// stepWork brings a group's step into the database.
func stepWork(s *stepItem) heavyWork {
	size := len(s.step.Info)
	for _, r := range s.step.Records {
		size += len(r.Key) + len(r.Value)
	}
	size += len(mailbox.Device{}) * (len(s.step.Joined) + len(s.step.Left))
	return heavyWork{size: size, do: func(b *batch) error {
		_, err := b.tx.ExecContext(b.ctx, `INSERT INTO groups (id, group_id, epoch, info, listed) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, info = excluded.info, listed = min(listed, excluded.listed)`,
			s.row, s.step.Group, int64(s.step.To), s.step.Info, s.lists)
		if err != nil {
			return err
		}
		if err := b.keepMembers(s.row, &s.step); err != nil {
			return err
		}
		return b.keepRecords(s.row, s.step.Records)
	}}
}

// packagesWork is a device's KeyPackages.
type packagesWork struct {
	owner *box
	time  time.Time
	list  []mailbox.KeyPackage
}

func (p packagesWork) heavy() heavyWork {
	size := 0
	for i := range p.list {
		size += len(p.list[i].Package)
	}
	id := p.owner.id
	return heavyWork{box: p.owner, size: size, do: func(b *batch) error {
		return b.publish(&mailbox.Submission{Time: p.time, KeyPackages: p.list}, &state{id: id})
	}}
}

// arrivalWork brings a device's certificate, and its new incarnation, into the
// database.
func arrivalWork(owner *box, a *arrivalItem) heavyWork {
	return heavyWork{box: owner, size: len(a.chain), do: func(b *batch) error {
		_, err := b.tx.StmtContext(b.ctx, b.s.q.putDevice).ExecContext(b.ctx, a.id, a.device[:], a.address, a.chain, a.time)
		if err != nil {
			return err
		}
		_, err = b.tx.StmtContext(b.ctx, b.s.q.putState).ExecContext(b.ctx, a.id, []byte{}, int64(b.s.floor))
		if err != nil || !a.began {
			return err
		}
		_, err = b.tx.StmtContext(b.ctx, b.s.q.putLife).ExecContext(b.ctx, a.id, a.incarnation[:], a.time)
		if err != nil {
			return err
		}
		if a.first { // it has nothing that could be dropped
			return nil
		}
		return b.endLife(a.id)
	}}
}

// endLife drops what a former incarnation left: a new one has none of its secrets,
// and what was published before could never be joined with.
func (b *batch) endLife(device int64) error {
	for _, stmt := range []string{
		`DELETE FROM submissions WHERE device = $1`, `DELETE FROM key_packages WHERE device = $1`,
		`DELETE FROM recent WHERE id >= $1 * 64 AND id < ($1 + 1) * 64`,
	} {
		if _, err := b.tx.ExecContext(b.ctx, stmt, device); err != nil {
			return err
		}
	}
	return nil
}

func holdWork(owner *box, hold mailbox.Hold) heavyWork {
	id := owner.id
	return heavyWork{box: owner, do: func(b *batch) error {
		_, err := b.tx.ExecContext(b.ctx, `UPDATE states SET hold = $1 WHERE device = $2`, int64(hold), id)
		return err
	}}
}
