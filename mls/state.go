// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// stateVersion is the first byte of every record that has a layout of its own.
// Another layout gets another number, and readers of both.
const stateVersion = 1

// A Record is one piece of a group's state. Values of a Group hold secrets.
//
//	epoch         context, secrets, own leaf
//	n/NODE        a node of the ratchet tree
//	k/NODE        a private key of this member
//	m/EPOCH/s/N   a node of an epoch's secret tree
//	m/EPOCH/a/L   a leaf's ratchet for content
//	m/EPOCH/h/L   a leaf's ratchet for handshakes
//	p/EPOCH       what is kept of a past epoch
//	q/N           a proposal received in this epoch
//	u/N           the private key of an own Update
type Record struct {
	Key   string // at most 48 characters of a-z, 0-9 and "/"
	Value []byte // nil means: delete
}

// A Delta is a list of records to write or delete in order, in one
// transaction.
type Delta []Record

// Marshal encodes a Delta, for a caller that keeps one as a whole (a pending
// commit's, for example).
func (d Delta) Marshal() []byte {
	return appendVector([]byte{stateVersion}, d, func(b []byte, r Record) []byte {
		b = appendOptional(appendOpaque(b, []byte(r.Key)), r.Value != nil)
		if r.Value != nil {
			b = appendOpaque(b, r.Value)
		}
		return b
	})
}

// ParseDelta decodes what Marshal wrote.
func ParseDelta(data []byte) (Delta, error) {
	return decode(data, func(r *reader) Delta {
		if r.u8() != stateVersion {
			r.fail()
		}
		return readVector(r, func(r *reader) Record {
			rec := Record{Key: string(r.opaque())}
			if r.optional() {
				if rec.Value = r.opaque(); rec.Value == nil {
					rec.Value = []byte{}
				}
			}
			return rec
		})
	})
}

// Merge returns the full state that results when d is written over base.
func (d Delta) Merge(base Delta) Delta {
	all := map[string][]byte{}
	for _, r := range append(slices.Clone(base), d...) {
		if r.Value == nil {
			delete(all, r.Key)
		} else {
			all[r.Key] = r.Value
		}
	}
	var out Delta
	for _, k := range slices.Sorted(maps.Keys(all)) {
		out = append(out, Record{k, all[k]})
	}
	return out
}

// flush puts leftovers before a change's own records.
func (g *Group) flush(d Delta) Delta {
	out := append(g.garbage, d...)
	g.garbage = nil
	return out
}

// State returns all records of the group, by key. What is in the caller's store beside
// them is obsolete.
func (g *Group) State() Delta {
	if g.removed {
		return nil
	}
	d := Delta{{"epoch", g.epochState.marshal()}}
	d = append(d, g.tree.records(nil)...)
	for _, x := range slices.Sorted(maps.Keys(g.privs)) {
		d = append(d, Record{privKeyOf(x), g.privs[x].bytes})
	}
	d = append(d, g.keys.state()...)
	for _, p := range g.past {
		d = append(d, Record{p.key(), p.marshal()})
		if p.readable {
			d = append(d, p.keys.state()...)
		}
	}
	for _, q := range g.proposals {
		d = append(d, Record{q.key, q.marshal(g.ctx.epoch)})
	}
	for _, u := range g.updates {
		d = append(d, Record{u.key, u.marshal(g.ctx.epoch)})
	}
	return d.Merge(nil)
}

// diff lists the records that change when g becomes s.next.
func (g *Group) diff(s *Staged) Delta {
	next := s.next
	d := Delta{{"epoch", next.epochState.marshal()}}
	d = append(d, next.tree.records(g.tree)...)
	for _, x := range slices.Sorted(maps.Keys(g.privs)) {
		if next.privs[x] == nil {
			d = append(d, Record{privKeyOf(x), nil})
		}
	}
	for _, x := range slices.Sorted(maps.Keys(next.privs)) {
		if next.privs[x] != g.privs[x] {
			d = append(d, Record{privKeyOf(x), next.privs[x].bytes})
		}
	}
	d = append(d, next.keys.state()...)
	if s.spend != nil { // its handshake ratchet ends with the epoch
		spent := s.spend.records()
		spent[len(spent)-1].Value = nil
		d = append(d, spent...)
	}
	for _, p := range next.past {
		if i := slices.IndexFunc(g.past, func(o *pastEpoch) bool { return o == p }); i < 0 {
			d = append(d, Record{p.key(), p.marshal()})
		}
	}
	for _, key := range g.obsolete(next) {
		d = append(d, Record{key, nil})
	}
	return d
}

// obsolete lists keys of g's records that next does not have, beside those of
// trees and private keys.
func (g *Group) obsolete(next *Group) []string {
	var keys []string
	for _, q := range g.proposals {
		keys = append(keys, q.key)
	}
	for _, u := range g.updates {
		keys = append(keys, u.key)
	}
	for id := range g.keys.ratchets {
		if id.handshake {
			keys = append(keys, g.keys.ratchetKey(id))
		}
	}
	all := append([]*pastEpoch{{epoch: g.ctx.epoch, keys: g.keys, readable: true}}, g.past...)
	for _, p := range all {
		i := slices.IndexFunc(next.past, func(o *pastEpoch) bool { return o.epoch == p.epoch })
		if i < 0 {
			keys = append(keys, p.key())
		}
		if p.readable && (i < 0 || !next.past[i].readable) {
			for _, r := range p.keys.state() {
				keys = append(keys, r.Key)
			}
		}
	}
	return keys
}

func privKeyOf(x nodeIndex) string { return fmt.Sprintf("k/%d", x) }

// records lists a tree's nodes, or only those that differ from another tree.
func (t *tree) records(than *tree) Delta {
	var d Delta
	width := len(t.nodes)
	if than != nil {
		width = max(width, len(than.nodes))
	}
	for i := range width {
		var now, was *node
		if i < len(t.nodes) {
			now = t.nodes[i]
		}
		if than != nil && i < len(than.nodes) {
			was = than.nodes[i]
		}
		if now == was {
			continue
		}
		r := Record{Key: "n/" + strconv.Itoa(i)}
		if now != nil {
			r.Value = now.append(make([]byte, 0, now.room()))
		}
		d = append(d, r)
	}
	return d
}

// state lists the records of an epoch's message keys.
func (t *secretTree) state() Delta {
	var d Delta
	for _, x := range slices.Sorted(maps.Keys(t.nodes)) {
		d = append(d, Record{t.nodeKey(x), t.nodes[x]})
	}
	for id, r := range t.ratchets {
		d = append(d, Record{t.ratchetKey(id), r.marshal()})
	}
	slices.SortFunc(d, func(a, b Record) int { return strings.Compare(a.Key, b.Key) })
	return d
}

func (p *pastEpoch) key() string { return fmt.Sprintf("p/%d", p.epoch) }
