// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"fmt"
	"maps"

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
	groups map[string]*groupRow     // locked; nil: there is none
	done   map[int64]*newMarks      // by device
	freed  []numbers                // acknowledged; to be dropped
	met    map[mailbox.Device]int64 // kept for later when all this is committed
	out    output
	urgent urgentRows

	passOver bool // devices that another transaction has locked are left out
}

func newSharedBatch(s *Shared, flow *store.Flow) *sharedBatch {
	return &sharedBatch{
		s: s, flow: flow, states: make(map[mailbox.Device]*state), dirty: make(map[int64]*state),
		groups: make(map[string]*groupRow), done: make(map[int64]*newMarks), met: make(map[mailbox.Device]int64),
	}
}

// fence has the transaction fail if a gateway has the database to itself by now: this one
// may have lost the lock that excludes it, and what the other has in memory must stay true.
func (b *sharedBatch) fence() {
	if b.s.node == nil {
		return
	}
	b.flow.LaterRows(func(scan func(...any) error) error {
		var ours bool
		if err := scan(&ours); err != nil || ours {
			return err
		}
		return ErrAlone
	}, `SELECT pg_try_advisory_xact_lock_shared($1)`, int64(aloneLock))
}

// remember keeps what was committed.
func (b *sharedBatch) remember() {
	s := b.s
	if !s.owner {
		if len(s.keys)+len(b.met) > maxCached {
			clear(s.keys)
		}
		maps.Copy(s.keys, b.met)
		return
	}
	maps.DeleteFunc(b.states, func(_ mailbox.Device, st *state) bool { return st == nil })
	s.cache.put(b.states)
	if len(s.groups)+len(b.groups) > maxCached {
		clear(s.groups)
	}
	for id, g := range b.groups {
		if g != nil {
			s.groups[id] = *g
		}
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
		if sub == nil {
			continue
		}
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
	if err := b.lockDevicesSoon(maps.Keys(devices)); err != nil {
		return err
	}
	if err := b.lockGroups(groups); err != nil {
		return err
	}
	return b.flow.Settle()
}

// lockDevices locks and reads the rows of devices, in the order of their keys. It is
// called once in a transaction, before anything else is locked. Who is alone reads those
// that are not in memory.
func (b *sharedBatch) lockDevices(devices func(func(mailbox.Device) bool)) error {
	if err := b.lockDevicesSoon(devices); err != nil {
		return err
	}
	return b.flow.Settle()
}

// lockDevicesSoon is lockDevices together with what is asked next.
func (b *sharedBatch) lockDevicesSoon(devices func(func(mailbox.Device) bool)) error {
	if b.s.owner {
		return b.readDevices(devices)
	}
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
	mode := ""
	if b.passOver {
		mode = " SKIP LOCKED"
	}
	b.flow.LaterRows(func(scan func(...any) error) error {
		st := new(state)
		var incarnation []byte
		if err := scan(&st.id, &incarnation, &st.counter, &st.last, &st.acked, &st.held, &st.bytes, &st.hold); err != nil {
			return err
		}
		copy(st.incarnation[:], incarnation)
		b.states[byKey[st.id]] = st
		return nil
	}, `SELECT device, incarnation, counter, last, acked, held, bytes, hold FROM states
		WHERE device = ANY($1) ORDER BY device FOR UPDATE`+mode, keys)
	return nil
}

// readDevices finds the states of devices, in memory or in the database.
func (b *sharedBatch) readDevices(devices func(func(mailbox.Device) bool)) error {
	var unknown [][]byte
	for d := range devices {
		b.states[d] = nil
		if st, ok := b.s.cache.get(d); ok {
			b.states[d] = &st
		} else {
			unknown = append(unknown, d[:])
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	rows, err := b.flow.Query(`SELECT d.device, s.device, s.incarnation, s.counter, s.last, s.acked, s.held, s.bytes, s.hold
		FROM devices d JOIN states s ON s.device = d.id WHERE d.device = ANY($1)`, unknown)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		st := new(state)
		var device, incarnation []byte
		if err := rows.Scan(&device, &st.id, &incarnation, &st.counter, &st.last, &st.acked, &st.held, &st.bytes, &st.hold); err != nil {
			return err
		}
		copy(st.incarnation[:], incarnation)
		b.states[mailbox.Device(device)] = st
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
// against everybody, the others against being stepped. Who is alone reads those that are
// not in memory.
func (b *sharedBatch) lockGroups(groups map[string]bool) error {
	var all [][]byte
	mode := "FOR SHARE"
	if b.s.owner {
		mode = ""
	}
	for id, stepped := range groups {
		if g, ok := b.s.groups[id]; ok {
			b.groups[id] = &g
			continue
		}
		all, b.groups[id] = append(all, []byte(id)), nil
		if stepped && !b.s.owner {
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
	if counter+mailbox.KeptHashes <= from.counter {
		return hash, mailbox.ErrNotFound
	}
	if hash, ok := b.done[from.id].find(counter); ok {
		return hash, nil
	}
	rows, err := b.flow.Query(selectMark, from.id, int64(counter))
	if err != nil {
		return hash, err
	}
	defer rows.Close()
	if !rows.Next() {
		return hash, orNotFound(rows.Err())
	}
	return scanMark(rows, counter)
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

// numbers asks for two.
func (b *sharedBatch) numbers(query string, args ...any) (n, m int64, err error) {
	rows, err := b.flow.Query(query, args...)
	if err != nil {
		return 0, 0, err
	}
	defer rows.Close()
	if !rows.Next() {
		return 0, 0, orNotFound(rows.Err())
	}
	return n, m, rows.Scan(&n, &m)
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
	b.mark(from, sub)
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
	b.keepMembers(g.id, step)
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
	mail := body{m.Kind, g.id, m.Epoch, from.id, sub.Time.UnixMilli(), sub.Counter, m.Payload, sub.Incarnation[:]}
	id := int64(0)
	if len(to) > 1 {
		if id, err = b.putShared(&mail, len(to)); err != nil {
			return err
		}
	}
	for _, d := range to {
		st := b.states[d]
		st.last++
		if len(to) > 1 {
			b.point(st, st.last, id, len(m.Payload))
		} else {
			b.put(st, st.last, &mail)
		}
		if isUrgent(sub, m.Kind) {
			b.urgent.add(st.id, sub.Precedence, st.last)
		}
		outcome.Placed = append(outcome.Placed, mailbox.Placed{Device: d, Number: st.last, Message: i})
	}
	return nil
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
