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

// A dueSpan is mail at the head of one mailbox that is over age: all that is content
// in these numbers.
type dueSpan struct {
	id          int64
	device      mailbox.Device
	first, last uint64
}

// An aged is one pointer to a message over age.
type aged struct {
	number, epoch        uint64
	message, refs, group int64
	size                 int64
	sender               mailbox.Device
	groupID              []byte
	lost                 mailbox.Lost
}

// Expire implements mailbox.Store.
func (s *Store) Expire(ctx context.Context, before time.Time, limit int) (losses []mailbox.Loss, err error) {
	spans, err := s.due(ctx, before.UnixMilli(), limit)
	if err == nil && len(spans) > 0 {
		err = s.change(ctx, func(b *batch) error {
			losses, err = expire(b, spans, before.UnixMilli(), ofAge)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("relay store: expire: %w", err)
	}
	return losses, nil
}

// duePortion is how many entries of a mailbox are looked at together, after its head.
const duePortion = 256

// due looks, beside the writers, for mail that is over age. A mailbox is in the order
// of time: the first entry that is young enough ends the search in it.
func (s tables) due(ctx context.Context, before int64, limit int) (spans []dueSpan, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		spans = nil
		waiting, err := waitingDevices(ctx, tx)
		if err != nil {
			return err
		}
		for left := limit; left > 0 && len(waiting) > 0; waiting = waiting[1:] {
			span, n, err := dueOf(ctx, tx, waiting[0], before, left)
			if err != nil {
				return err
			}
			if n > 0 {
				spans = append(spans, span)
			}
			left -= n
		}
		return nil
	})
	return spans, err
}

// waitingDevices are those for which mail is held.
func waitingDevices(ctx context.Context, tx *store.Tx) (list []dueSpan, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT d.id, d.device FROM states s JOIN devices d ON d.id = s.device WHERE s.held > 0 ORDER BY d.id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var w dueSpan
		var device []byte
		if err := rows.Scan(&w.id, &device); err != nil {
			return nil, err
		}
		copy(w.device[:], device)
		list = append(list, w)
	}
	return list, rows.Err()
}

// dueOf finds up to limit messages of one mailbox.
func dueOf(ctx context.Context, tx *store.Tx, span dueSpan, before int64, limit int) (_ dueSpan, found int, err error) {
	after, portion := int64(0), 1
	for found < limit {
		n := 0
		over := false
		err := func() error {
			rows, err := tx.QueryContext(ctx, `SELECT number, kind, time FROM mail
				WHERE device = $1 AND number > $2 ORDER BY number LIMIT $3`, span.id, after, portion)
			if err != nil {
				return err
			}
			defer rows.Close()
			for !over && found < limit && rows.Next() {
				var kind mailbox.Kind
				var at int64
				if err := rows.Scan(&after, &kind, &at); err != nil {
					return err
				}
				n++
				if over = at >= before; over || kind != mailbox.Content {
					continue
				}
				if found++; found == 1 {
					span.first = uint64(after)
				}
				span.last = uint64(after)
			}
			return rows.Err()
		}()
		if err != nil || over || n < portion {
			return span, found, err
		}
		portion = duePortion
	}
	return span, found, nil
}

// A mailer is a transaction in which mail expires.
type mailer interface {
	ground
	// agedOf returns what is over age in a span.
	agedOf(st *state, span dueSpan, before int64) ([]aged, error)
	// expiredAt returns the entry of a kind, Expired or Withheld, right before a message,
	// of the same sender and group; nil if there is none.
	expiredAt(st *state, kind mailbox.Kind, first aged) (mailbox.Span, *aged, error)
	// dropPointers takes messages out of one mailbox.
	dropPointers(st *state, run []aged) error
	// putNotice puts an entry into a mailbox.
	putNotice(st *state, number uint64, n notice) error
}

// ends are the kinds of the entries that tell the recipient and the sender.
type ends struct{ recipient, sender mailbox.Kind }

var (
	ofAge   = ends{mailbox.Expired, mailbox.Undelivered}
	refused = ends{mailbox.Withheld, mailbox.Forbidden}
)

// expire takes what is still there of the spans out, and tells both ends.
func expire(m mailer, spans []dueSpan, before int64, tell ends) (losses []mailbox.Loss, err error) {
	for _, span := range spans {
		st, err := m.state(span.device)
		if err != nil || st == nil {
			return nil, fmt.Errorf("a mailbox without its device: %w", err)
		}
		all, err := m.agedOf(st, span, before)
		if err != nil {
			return nil, err
		}
		for len(all) > 0 {
			n := runLength(all)
			loss, err := replace(m, st, span.device, tell.recipient, all[:n])
			if err != nil {
				return nil, err
			}
			losses, all = append(losses, loss), all[n:]
		}
	}
	return losses, tellSenders(m, losses, tell.sender)
}

// runLength is how many at the beginning can be told of in one entry.
func runLength(all []aged) int {
	for i := 1; i < len(all); i++ {
		if all[i].number != all[0].number+uint64(i) || all[i].group != all[0].group || all[i].sender != all[0].sender {
			return i
		}
	}
	return len(all)
}

const (
	selectAged = `SELECT m.number, m.message, m.refs, m.grp, g.group_id, d.device, m.epoch, m.time, length(m.payload), m.incarnation, m.counter
		FROM mail m JOIN groups g ON g.id = m.grp JOIN devices d ON d.id = m.sender
		WHERE m.device = $1 AND m.number >= $2 AND m.number <= $3 AND m.kind = $4 AND m.time < $5 ORDER BY m.number`
	selectExpired = `SELECT m.message, m.refs, m.payload FROM mail m JOIN devices d ON d.id = m.sender
		WHERE m.device = $1 AND m.number = $2 AND m.kind = $3 AND m.grp = $4 AND d.device = $5`
)

// A scanner is a row, of either database's.
type scanner interface{ Scan(...any) error }

func scanAged(row scanner) (a aged, err error) {
	var sender, incarnation []byte
	var number, epoch, counter int64
	err = row.Scan(&number, &a.message, &a.refs, &a.group, &a.groupID, &sender, &epoch, &a.lost.Time, &a.size, &incarnation, &counter)
	a.number, a.epoch, a.lost.Counter = uint64(number), uint64(epoch), uint64(counter)
	copy(a.sender[:], sender)
	copy(a.lost.Incarnation[:], incarnation)
	return a, err
}

func scanExpired(row scanner, first aged) (mailbox.Span, *aged, error) {
	a := aged{number: first.number - 1}
	var payload []byte
	if err := row.Scan(&a.message, &a.refs, &payload); err != nil {
		return mailbox.Span{}, nil, err
	}
	a.size = int64(len(payload))
	span, err := mailbox.ParseSpan(payload)
	return span, &a, err
}

// agedOf implements mailer.
func (b *batch) agedOf(st *state, span dueSpan, before int64) (all []aged, err error) {
	rows, err := b.tx.QueryContext(b.ctx, selectAged, st.id, int64(span.first), int64(span.last), int64(mailbox.Content), before)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	return collectAged(rows)
}

// collectAged reads what selectAged finds, in either database.
func collectAged(rows interface {
	scanner
	Next() bool
	Err() error
},
) (all []aged, err error) {
	for rows.Next() {
		a, err := scanAged(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, rows.Err()
}

// replace puts one entry of a kind in the place of a run, under its last number,
// and takes in the one right before it if that tells of the same.
func replace(m mailer, st *state, device mailbox.Device, kind mailbox.Kind, run []aged) (mailbox.Loss, error) {
	last := run[len(run)-1]
	span := mailbox.Span{First: run[0].number, Since: run[0].lost.Time}
	gone := run
	before, found, err := m.expiredAt(st, kind, run[0])
	if err != nil {
		return mailbox.Loss{}, err
	}
	if found != nil {
		gone, span = append([]aged{*found}, run...), before
	}
	loss := mailbox.Loss{Recipient: device, First: run[0].number, Last: last.number, Group: last.groupID, Sender: last.sender}
	for _, a := range run {
		loss.Lost = append(loss.Lost, a.lost)
	}
	if err := m.dropPointers(st, gone); err != nil {
		return loss, err
	}
	payload, err := span.Payload()
	if err != nil {
		return loss, err
	}
	return loss, m.putNotice(st, last.number, notice{kind, last.group, last.epoch, last.sender, last.lost.Time, payload})
}

// expiredAt implements mailer.
func (b *batch) expiredAt(st *state, kind mailbox.Kind, first aged) (mailbox.Span, *aged, error) {
	rows, err := b.tx.QueryContext(b.ctx, selectExpired, st.id, int64(first.number-1), int64(kind), first.group, first.sender[:])
	if err != nil {
		return mailbox.Span{}, nil, err
	}
	defer rows.Close()
	if !rows.Next() {
		return mailbox.Span{}, nil, rows.Err()
	}
	return scanExpired(rows, first)
}

// dropPointers implements mailer.
func (b *batch) dropPointers(st *state, run []aged) error {
	for _, a := range run {
		if err := b.dropPointer(st, a); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) dropPointer(st *state, a aged) error {
	if _, err := b.tx.ExecContext(b.ctx, `DELETE FROM mailbox WHERE device = $1 AND number = $2`, st.id, int64(a.number)); err != nil {
		return err
	}
	stmt := b.s.q.unref
	if a.refs == 1 {
		stmt = b.s.q.dropLast
	}
	if _, err := b.tx.StmtContext(b.ctx, stmt).ExecContext(b.ctx, a.message); err != nil {
		return err
	}
	st.held--
	st.bytes -= a.size
	b.changed(st)
	return nil
}

// A notice is an entry that the store itself makes.
type notice struct {
	kind    mailbox.Kind
	group   int64
	epoch   uint64
	about   mailbox.Device
	time    int64
	payload []byte
}

// addressed finds a device that mail is from or about.
func addressed(on ground, d mailbox.Device) (*state, error) {
	st, err := on.state(d)
	if err == nil && st == nil {
		err = mailbox.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("a message without its sender: %w", err)
	}
	return st, nil
}

// putNotice implements mailer.
func (b *batch) putNotice(st *state, number uint64, n notice) error {
	about, err := addressed(b, n.about)
	if err != nil {
		return err
	}
	var id int64
	err = b.tx.StmtContext(b.ctx, b.s.q.putMessage).QueryRowContext(b.ctx,
		int64(n.kind), n.group, int64(n.epoch), about.id, n.time, 1, n.payload, []byte{}, 0).Scan(&id)
	if err != nil {
		return err
	}
	if _, err := b.tx.StmtContext(b.ctx, b.s.q.putPointer).ExecContext(b.ctx, st.id, int64(number), id); err != nil {
		return err
	}
	st.held++
	st.bytes += int64(len(n.payload))
	b.changed(st)
	return nil
}

// tellSenders puts one entry into a sender's mailbox for each recipient, group and
// incarnation: a full mailbox takes it too.
func tellSenders(m mailer, losses []mailbox.Loss, kind mailbox.Kind) error {
	for _, u := range unfetched(losses) {
		st, err := addressed(m, u.sender)
		if err != nil {
			return err
		}
		if st.hold == mailbox.Purged {
			continue
		}
		g, err := m.group([]byte(u.group))
		if err != nil || g == nil {
			return fmt.Errorf("a message without its group: %w", err)
		}
		payload, err := mailbox.Unfetched(u.incarnation, u.counters)
		if err != nil {
			return err
		}
		st.last++
		n := notice{kind, g.id, g.epoch, u.recipient, u.newest, payload}
		if err := m.putNotice(st, st.last, n); err != nil {
			return err
		}
	}
	return nil
}

// A toTell is one entry of kind Undelivered.
type toTell struct {
	unfetchedKey
	counters []uint64
	newest   int64 // time
}

type unfetchedKey struct {
	sender, recipient mailbox.Device
	group             string
	incarnation       [16]byte
}

// unfetched collects losses for their senders, in the order in which they come.
func unfetched(losses []mailbox.Loss) (all []toTell) {
	at := make(map[unfetchedKey]int)
	for _, l := range losses {
		for _, x := range l.Lost {
			if x.Counter == 0 {
				continue // nothing is known that would tell the sender which
			}
			key := unfetchedKey{l.Sender, l.Recipient, string(l.Group), x.Incarnation}
			i, ok := at[key]
			if !ok || len(all[i].counters) == mailbox.MaxUnfetched {
				i, at[key] = len(all), len(all)
				all = append(all, toTell{unfetchedKey: key})
			}
			all[i].counters = append(all[i].counters, x.Counter)
			all[i].newest = max(all[i].newest, x.Time)
		}
	}
	for i := range all {
		slices.Sort(all[i].counters)
		all[i].counters = slices.Compact(all[i].counters)
	}
	return all
}
