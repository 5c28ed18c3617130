// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"fmt"
	"maps"
	"slices"
)

// staged describes the step from g to next, with the records that differ.
func (g *Group) staged(st *stagedPublic, next *Group, spend *use) *Staged {
	s := &Staged{Change: st.change(g.publicState), next: next, spend: spend}
	if g.secrets == nil { // an external joiner comes from nowhere
		s.Delta = next.State()
		return s
	}
	s.from = g.epochState
	next.counter = g.counter
	next.past = g.retire(next)
	s.Delta = g.diff(s)
	return s
}

// Apply moves the group to the state after a commit. The caller has persisted
// the Delta before.
func (g *Group) Apply(s *Staged) error {
	if s.from == nil || s.from != g.epochState {
		return ErrStale
	}
	if s.SelfGone {
		g.removed = true
		g.keys, g.past, g.proposals, g.updates = nil, nil, nil, nil
		return nil
	}
	// Records that appeared since the commit was staged are not in its Delta:
	// they go with the next one.
	if s.spend != nil {
		s.spend.consume()
	}
	written := map[string]bool{}
	for _, r := range s.Delta {
		written[r.Key] = true
	}
	next := s.next
	next.counter = g.counter
	for _, key := range g.obsolete(next) {
		if !written[key] {
			next.garbage = append(next.garbage, Record{Key: key})
		}
	}
	next.garbage = append(g.garbage, next.garbage...)
	g.keys.end()
	*g = *next
	return nil
}

// retire turns the present epoch into the newest past one of next, and drops
// what is too old.
func (g *Group) retire(next *Group) []*pastEpoch {
	now := &pastEpoch{
		epoch: g.ctx.epoch, context: g.context, senderData: g.secrets.senderData,
		keys: g.keys, leaves: changedLeaves(g.tree, next.tree), resumption: g.secrets.resumption, readable: true,
	}
	past := []*pastEpoch{now}
	for _, p := range g.past {
		if len(past) < keptResumption {
			past = append(past, p)
		}
	}
	keep := g.cfg.pastEpochs()
	for i, p := range past {
		if i >= keep && p.readable {
			past[i] = &pastEpoch{epoch: p.epoch, resumption: p.resumption}
		}
	}
	if len(past) > max(keep, keptResumption) {
		past = past[:max(keep, keptResumption)]
	}
	return past
}

// changedLeaves lists the old leaves that the new tree does not have.
func changedLeaves(old, new *tree) map[LeafIndex]*LeafNode {
	out := map[LeafIndex]*LeafNode{}
	for x := nodeIndex(0); int(x) < max(len(old.nodes), len(new.nodes)); x += 2 {
		if old.has(x) && new.has(x) && old.nodes[x] == new.nodes[x] {
			continue
		}
		if a := old.leaf(x.leaf()); a != new.leaf(x.leaf()) {
			out[x.leaf()] = a
		}
	}
	return out
}

// end deletes the keys of handshake messages: none is read once the epoch is
// over.
func (t *secretTree) end() {
	t.over = true
	maps.DeleteFunc(t.ratchets, func(id ratchetID, _ *ratchet) bool { return id.handshake })
}

// receiveLate opens content of an epoch that is over, RFC 9420, Section 15.3.
func (g *Group) receiveLate(m *privateMessage) (*Received, error) {
	i := slices.IndexFunc(g.past, func(p *pastEpoch) bool { return p.epoch == m.epoch && p.readable })
	if i < 0 {
		return nil, ErrPastEpoch
	}
	p := g.past[i]
	d, err := m.openSenderData(g.suite, p.senderData)
	if err != nil {
		return nil, err
	}
	leaf := g.leafAt(i, d.leaf)
	if leaf == nil {
		return nil, fmt.Errorf("%w: leaf %d was no member", ErrDecrypt, d.leaf)
	}
	if d.leaf == g.own {
		return nil, ErrOwnMessage
	}
	ac, u, err := m.open(g.suite, d, p.keys)
	if err != nil {
		return nil, err
	}
	if err := ac.verify(g.suite, leaf.SignatureKey, p.context); err != nil {
		return nil, err
	}
	return g.content(ac, leaf.member(d.leaf), u), nil
}

// leafAt is a leaf as it was in the i-th past epoch.
func (g *Group) leafAt(i int, l LeafIndex) *LeafNode {
	for ; i >= 0; i-- {
		if leaf, ok := g.past[i].leaves[l]; ok {
			return leaf
		}
	}
	return g.tree.leaf(l)
}

// selectPending picks the received proposals that this member may commit
// together with its own, RFC 9420, Section 12.2: a Remove comes before an
// Update, a later proposal before an earlier one, anything before a ReInit.
func (g *Group) selectPending(own []Proposal) []sentProposal {
	type slot struct {
		t ProposalType
		k string
	}
	slotOf := func(p *Proposal, from sender) slot {
		switch p.Type {
		case ProposalAdd:
			return slot{p.Type, string(p.Add.Leaf.SignatureKey)}
		case ProposalUpdate:
			return slot{ProposalRemove, fmt.Sprint(from.index)}
		case ProposalRemove:
			return slot{p.Type, fmt.Sprint(uint32(p.Remove))}
		case ProposalPSK:
			return slot{p.Type, string(p.PSK.append(nil))}
		}
		return slot{t: p.Type}
	}
	me := sender{senderMember, uint32(g.own)}
	taken := map[slot]bool{{ProposalRemove, fmt.Sprint(uint32(g.own))}: true}
	for i := range own {
		if own[i].complete() {
			taken[slotOf(&own[i], me)] = true
		}
	}
	var picked []sentProposal
	pick := func(want func(sentProposal) bool) {
		for _, sp := range slices.Backward(g.proposals) {
			if k := slotOf(sp.Proposal, sp.from); want(sp) && !taken[k] {
				taken[k] = true
				picked = append(picked, sp)
			}
		}
	}
	pick(func(sp sentProposal) bool { return sp.Type != ProposalUpdate && sp.Type != ProposalReInit })
	pick(func(sp sentProposal) bool { return sp.Type == ProposalUpdate })
	if len(own) == 0 && len(picked) == 0 {
		pick(func(sp sentProposal) bool { return sp.Type == ProposalReInit })
	}
	slices.Reverse(picked)
	return picked
}

// wipe deletes all records of the group.
func (g *Group) wipe() Delta {
	d := slices.Clone(g.garbage)
	for _, r := range g.State() {
		d = append(d, Record{Key: r.Key})
	}
	return d
}
