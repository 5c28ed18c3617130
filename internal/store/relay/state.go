// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// state is a device's row in states, with the device's surrogate key.
type state struct {
	id          int64
	incarnation [16]byte
	counter     uint64
	last, acked uint64
	held, bytes int64
	hold        mailbox.Hold // written by lay alone

	load load // of the submission that is being judged
}

// maxCached bounds the states in memory, about 150 bytes each.
const maxCached = 200_000

// cache holds states as of the last committed transaction.
type cache struct {
	mu     sync.Mutex
	states map[mailbox.Device]state // guarded by mu
}

func newCache() cache { return cache{states: make(map[mailbox.Device]state)} }

func (c *cache) get(d mailbox.Device) (state, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.states[d]
	return s, ok
}

func (c *cache) put(changed map[mailbox.Device]*state) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.states)+len(changed) > maxCached {
		clear(c.states)
	}
	for d, s := range changed {
		c.states[d] = *s
	}
}

func (c *cache) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.states)
}

// batch is the work of one transaction: each device's row is read once, changed
// in memory, and written once, in the order of its key.
type batch struct {
	ctx    context.Context
	tx     *store.Tx
	s      *Store
	states map[mailbox.Device]*state
	dirty  map[int64]*state
	groups map[string]*groupRow
}

type groupRow struct {
	id    int64
	epoch uint64
}

func (s *Store) newBatch(ctx context.Context, tx *store.Tx) *batch {
	return &batch{
		ctx: ctx, tx: tx, s: s, states: make(map[mailbox.Device]*state),
		dirty: make(map[int64]*state), groups: make(map[string]*groupRow),
	}
}

// state returns a device's row, or nil for a device that never arrived.
func (b *batch) state(d mailbox.Device) (*state, error) {
	if st, ok := b.states[d]; ok {
		return st, nil
	}
	if st, ok := b.s.cache.get(d); ok {
		b.states[d] = &st
		return &st, nil
	}
	st, err := scanState(b.tx.StmtContext(b.ctx, b.s.q.state).QueryRowContext(b.ctx, d[:]))
	if err != nil {
		return nil, err
	}
	b.states[d] = st
	return st, nil
}

const stateQuery = `SELECT d.id, s.incarnation, s.counter, s.last, s.acked, s.held, s.bytes, s.hold FROM devices d JOIN states s ON s.device = d.id WHERE d.device = $1`

// scanState reads what stateQuery finds: a device's state, or nil.
func scanState(row *sql.Row) (*state, error) {
	st := new(state)
	var incarnation []byte
	err := row.Scan(&st.id, &incarnation, &st.counter, &st.last, &st.acked, &st.held, &st.bytes, &st.hold)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	copy(st.incarnation[:], incarnation)
	return st, err
}

func (b *batch) changed(st *state) { b.dirty[st.id] = st }

// save writes the rows that changed, in the order of their keys, so that two
// writers of a shared database can never wait for each other in a circle.
func (b *batch) save() error {
	ids := make([]int64, 0, len(b.dirty))
	for id := range b.dirty {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	stmt := b.tx.StmtContext(b.ctx, b.s.q.saveState)
	for _, id := range ids {
		st := b.dirty[id]
		_, err := stmt.ExecContext(b.ctx, st.incarnation[:], int64(st.counter), int64(st.last), int64(st.acked), st.held, st.bytes, id)
		if err != nil {
			return err
		}
	}
	return nil
}

// remember replaces what is in memory after the transaction has been synced.
func (b *batch) remember() {
	for d, st := range b.states {
		if st == nil {
			delete(b.states, d)
		}
	}
	b.s.cache.put(b.states)
}

// group returns a group's row, or nil if there is none.
func (b *batch) group(id []byte) (*groupRow, error) {
	if g, ok := b.groups[string(id)]; ok {
		return g, nil
	}
	g := new(groupRow)
	err := b.tx.StmtContext(b.ctx, b.s.q.group).QueryRowContext(b.ctx, id).Scan(&g.id, &g.epoch)
	if errors.Is(err, sql.ErrNoRows) {
		g, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	b.groups[string(id)] = g
	return g, nil
}
