// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"fmt"
	"maps"
	"slices"
)

// A secretTree holds an epoch's message keys, RFC 9420, Section 9. What was
// used is deleted: a node's secret once its children are derived, a ratchet's
// secret once it has moved on, a key once it has opened a message.
type secretTree struct {
	suite    *suiteParams
	epoch    uint64
	leaves   uint32 // of the full tree
	nodes    map[nodeIndex][]byte
	ratchets map[ratchetID]*ratchet
	over     bool // the epoch has ended: only content is still read
}

// A ratchetID names one of a leaf's two ratchets, RFC 9420, Section 9.
type ratchetID struct {
	leaf      LeafIndex
	handshake bool
}

func ratchetFor(l LeafIndex, t ContentType) ratchetID {
	return ratchetID{l, t != ContentApplication}
}

// A ratchet is the sender ratchet of RFC 9420, Section 9.1.
type ratchet struct {
	secret []byte
	next   uint32
	kept   map[uint32]messageKey // skipped
	spent  bool                  // the last generation was used
}

type messageKey struct{ key, nonce []byte }

func newSecretTree(s *suiteParams, epoch uint64, leaves uint32, encryptionSecret []byte) *secretTree {
	return &secretTree{
		s, epoch, leaves,
		map[nodeIndex][]byte{rootOf(leaves): encryptionSecret},
		map[ratchetID]*ratchet{},
		false,
	}
}

// A use is one key of the tree, taken but not yet deleted: a message that does
// not open consumes nothing.
type use struct {
	tree       *secretTree
	id         ratchetID
	generation uint32
	messageKey
	ratchet *ratchet             // as it will be
	sibling *ratchet             // the leaf's other ratchet, if new
	nodes   map[nodeIndex][]byte // new node secrets
	spent   []nodeIndex          // node secrets to be deleted
}

// take derives the key of a generation, RFC 9420, Section 9.1, without
// changing the tree.
func (t *secretTree) take(id ratchetID, generation uint32) (*use, error) {
	u := &use{tree: t, id: id, generation: generation}
	r := t.ratchets[id]
	if r == nil {
		if r = t.derive(u); r == nil {
			return nil, ErrUsedKey
		}
	}
	if k, ok := r.kept[generation]; ok {
		next := *r
		next.kept = maps.Clone(r.kept)
		delete(next.kept, generation)
		u.messageKey, u.ratchet = k, &next
		return u, nil
	}
	if generation < r.next || r.spent {
		return nil, ErrUsedKey
	}
	if generation-r.next > maxSkip {
		return nil, fmt.Errorf("%w: %d after %d", ErrTooFarAhead, generation, r.next)
	}
	u.ratchet = &ratchet{r.secret, r.next, maps.Clone(r.kept), false}
	u.advance(generation)
	return u, nil
}

// advance moves the ratchet to a generation and keeps what it skips.
func (u *use) advance(generation uint32) {
	r, s := u.ratchet, u.tree.suite
	for {
		k := messageKey{
			s.deriveTreeSecret(r.secret, "key", r.next, s.nk),
			s.deriveTreeSecret(r.secret, "nonce", r.next, nonceSize),
		}
		r.secret = s.deriveTreeSecret(r.secret, "secret", r.next, s.nh())
		g := r.next
		if r.next++; r.next == 0 {
			r.secret, r.spent = nil, true
		}
		if g == generation {
			u.messageKey = k
			break
		}
		if r.kept == nil {
			r.kept = map[uint32]messageKey{}
		}
		r.kept[g] = k
	}
	if over := len(r.kept) - maxKept; over > 0 {
		for _, g := range slices.Sorted(maps.Keys(r.kept))[:over] {
			delete(r.kept, g)
		}
	}
}

// derive makes a leaf's two ratchets from the lowest node secret above it.
func (t *secretTree) derive(u *use) *ratchet {
	if uint32(u.id.leaf) >= t.leaves {
		return nil
	}
	x, leaf := u.id.leaf.node(), u.id.leaf.node()
	for t.nodes[x] == nil {
		if x == rootOf(t.leaves) {
			return nil
		}
		x = x.parent()
	}
	secret := t.nodes[x]
	u.nodes = map[nodeIndex][]byte{}
	u.spent = append(u.spent, x)
	for x != leaf {
		l, r := t.suite.expandWithLabel(secret, "tree", []byte("left"), t.suite.nh()),
			t.suite.expandWithLabel(secret, "tree", []byte("right"), t.suite.nh())
		if leaf < x {
			u.nodes[x.right()] = r
			x, secret = x.left(), l
		} else {
			u.nodes[x.left()] = l
			x, secret = x.right(), r
		}
	}
	hs := &ratchet{secret: t.suite.deriveSecret(secret, "handshake")}
	app := &ratchet{secret: t.suite.deriveSecret(secret, "application")}
	if u.id.handshake {
		u.sibling = app
		return hs
	}
	if !t.over {
		u.sibling = hs
	}
	return app
}

// records are those that change when the key is consumed.
func (u *use) records() Delta {
	t := u.tree
	var d Delta
	for _, x := range u.spent {
		if u.nodes[x] == nil {
			d = append(d, Record{t.nodeKey(x), nil})
		}
	}
	for _, x := range slices.Sorted(maps.Keys(u.nodes)) {
		d = append(d, Record{t.nodeKey(x), u.nodes[x]})
	}
	if u.sibling != nil {
		d = append(d, Record{t.ratchetKey(u.id.other()), u.sibling.marshal()})
	}
	return append(d, Record{t.ratchetKey(u.id), u.ratchet.marshal()})
}

// consume deletes what was used, RFC 9420, Section 9.2, and returns the
// records that changed.
func (u *use) consume() Delta {
	t := u.tree
	for _, x := range u.spent {
		delete(t.nodes, x)
	}
	maps.Copy(t.nodes, u.nodes)
	if u.sibling != nil {
		t.ratchets[u.id.other()] = u.sibling
	}
	t.ratchets[u.id] = u.ratchet
	return u.records()
}

func (id ratchetID) other() ratchetID { return ratchetID{id.leaf, !id.handshake} }

// takeNext takes the next key of an own ratchet, for sending.
func (t *secretTree) takeNext(id ratchetID) (*use, error) {
	var g uint32
	if r := t.ratchets[id]; r != nil {
		g = r.next
	}
	return t.take(id, g)
}

func (t *secretTree) nodeKey(x nodeIndex) string { return fmt.Sprintf("m/%d/s/%d", t.epoch, x) }

func (t *secretTree) ratchetKey(id ratchetID) string {
	if id.handshake {
		return fmt.Sprintf("m/%d/h/%d", t.epoch, id.leaf)
	}
	return fmt.Sprintf("m/%d/a/%d", t.epoch, id.leaf)
}

// marshal encodes a ratchet for the state.
func (r *ratchet) marshal() []byte {
	b := appendU32(appendOpaque(nil, r.secret), r.next)
	b = appendOptional(b, r.spent)
	return appendVector(b, slices.Sorted(maps.Keys(r.kept)), func(b []byte, g uint32) []byte {
		k := r.kept[g]
		return appendOpaque(appendOpaque(appendU32(b, g), k.key), k.nonce)
	})
}

func readRatchet(r *reader) *ratchet {
	out := &ratchet{secret: r.opaque(), next: r.u32(), spent: r.optional()}
	readVector(r, func(r *reader) struct{} {
		g := r.u32()
		if out.kept == nil {
			out.kept = map[uint32]messageKey{}
		}
		out.kept[g] = messageKey{r.opaque(), r.opaque()}
		return struct{}{}
	})
	return out
}
