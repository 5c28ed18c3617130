// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// sharedBatch is the work of one transaction on PostgreSQL: what it is about is locked
// and read at its beginning, changed in memory, and written at its end, each table's
// rows with one statement.
type sharedBatch struct {
	s      *Shared
	flow   *store.Flow
	states map[mailbox.Device]*state // locked; nil: never arrived
	dirty  map[int64]*state
	groups map[string]*groupRow // locked; nil: there is none
	done   map[slotKey]*mailbox.Submission
	met    map[mailbox.Device]int64 // kept for later when all this is committed
	out    output
}

type slotKey struct{ device, slot int64 }

// output is what a transaction will write, column by column.
type output struct {
	messages struct {
		id, kind, group, epoch, sender, time, refs, counter []int64
		payload, incarnation                                [][]byte
	}
	shared   struct{ message, n []int64 } // those with several pointers
	pointers struct{ device, number, message, size []int64 }
}

func newSharedBatch(s *Shared, flow *store.Flow) *sharedBatch {
	return &sharedBatch{
		s: s, flow: flow, states: make(map[mailbox.Device]*state), dirty: make(map[int64]*state),
		groups: make(map[string]*groupRow), done: make(map[slotKey]*mailbox.Submission), met: make(map[mailbox.Device]int64),
	}
}

// lockFor locks what submissions and acknowledgements are about.
func (b *sharedBatch) lockFor(submissions []*mailbox.Submission, acks []mailbox.Ack) error {
	devices := make(map[mailbox.Device]bool)
	groups := make(map[string]bool) // true: to be stepped
	for _, a := range acks {
		devices[a.Device] = true
	}
	for _, sub := range submissions {
		devices[sub.Device] = true
		if sub.Require != nil {
			groups[string(sub.Require.Group)] = groups[string(sub.Require.Group)]
		}
		for i := range sub.Messages {
			groups[string(sub.Messages[i].Group)] = groups[string(sub.Messages[i].Group)]
			for _, d := range sub.Messages[i].To {
				devices[d] = true
			}
		}
		if sub.Step != nil {
			groups[string(sub.Step.Group)] = true
		}
	}
	if err := b.lockDevices(maps.Keys(devices)); err != nil {
		return err
	}
	return b.lockGroups(groups)
}

// lockDevices locks and reads the rows of devices, in the order of their keys. It is
// called once in a transaction, before anything else is locked.
func (b *sharedBatch) lockDevices(devices func(func(mailbox.Device) bool)) error {
	var keys []int64
	var strangers [][]byte
	byKey := make(map[int64]mailbox.Device)
	for d := range devices {
		b.states[d] = nil
		if key, ok := b.s.keys[d]; ok {
			keys, byKey[key] = append(keys, key), d
		} else {
			strangers = append(strangers, d[:])
		}
	}
	if len(strangers) > 0 {
		more, err := b.meet(strangers, byKey)
		if err != nil {
			return err
		}
		keys = append(keys, more...)
	}
	if len(keys) == 0 {
		return nil
	}
	rows, err := b.flow.Query(`SELECT device, incarnation, counter, last, acked, held, bytes, hold FROM states
		WHERE device = ANY($1) ORDER BY device FOR UPDATE`, keys)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		st := new(state)
		var incarnation []byte
		if err := rows.Scan(&st.id, &incarnation, &st.counter, &st.last, &st.acked, &st.held, &st.bytes, &st.hold); err != nil {
			return err
		}
		copy(st.incarnation[:], incarnation)
		b.states[byKey[st.id]] = st
	}
	return rows.Err()
}

// meet finds the keys of devices that this process has not met.
func (b *sharedBatch) meet(devices [][]byte, byKey map[int64]mailbox.Device) (keys []int64, err error) {
	rows, err := b.flow.Query(`SELECT id, device FROM devices WHERE device = ANY($1)`, devices)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var key int64
		var raw []byte
		if err := rows.Scan(&key, &raw); err != nil {
			return nil, err
		}
		var d mailbox.Device
		copy(d[:], raw)
		keys, byKey[key] = append(keys, key), d
		b.met[d] = key
	}
	return keys, rows.Err()
}

// lockGroups locks and reads groups, in the order of their keys: one that is stepped
// against everybody, the others against being stepped.
func (b *sharedBatch) lockGroups(groups map[string]bool) error {
	var all [][]byte
	mode := "FOR SHARE"
	for id, stepped := range groups {
		all, b.groups[id] = append(all, []byte(id)), nil
		if stepped {
			mode = "FOR UPDATE" // for all: two modes would be two orders
		}
	}
	if len(all) == 0 {
		return nil
	}
	rows, err := b.flow.Query(`SELECT id, group_id, epoch FROM groups WHERE group_id = ANY($1) ORDER BY id `+mode, all)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		g := new(groupRow)
		var id []byte
		if err := rows.Scan(&g.id, &id, &g.epoch); err != nil {
			return err
		}
		b.groups[string(id)] = g
	}
	return rows.Err()
}

// state implements ground.
func (b *sharedBatch) state(d mailbox.Device) (*state, error) {
	st, ok := b.states[d]
	if !ok {
		return nil, errors.New("a device's row was not locked")
	}
	return st, nil
}

// group implements ground.
func (b *sharedBatch) group(id []byte) (*groupRow, error) {
	g, ok := b.groups[string(id)]
	if !ok {
		return nil, errors.New("a group's row was not locked")
	}
	return g, nil
}

// recall implements ground.
func (b *sharedBatch) recall(from *state, counter uint64) (hash [32]byte, err error) {
	slot := int64(counter % mailbox.KeptHashes)
	if sub := b.done[slotKey{from.id, slot}]; sub != nil {
		if sub.Counter != counter {
			return hash, mailbox.ErrNotFound
		}
		return sub.Hash, nil
	}
	rows, err := b.flow.Query(`SELECT hash FROM submissions WHERE device = $1 AND slot = $2 AND counter = $3`, from.id, slot, int64(counter))
	if err != nil {
		return hash, err
	}
	defer rows.Close()
	var stored []byte
	if !rows.Next() {
		return hash, orNotFound(rows.Err())
	}
	err = rows.Scan(&stored)
	copy(hash[:], stored)
	return hash, err
}

// stock implements ground. What was published before in this transaction has been
// given to the server.
func (b *sharedBatch) stock(of *state, suite uint16, now int64) (int, error) {
	n, err := b.number(`SELECT count(*) FROM key_packages WHERE device = $1 AND suite = $2 AND NOT last_resort AND expires > $3`, of.id, int64(suite), now)
	return int(n), err
}

// number asks for one.
func (b *sharedBatch) number(query string, args ...any) (n int64, err error) {
	rows, err := b.flow.Query(query, args...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	if !rows.Next() {
		return 0, orNotFound(rows.Err())
	}
	return n, rows.Scan(&n)
}

// orNotFound says why there is no row.
func orNotFound(err error) error {
	if err == nil {
		return mailbox.ErrNotFound
	}
	return err
}

func (b *sharedBatch) changed(st *state) { b.dirty[st.id] = st }

// write notes what a submission brings.
func (b *sharedBatch) write(sub *mailbox.Submission, from *state) (mailbox.Outcome, error) {
	from.counter = sub.Counter
	b.changed(from)
	b.done[slotKey{from.id, int64(sub.Counter % mailbox.KeptHashes)}] = sub
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
	b.publish(sub, from)
	return outcome, nil
}

func (b *sharedBatch) step(step *mailbox.Step) error {
	g := b.groups[string(step.Group)]
	if step.Create {
		// Another process may have created it meanwhile: then this fails for the
		// unique id, and finds it when it is run again.
		id, err := b.number(`INSERT INTO groups (group_id, epoch, info) VALUES ($1, $2, $3) RETURNING id`, step.Group, int64(step.To), full(step.Info))
		if err != nil {
			return err
		}
		g = &groupRow{id: id}
		b.groups[string(step.Group)] = g
	} else {
		b.flow.Change(`UPDATE groups SET epoch = $1, info = $2 WHERE id = $3 AND epoch = $4`, int64(step.To), full(step.Info), g.id, int64(step.From))
	}
	g.epoch = step.To
	var gone, kept []string
	var values [][]byte
	for _, r := range step.Records {
		if r.Value == nil {
			gone = append(gone, r.Key)
			continue
		}
		kept, values = append(kept, r.Key), append(values, r.Value)
	}
	if len(gone) > 0 {
		b.flow.Later(`DELETE FROM group_records WHERE grp = $1 AND key = ANY($2)`, g.id, gone)
	}
	if len(kept) > 0 {
		b.flow.Later(`INSERT INTO group_records (grp, key, value) SELECT $1, r.key, r.value FROM unnest($2::text[], $3::bytea[]) AS r(key, value)
			ON CONFLICT (grp, key) DO UPDATE SET value = excluded.value`, g.id, kept, values)
	}
	return nil
}

// full is a value that is not null.
func full(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func (b *sharedBatch) deliver(sub *mailbox.Submission, i int, from *state, outcome *mailbox.Outcome) error {
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
	id, err := b.putMessage(m.Kind, g.id, m.Epoch, from.id, sub.Time.UnixMilli(), len(to), m.Payload, sub.Incarnation[:], sub.Counter)
	if err != nil {
		return err
	}
	for _, d := range to {
		st := b.states[d]
		st.last++
		b.point(st, st.last, id, len(m.Payload))
		outcome.Placed = append(outcome.Placed, mailbox.Placed{Device: d, Number: st.last, Message: i})
	}
	return nil
}

func (b *sharedBatch) putMessage(kind mailbox.Kind, group int64, epoch uint64, sender, time int64, refs int, payload, incarnation []byte, counter uint64) (int64, error) {
	if b.s.block.next == b.s.block.end {
		n, err := b.number(`SELECT nextval('message_blocks')`)
		if err != nil {
			return 0, err
		}
		b.s.block = messageBlock{n * blockSize, (n + 1) * blockSize}
	}
	id := b.s.block.next
	b.s.block.next++
	m := &b.out.messages
	m.id, m.kind, m.group, m.epoch = append(m.id, id), append(m.kind, int64(kind)), append(m.group, group), append(m.epoch, int64(epoch))
	m.sender, m.time, m.refs, m.counter = append(m.sender, sender), append(m.time, time), append(m.refs, int64(refs)), append(m.counter, int64(counter))
	m.payload, m.incarnation = append(m.payload, full(payload)), append(m.incarnation, full(incarnation))
	if refs > 1 {
		b.out.shared.message, b.out.shared.n = append(b.out.shared.message, id), append(b.out.shared.n, int64(refs))
	}
	return id, nil
}

// point puts a message into a mailbox.
func (b *sharedBatch) point(st *state, number uint64, message int64, size int) {
	p := &b.out.pointers
	p.device, p.number = append(p.device, st.id), append(p.number, int64(number))
	p.message, p.size = append(p.message, message), append(p.size, int64(size))
	st.held++
	st.bytes += int64(size)
	b.changed(st)
}

func (b *sharedBatch) publish(sub *mailbox.Submission, owner *state) {
	if len(sub.KeyPackages) == 0 {
		return
	}
	b.flow.Later(`DELETE FROM key_packages WHERE device = $1 AND expires <= $2`, owner.id, sub.Time.Unix())
	for _, kp := range sub.KeyPackages {
		if kp.LastResort {
			b.flow.Later(`DELETE FROM key_packages WHERE device = $1 AND suite = $2 AND last_resort`, owner.id, int64(kp.Suite))
		}
		b.flow.Later(`INSERT INTO key_packages (device, suite, last_resort, expires, package) VALUES ($1, $2, $3, $4, $5)`,
			owner.id, int64(kp.Suite), kp.LastResort, kp.Expires, full(kp.Package))
	}
}

// flush gives the server everything that was noted; it goes out with the commit.
func (b *sharedBatch) flush() error {
	if m := &b.out.messages; len(m.id) > 0 {
		b.flow.Later(`INSERT INTO messages (id, kind, grp, epoch, sender, time, refs, counter, payload, incarnation)
			SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bytea[], $10::bytea[])`,
			m.id, m.kind, m.group, m.epoch, m.sender, m.time, m.refs, m.counter, m.payload, m.incarnation)
	}
	if r := &b.out.shared; len(r.message) > 0 {
		b.flow.Later(`INSERT INTO refs (message, n) SELECT * FROM unnest($1::bigint[], $2::bigint[])`, r.message, r.n)
	}
	if p := &b.out.pointers; len(p.device) > 0 {
		b.flow.Later(`INSERT INTO mailbox (device, number, message, size) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])`,
			p.device, p.number, p.message, p.size)
	}
	b.flushMarks()
	b.flushStates()
	return nil
}

func (b *sharedBatch) flushMarks() {
	if len(b.done) == 0 {
		return
	}
	keys := slices.SortedFunc(maps.Keys(b.done), func(x, y slotKey) int {
		if x.device != y.device {
			return int(min(1, max(-1, x.device-y.device)))
		}
		return int(x.slot - y.slot)
	})
	var devices, slots, counters []int64
	var hashes [][]byte
	for _, k := range keys {
		sub := b.done[k]
		devices, slots = append(devices, k.device), append(slots, k.slot)
		counters, hashes = append(counters, int64(sub.Counter)), append(hashes, bytes.Clone(sub.Hash[:]))
	}
	b.flow.Later(`INSERT INTO submissions (device, slot, counter, hash) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[])
		ON CONFLICT (device, slot) DO UPDATE SET counter = excluded.counter, hash = excluded.hash`, devices, slots, counters, hashes)
}

func (b *sharedBatch) flushStates() {
	if len(b.dirty) == 0 {
		return
	}
	var devices, counters, lasts, acked, held, size, holds []int64
	var incarnations [][]byte
	for _, id := range slices.Sorted(maps.Keys(b.dirty)) {
		st := b.dirty[id]
		devices, counters, lasts = append(devices, id), append(counters, int64(st.counter)), append(lasts, int64(st.last))
		acked, held, size, holds = append(acked, int64(st.acked)), append(held, st.held), append(size, st.bytes), append(holds, int64(st.hold))
		incarnations = append(incarnations, incarnationOf(st))
	}
	b.flow.Later(`UPDATE states s SET incarnation = u.incarnation, counter = u.counter, last = u.last, acked = u.acked, held = u.held, bytes = u.bytes, hold = u.hold
		FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
		AS u(device, incarnation, counter, last, acked, held, bytes, hold) WHERE s.device = u.device`,
		devices, incarnations, counters, lasts, acked, held, size, holds)
}

// incarnationOf is how a state's incarnation is stored: one that never was is empty.
func incarnationOf(st *state) []byte {
	if st.incarnation == [16]byte{} {
		return []byte{}
	}
	return bytes.Clone(st.incarnation[:])
}
