// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"
	"sort"

	"valise/client/vault"
	"valise/mls"
	"valise/wire"
)

// A device with a backlog is sent urgent messages ahead of it, and again in their places
// (spec/wire.md, Section 4.10). It takes such a copy if nothing of the same sender in the
// same conversation can be missing in front of it and the group stands where it was
// written, with a note of its number in the same transaction. The number itself,
// when the drain comes to it, only ends the note. A copy that cannot be taken is passed over
// without a word: whatever is wrong with it is found out in its place. So a gateway that
// sends copies as it likes changes the order of conversations, and nothing else.

// A copied delivery was taken ahead.
type copied struct {
	Number uint64 `json:"number"`
	Hash   []byte `json:"hash"` // of what counts in it
}

// beyond leaves out the copies whose places are behind the cursor.
func beyond(list []copied, cursor uint64) []copied {
	n := sort.Search(len(list), func(i int) bool { return list[i].Number > cursor })
	if n == len(list) {
		return nil
	}
	return list[n:]
}

// gist is the hash of what counts in a delivery, as a copy or in its place: all but when
// the gateway took it.
func gist(d *wire.Deliver) []byte {
	same := *d
	same.Kind, same.Time = wire.DeliverContent, 0
	b, err := wire.Marshal(&same)
	if err != nil {
		return nil
	}
	h := sha256.Sum256(b)
	return h[:]
}

// resume asks for deliveries, and says what of them was taken ahead.
func (e *Engine) resume(hello *wire.Hello) *wire.Resume {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := &wire.Resume{Cursor: hello.Cursor, Ahead: true}
	for _, c := range beyond(e.meta.Copies, hello.Cursor) {
		r.Taken = append(r.Taken, c.Number)
	}
	return r
}

// place finds a number among the copies.
func (e *Engine) place(number uint64) (i int, found bool) {
	return slices.BinarySearchFunc(e.meta.Copies, number, func(c copied, n uint64) int {
		switch {
		case c.Number < n:
			return -1
		case c.Number > n:
			return 1
		}
		return 0
	})
}

// taken says whether a delivery was taken ahead. Other bytes under its number are another
// delivery.
func (e *Engine) taken(d *wire.Deliver) bool {
	i, found := e.place(d.Number)
	return found && d.Kind == wire.DeliverContent && bytes.Equal(e.meta.Copies[i].Hash, gist(d))
}

// copiesUpTo counts the copies with numbers from one to another.
func (e *Engine) copiesUpTo(first, last uint64) (n uint64) {
	for _, c := range e.meta.Copies {
		if c.Number >= first && c.Number <= last {
			n++
		}
	}
	return n
}

// ahead takes a copy, if it can be taken now.
func (e *Engine) ahead(ctx context.Context, l *link, d *wire.Deliver) error {
	h := claimed(d)
	if h == nil || h.Precedence < wire.Immediate {
		return nil
	}
	conv, g, err := e.ready(d, h)
	if conv == nil || err != nil {
		return err
	}
	if released, err := e.enlighten(ctx, l, d); err != nil {
		return err
	} else if released {
		return e.ahead(ctx, l, d) // much may have changed meanwhile
	}
	m, r := e.open(d, conv, g)
	if m == nil {
		e.forget(conv.Group) // what is on disk has used no key
		return nil
	}
	e.agrees(conv.Group, m.from.Device)
	err = e.update(func(c *change) error {
		at, _ := e.place(d.Number)
		c.meta.Copies = slices.Insert(c.meta.Copies, at, copied{d.Number, gist(d)})
		if err := putDelta(c.Tx, conv.Group, r.Delta); err != nil {
			return err
		}
		if err := e.counted(c, conv.Group, g.Epoch()); err != nil {
			return err
		}
		return e.accept(c, conv, m)
	})
	if err != nil {
		e.forget(conv.Group)
	}
	return stopped(err)
}

// ready finds the conversation of a copy that can be taken, as far as can be told before
// it is opened: there is room for a note, the group is at the copy's epoch, and the copy is
// the next message of its sender. nil: it cannot.
func (e *Engine) ready(d *wire.Deliver, h *wire.Header) (*conversation, *mls.Group, error) {
	if _, noted := e.place(d.Number); noted || len(e.meta.Copies) >= wire.MaxAhead {
		return nil, nil, nil
	}
	conv := e.conversations[e.byGroup[string(d.Group)]]
	if conv == nil || conv.State != stateActive || !bytes.Equal(conv.Group, d.Group) {
		return nil, nil, nil
	}
	g, err := e.group(conv.Group)
	if err != nil {
		return nil, nil, stopped(err)
	}
	if next, err := e.isNext(conv, d.Sender, h.Sequence); err != nil || !next || d.Epoch != g.Epoch() {
		return nil, nil, err
	}
	return conv, g, nil
}

// isNext says whether a sequence number of a sender follows the last one.
func (e *Engine) isNext(conv *conversation, sender [32]byte, n uint64) (next bool, err error) {
	var p *peer
	err = e.cfg.Vault.View(context.Background(), func(tx *vault.Tx) (err error) {
		p, err = getJSON[peer](tx, tablePeer, conv.ID[:], sender[:])
		return err
	})
	if err != nil {
		return false, stopped(err)
	}
	if p == nil || p.Fresh {
		return n == 1, nil
	}
	return n == p.Last+1, nil
}

// open opens a copy and judges it as any delivery; nil if there is anything against it.
func (e *Engine) open(d *wire.Deliver, conv *conversation, g *mls.Group) (*arrival, *mls.Received) {
	r, err := g.Receive(d.Payload, e.now())
	if err != nil || r.Kind != mls.ContentApplication {
		return nil, nil
	}
	from, err := e.member(r.Sender)
	if err != nil {
		return nil, nil
	}
	m := &arrival{from: from, delivery: d, members: len(g.Members())}
	if _, err := m.check(r, d); err != nil {
		return nil, nil
	}
	if m.content.MediaType == wire.MediaResend || m.content.MediaType == mediaSuccessor {
		return nil, nil // between devices: nobody waits for it
	}
	if _, err := e.judge(m, r.Sender.Credential); err != nil {
		return nil, nil
	}
	if changed, err := e.altered(conv, m); err != nil || changed {
		return nil, nil
	}
	return m, r
}
