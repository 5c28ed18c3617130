// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"maps"
	"slices"
	"sync"

	"valise/client/vault"
)

// A change is one transaction of the engine: what it writes to the vault, and what
// the engine takes over into memory once that is on disk.
type change struct {
	*vault.Tx
	engine        *Engine
	meta          meta
	conversations map[ConversationID]*conversation // changed ones
	slot          *slot
	slotChanged   bool
	queued        []*intent           // new ones
	finished      map[uint64]error    // intents that are over
	healings      map[string]*healing // changed ones; nil forgets
}

// update runs f in a durable transaction. e.mu is held. f may run more than once
// and must have no effect but on c.
func (e *Engine) update(f func(c *change) error) error {
	var done *change
	// A caller who goes away must not undo half of a step.
	err := e.cfg.Vault.Update(context.Background(), func(tx *vault.Tx) error {
		c := &change{Tx: tx, engine: e, meta: e.meta.clone(), conversations: map[ConversationID]*conversation{}, finished: map[uint64]error{}, healings: map[string]*healing{}}
		if err := f(c); err != nil {
			return err
		}
		done = c
		c.meta.Copies = beyond(c.meta.Copies, c.meta.Cursor)
		return putJSON(tx, tableMeta, nil, []byte("meta"), c.meta)
	})
	if err != nil {
		return err
	}
	e.meta = done.meta
	if done.slotChanged {
		e.slot = done.slot
	}
	for id, conv := range done.conversations {
		e.take(id, conv)
	}
	for group, h := range done.healings {
		if h == nil {
			delete(e.healings, group)
			continue
		}
		e.healings[group] = h
	}
	for _, in := range done.queued {
		e.backlog.add(in)
	}
	for number, err := range done.finished {
		e.backlog.remove(number)
		e.finish(number, err)
	}
	e.bell.ring()
	return nil
}

// take installs a changed conversation; nil removes it.
func (e *Engine) take(id ConversationID, conv *conversation) {
	if old := e.conversations[id]; old != nil && e.byGroup[string(old.Group)] == id {
		delete(e.byGroup, string(old.Group))
	}
	if conv == nil {
		delete(e.conversations, id)
		return
	}
	e.conversations[id] = conv
	if len(conv.Group) > 0 {
		e.byGroup[string(conv.Group)] = id
	}
}

// edit returns a copy of a conversation to change; put writes it.
func (c *conversation) edit() *conversation {
	copied := *c
	copied.Former = slices.Clone(c.Former)
	return &copied
}

func (c *change) put(conv *conversation) error {
	c.conversations[conv.ID] = conv
	return putJSON(c.Tx, tableConversation, nil, conv.ID[:], conv)
}

func (c *change) drop(conv *conversation) error {
	c.conversations[conv.ID] = nil
	return c.Delete(tableConversation, nil, conv.ID[:])
}

func (c *change) fillSlot(s *slot) error {
	c.meta.Counter++
	s.Counter = c.meta.Counter
	return c.keepSlot(s)
}

func (c *change) keepSlot(s *slot) error {
	c.slot, c.slotChanged = s, true
	return putJSON(c.Tx, tableSlot, nil, []byte("slot"), s)
}

// emptySlot ends the submission. One that was refused was not counted: its number is
// free for other bytes (spec/wire.md, Section 5.1).
func (c *change) emptySlot(refused bool) error {
	if refused {
		c.meta.Counter--
	}
	c.slot, c.slotChanged = nil, true
	return c.Delete(tableSlot, nil, []byte("slot"))
}

func (c *change) queue(in *intent) error {
	c.meta.Intents++
	in.Number = c.meta.Intents
	c.queued = append(c.queued, in)
	return c.keepIntent(in)
}

func (c *change) keepIntent(in *intent) error {
	return putJSON(c.Tx, tableIntent, nil, vault.Numbered(in.Number), in)
}

// end closes an intent with its outcome, nil for success.
func (c *change) end(number uint64, err error) error {
	if number == 0 {
		return nil
	}
	c.finished[number] = err
	return c.Delete(tableIntent, nil, vault.Numbered(number))
}

func (c *change) peer(conv ConversationID, device [32]byte) (*peer, error) {
	p, err := getJSON[peer](c.Tx, tablePeer, conv[:], device[:])
	if p == nil {
		p = &peer{Fresh: true}
	}
	if p.Missing == nil {
		p.Missing = map[uint64]int{}
	}
	return p, err
}

func (c *change) putPeer(conv ConversationID, device [32]byte, p *peer) error {
	return putJSON(c.Tx, tablePeer, conv[:], device[:], p)
}

// missing lists what is asked for again, lowest first.
func (p *peer) missing() []uint64 { return slices.Sorted(maps.Keys(p.Missing)) }

// A bell wakes everybody who waits for news.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
