// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"fmt"
	"slices"
	"time"

	"valise/gateway/mailbox"
)

// dropMail deletes pointers, then the messages that nobody waits for any more, and
// says what that frees in each mailbox. Counts of pointers are locked in the order of
// their keys: another process may be at the same messages for other devices. Numbers
// have a lower bound because what was deleted before stands in the index until a
// vacuum, and would be looked at each time.
const (
	dropMail = `WITH ` + dropping + ` SELECT device, n, size FROM freed`

	dropping = `a AS (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS a(device, after, number)),
	gone AS (DELETE FROM mailbox m USING a WHERE m.device = a.device AND m.number > a.after AND m.number <= a.number RETURNING m.device, m.message, m.size),
	per AS (SELECT message, count(*) AS n FROM gone WHERE message IS NOT NULL GROUP BY message),
	locked AS MATERIALIZED (SELECT r.message, r.n AS had, per.n AS less FROM refs r JOIN per ON per.message = r.message ORDER BY r.message FOR UPDATE OF r),
	fewer AS (UPDATE refs r SET n = r.n - l.less FROM locked l WHERE r.message = l.message AND l.had > l.less),
	none AS (DELETE FROM refs r USING locked l WHERE r.message = l.message AND l.had <= l.less),
	dead AS (SELECT per.message FROM per LEFT JOIN locked l ON l.message = per.message WHERE l.message IS NULL OR l.had <= l.less),
	buried AS (DELETE FROM messages m USING dead WHERE m.id = dead.message),
	freed AS (SELECT device, count(*) AS n, sum(size)::bigint AS size FROM gone GROUP BY device)`
)

// numbers are what goes out of one mailbox: after one number, up to another.
type numbers struct {
	of          *state
	after, upTo uint64
}

// note marks what devices have as acknowledged. It is dropped with what the batch
// writes, or before somebody has to know how full a mailbox is.
func (b *sharedBatch) note(acks []mailbox.Ack) error {
	at := make(map[*state]int)
	for _, a := range acks {
		st, err := b.state(a.Device)
		if err != nil {
			return err
		}
		if st == nil || a.Number <= st.acked || a.Number > st.last {
			continue
		}
		if i, ok := at[st]; ok {
			b.freed[i].upTo = a.Number
		} else {
			at[st] = len(b.freed)
			b.freed = append(b.freed, numbers{st, st.acked, a.Number})
		}
		st.acked = a.Number
		b.changed(st)
	}
	return nil
}

// dropNoted drops what was noted, now.
func (b *sharedBatch) dropNoted() error {
	all := b.freed
	b.freed = nil
	return b.drop(all)
}

// acknowledge removes what devices have.
func (b *sharedBatch) acknowledge(acks []mailbox.Ack) error {
	if err := b.note(acks); err != nil {
		return err
	}
	return b.dropNoted()
}

// drop takes mail out of mailboxes.
func (b *sharedBatch) drop(all []numbers) error {
	if len(all) == 0 {
		return nil
	}
	byKey := make(map[int64]*state, len(all))
	for _, n := range all {
		byKey[n.of.id] = n.of
	}
	devices, afters, upTos := columns(all)
	rows, err := b.flow.Query(dropMail, devices, afters, upTos)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var device, n, size int64
		if err := rows.Scan(&device, &n, &size); err != nil {
			return err
		}
		st := byKey[device]
		st.held -= n
		st.bytes -= size
		b.changed(st)
	}
	return rows.Err()
}

// columns are what dropping asks for.
func columns(all []numbers) (devices, afters, upTos []int64) {
	devices, afters, upTos = make([]int64, len(all)), make([]int64, len(all)), make([]int64, len(all))
	for i, n := range all {
		devices[i], afters[i], upTos[i] = n.of.id, int64(n.after), int64(n.upTo)
	}
	return devices, afters, upTos
}

// Arrive implements mailbox.Store.
func (s *Shared) Arrive(ctx context.Context, a mailbox.Arrival) (standing mailbox.Standing, err error) {
	chain, err := marshalChain(a.Chain)
	if err != nil {
		return mailbox.Standing{}, err
	}
	err = s.change(ctx, func(b *sharedBatch) error {
		id, turn, err := b.numbers(`INSERT INTO devices (device, address, chain, seen, turn) VALUES ($1, $2, $3, $4, 1)
			ON CONFLICT (device) DO UPDATE SET address = excluded.address, chain = excluded.chain, seen = excluded.seen, turn = devices.turn + 1
			RETURNING id, turn`, a.Device[:], a.Address, full(chain), a.Time.Unix())
		if err != nil {
			return err
		}
		b.flow.Later(`INSERT INTO states (device, incarnation, counter, last, acked, held, bytes) VALUES ($1, $2, 0, $3, $3, 0, 0) ON CONFLICT DO NOTHING`, id, []byte{}, int64(s.floor))
		if err := b.lockDevices(slices.Values([]mailbox.Device{a.Device})); err != nil {
			return err
		}
		st := b.states[a.Device]
		began, err := b.begin(a, st)
		if err != nil {
			return err
		}
		standing = mailbox.Standing{
			Incarnation: st.incarnation, Began: began, Counter: st.counter, Last: st.last, Acknowledged: st.acked, Turn: uint64(turn),
		}
		n, err := b.number(`SELECT count(*) FROM key_packages WHERE device = $1 AND NOT last_resort AND expires > $2`, st.id, a.Time.Unix())
		standing.KeyPackages = int(n)
		return err
	})
	if err != nil {
		return mailbox.Standing{}, fmt.Errorf("relay store: arrival: %w", err)
	}
	if s.node != nil {
		s.node.teller.tell(mailbox.News{Arrived: []mailbox.Seat{{Device: a.Device, Turn: standing.Turn}}})
	}
	return standing, nil
}

// begin is batch.begin.
func (b *sharedBatch) begin(a mailbox.Arrival, st *state) (bool, error) {
	if !mayBegin(a, st) {
		return false, nil
	}
	n, err := b.flow.Exec(`INSERT INTO incarnations (device, incarnation, began) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		st.id, a.Incarnation[:], a.Time.Unix())
	if err != nil || n == 0 {
		return false, err
	}
	b.flow.Later(`DELETE FROM marks WHERE device = $1`, st.id)
	b.flow.Later(`DELETE FROM key_packages WHERE device = $1`, st.id)
	st.incarnation, st.counter = a.Incarnation, 0
	b.changed(st)
	return true, nil
}

// TakeKeyPackages implements mailbox.Store. A row that another process is taking is
// passed over, not waited for.
func (s *Shared) TakeKeyPackages(ctx context.Context, suite uint16, devices []mailbox.Device, now time.Time) (taken []mailbox.KeyPackage, left map[mailbox.Device]int, err error) {
	err = s.change(ctx, func(b *sharedBatch) error {
		taken, left = nil, make(map[mailbox.Device]int)
		for _, d := range devices {
			kp, n, found, err := b.takeOne(suite, d, now.Unix())
			if err != nil {
				return err
			}
			if found {
				taken, left[d] = append(taken, kp), n
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("relay store: hand out key packages: %w", err)
	}
	return taken, left, nil
}

const (
	freeDevice = `SELECT d.id FROM devices d JOIN states s ON s.device = d.id WHERE d.device = $1 AND s.hold = 0`
	takeOnce   = `DELETE FROM key_packages WHERE id = (SELECT id FROM key_packages
		WHERE device = $1 AND suite = $2 AND NOT last_resort AND expires > $3 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
		RETURNING last_resort, expires, package`
	takeLast = `SELECT last_resort, expires, package FROM key_packages WHERE device = $1 AND suite = $2 AND last_resort AND expires > $3 ORDER BY id LIMIT 1`
)

func (b *sharedBatch) takeOne(suite uint16, d mailbox.Device, now int64) (kp mailbox.KeyPackage, left int, found bool, err error) {
	owner, err := b.number(freeDevice, d[:])
	if err == mailbox.ErrNotFound {
		return kp, 0, false, nil
	}
	if err != nil {
		return kp, 0, false, err
	}
	kp = mailbox.KeyPackage{Device: d, Suite: suite}
	for _, query := range []string{takeOnce, takeLast} {
		if found, err = b.scanPackage(&kp, query, owner, int64(suite), now); found || err != nil {
			break
		}
	}
	if err != nil || !found || kp.LastResort {
		return kp, 0, found, err
	}
	n, err := b.number(`SELECT count(*) FROM key_packages WHERE device = $1 AND suite = $2 AND NOT last_resort AND expires > $3`, owner, int64(suite), now)
	return kp, int(n), true, err
}

func (b *sharedBatch) scanPackage(kp *mailbox.KeyPackage, query string, args ...any) (bool, error) {
	rows, err := b.flow.Query(query, args...)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	if !rows.Next() {
		return false, rows.Err()
	}
	return true, rows.Scan(&kp.LastResort, &kp.Expires, &kp.Package)
}
