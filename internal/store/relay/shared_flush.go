// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"maps"
	"slices"

	"valise/gateway/mailbox"
)

// A body is a message as it is stored: in the row of the mailbox that it is for, or when
// it is for several, in one of its own that they point to.
type body struct {
	kind                 mailbox.Kind
	group                int64
	epoch                uint64
	sender, time         int64
	counter              uint64
	payload, incarnation []byte
}

// bodies are the columns of messages.
type bodies struct {
	kind, group, epoch, sender, time, counter []int64
	payload, incarnation                      [][]byte
}

func (c *bodies) add(m *body) {
	c.kind, c.group, c.epoch = append(c.kind, int64(m.kind)), append(c.group, m.group), append(c.epoch, int64(m.epoch))
	c.sender, c.time, c.counter = append(c.sender, m.sender), append(c.time, m.time), append(c.counter, int64(m.counter))
	c.payload, c.incarnation = append(c.payload, full(m.payload)), append(c.incarnation, full(m.incarnation))
}

// output is what a transaction will write, column by column.
type output struct {
	single struct { // messages for one mailbox
		device, number []int64
		bodies
	}
	shared struct { // messages for several
		id, refs []int64
		bodies
	}
	pointers struct{ device, number, message, size []int64 }
}

// put puts a message into the one mailbox that it is for.
func (b *sharedBatch) put(st *state, number uint64, m *body) {
	o := &b.out.single
	o.device, o.number = append(o.device, st.id), append(o.number, int64(number))
	o.add(m)
	b.weigh(st, len(m.payload))
}

// putShared stores a message that several mailboxes will point to.
func (b *sharedBatch) putShared(m *body, refs int) (int64, error) {
	if b.s.block.next == b.s.block.end {
		n, err := b.number(`SELECT nextval('message_blocks')`)
		if err != nil {
			return 0, err
		}
		b.s.block = messageBlock{n * blockSize, (n + 1) * blockSize}
	}
	id := b.s.block.next
	b.s.block.next++
	o := &b.out.shared
	o.id, o.refs = append(o.id, id), append(o.refs, int64(refs))
	o.add(m)
	return id, nil
}

// point puts a pointer to such a message into a mailbox.
func (b *sharedBatch) point(st *state, number uint64, message int64, size int) {
	p := &b.out.pointers
	p.device, p.number = append(p.device, st.id), append(p.number, int64(number))
	p.message, p.size = append(p.message, message), append(p.size, int64(size))
	b.weigh(st, size)
}

// weigh counts what is put into a mailbox.
func (b *sharedBatch) weigh(st *state, size int) {
	st.held++
	st.bytes += int64(size)
	b.changed(st)
}

// flush gives the server everything that was noted; it goes out with the commit.
func (b *sharedBatch) flush() error {
	if m := &b.out.single; len(m.device) > 0 {
		b.flow.Later(`INSERT INTO mailbox (device, number, size, kind, grp, epoch, sender, time, counter, payload, incarnation)
			SELECT u.device, u.number, length(u.payload), u.kind, u.grp, u.epoch, u.sender, u.time, u.counter, u.payload, u.incarnation
			FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bytea[], $10::bytea[])
			AS u(device, number, kind, grp, epoch, sender, time, counter, payload, incarnation)`,
			m.device, m.number, m.kind, m.group, m.epoch, m.sender, m.time, m.counter, m.payload, m.incarnation)
	}
	if m := &b.out.shared; len(m.id) > 0 {
		b.flow.Later(`INSERT INTO messages (id, kind, grp, epoch, sender, time, refs, counter, payload, incarnation)
			SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bytea[], $10::bytea[])`,
			m.id, m.kind, m.group, m.epoch, m.sender, m.time, m.refs, m.counter, m.payload, m.incarnation)
		b.flow.Later(`INSERT INTO refs (message, n) SELECT * FROM unnest($1::bigint[], $2::bigint[])`, m.id, m.refs)
	}
	if p := &b.out.pointers; len(p.device) > 0 {
		b.flow.Later(`INSERT INTO mailbox (device, number, message, size) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])`,
			p.device, p.number, p.message, p.size)
	}
	b.urgent.flush(b.flow)
	b.flushMarks()
	b.flushStates()
	return nil
}

const (
	saveStates = `UPDATE states s SET incarnation = u.incarnation, counter = u.counter, last = u.last, acked = u.acked, held = u.held, bytes = u.bytes, hold = u.hold
		FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
		AS u(device, incarnation, counter, last, acked, held, bytes, hold) WHERE s.device = u.device`
	// dropAndSave also drops mail, and takes it from what is held.
	dropAndSave = `WITH ` + dropping + `
		UPDATE states s SET incarnation = u.incarnation, counter = u.counter, last = u.last, acked = u.acked,
			held = u.held - coalesce(f.n, 0), bytes = u.bytes - coalesce(f.size, 0), hold = u.hold
		FROM unnest($4::bigint[], $5::bytea[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
		AS u(device, incarnation, counter, last, acked, held, bytes, hold) LEFT JOIN freed f ON f.device = u.device
		WHERE s.device = u.device RETURNING s.device, s.held, s.bytes`
)

// flushStates writes the states that changed, in the order of their keys, and drops what
// was acknowledged.
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
	if len(b.freed) == 0 {
		b.flow.Later(saveStates, devices, incarnations, counters, lasts, acked, held, size, holds)
		return
	}
	owners, afters, upTos := columns(b.freed)
	b.flow.LaterRows(func(scan func(...any) error) error {
		var id, held, size int64
		if err := scan(&id, &held, &size); err != nil {
			return err
		}
		b.dirty[id].held, b.dirty[id].bytes = held, size
		return nil
	}, dropAndSave, owners, afters, upTos, devices, incarnations, counters, lasts, acked, held, size, holds)
}

// incarnationOf is how a state's incarnation is stored: one that never was is empty.
func incarnationOf(st *state) []byte {
	if st.incarnation == [16]byte{} {
		return []byte{}
	}
	return bytes.Clone(st.incarnation[:])
}
