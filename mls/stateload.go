// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// marshal encodes the public part of an epoch without its tree.
func (ps *publicState) marshal(b []byte) []byte {
	b = appendOpaque(b, ps.context)
	b = appendOpaque(b, ps.confirmationTag)
	return appendU32(b, ps.tree.width())
}

func (e *epochState) marshal() []byte {
	b := e.publicState.marshal([]byte{stateVersion})
	b = appendU32(b, uint32(e.own))
	for _, s := range e.secrets.all() {
		b = appendOpaque(b, *s)
	}
	if b = appendOptional(b, e.closed != nil); e.closed != nil {
		b = e.closed.append(b)
	}
	return b
}

// all lists the secrets in the order of the encoding.
func (e *epochSecrets) all() []*[]byte {
	return []*[]byte{
		&e.initSecret, &e.senderData, &e.exporter, &e.external,
		&e.confirmationKey, &e.membershipKey, &e.resumption, &e.authenticator,
	}
}

// An epochRecord is what the "epoch" record holds.
type epochRecord struct {
	ctx     groupContext
	tag     []byte
	width   uint32
	own     LeafIndex
	secrets epochSecrets
	closed  *ReInit
}

func (e *epochRecord) readPublic(r *reader) {
	if r.u8() != stateVersion {
		r.fail()
	}
	var err error
	if e.ctx, err = decode(r.opaque(), readGroupContext); err != nil {
		r.fail()
	}
	e.tag, e.width = r.opaque(), r.u32()
	if e.width == 0 || e.width > maxLeaves || fullWidth(e.width) != e.width {
		r.fail()
	}
}

func readEpochRecord(r *reader) *epochRecord {
	e := &epochRecord{}
	e.readPublic(r)
	e.own = LeafIndex(r.u32())
	for _, s := range e.secrets.all() {
		*s = r.opaque()
	}
	if r.optional() {
		e.closed = readReInit(r)
	}
	return e
}

func (p *pastEpoch) marshal() []byte {
	b := appendOptional(appendU64([]byte{stateVersion}, p.epoch), p.readable)
	b = appendOpaque(b, p.resumption)
	if !p.readable {
		return b
	}
	b = appendU32(appendOpaque(appendOpaque(b, p.context), p.senderData), p.keys.leaves)
	return appendVector(b, slices.Sorted(maps.Keys(p.leaves)), func(b []byte, l LeafIndex) []byte {
		leaf := p.leaves[l]
		if b = appendOptional(appendU32(b, uint32(l)), leaf != nil); leaf != nil {
			b = leaf.append(b)
		}
		return b
	})
}

func readPastEpoch(r *reader) *pastEpoch {
	if r.u8() != stateVersion {
		r.fail()
	}
	p := &pastEpoch{epoch: r.u64(), readable: r.optional(), resumption: r.opaque()}
	if !p.readable {
		return p
	}
	p.context, p.senderData = r.opaque(), r.opaque()
	p.keys = &secretTree{epoch: p.epoch, leaves: r.u32(), nodes: map[nodeIndex][]byte{}, ratchets: map[ratchetID]*ratchet{}, over: true}
	p.leaves = map[LeafIndex]*LeafNode{}
	readVector(r, func(r *reader) struct{} {
		l := LeafIndex(r.u32())
		p.leaves[l] = nil
		if r.optional() {
			p.leaves[l] = readLeafNode(r)
		}
		return struct{}{}
	})
	return p
}

// marshal encodes a kept proposal; the epoch tells leftovers apart.
func (sp *sentProposal) marshal(epoch uint64) []byte {
	b := appendU64([]byte{stateVersion}, epoch)
	return sp.Proposal.append(appendOpaque(sp.from.append(b), sp.ref))
}

func (u *pendingUpdate) marshal(epoch uint64) []byte {
	return appendOpaque(appendU64([]byte{stateVersion}, epoch), u.priv.bytes)
}

func readVersionEpoch(r *reader) uint64 {
	if r.u8() != stateVersion {
		r.fail()
	}
	return r.u64()
}

// Load restores a Group from all of its records. The identity must be the one
// that is in the group. Records are trusted: the caller has kept them sealed.
func Load(cfg Config, id Identity, records Delta) (*Group, error) {
	all := map[string][]byte{}
	for _, r := range records {
		all[r.Key] = r.Value
	}
	e, err := decode(all["epoch"], readEpochRecord)
	if err != nil {
		return nil, fmt.Errorf("%w: record \"epoch\" of the state", err)
	}
	s, err := e.ctx.suite.params()
	if err != nil {
		return nil, err
	}
	ps, err := loadPublic(s, e, records)
	if err != nil {
		return nil, err
	}
	key, err := id.key(s)
	if err != nil {
		return nil, err
	}
	if leaf := ps.tree.leaf(e.own); leaf == nil || !bytes.Equal(leaf.SignatureKey, key) {
		return nil, fmt.Errorf("%w: the signer is not the one of this group's member", ErrCredential)
	}
	g := &Group{cfg: cfg, id: id, epochState: &epochState{
		publicState: ps, own: e.own, secrets: &e.secrets,
		privs: map[nodeIndex]*privKey{}, closed: e.closed,
	}}
	g.keys = &secretTree{s, e.ctx.epoch, e.width, map[nodeIndex][]byte{}, map[ratchetID]*ratchet{}, false}
	if err := g.loadRest(records); err != nil {
		return nil, err
	}
	return g, nil
}

// loadPublic puts the tree together and checks its hash.
func loadPublic(s *suiteParams, e *epochRecord, records Delta) (*publicState, error) {
	n := int(nodeWidth(e.width))
	t := &tree{suite: s, nodes: make([]*node, n), hash: make([][]byte, n)}
	for _, r := range records {
		num, ok := strings.CutPrefix(r.Key, "n/")
		if !ok {
			continue
		}
		x, err := strconv.Atoi(num)
		if err != nil || x < 0 || x >= n {
			return nil, badRecord(r.Key)
		}
		nd, err := decode(r.Value, readNode)
		if err != nil || (nd.leaf != nil) != nodeIndex(x).isLeaf() {
			return nil, badRecord(r.Key)
		}
		t.nodes[x] = nd
	}
	if !bytes.Equal(t.rootHash(), e.ctx.treeHash) {
		return nil, fmt.Errorf("%w: nodes in the state do not match its tree hash", ErrMalformed)
	}
	return newPublicState(s, e.ctx, t, e.tag)
}

func badRecord(key string) error { return fmt.Errorf("%w: record %q of the state", ErrMalformed, key) }

// loadRest sorts the records beside epoch and tree; leftovers of other epochs
// go to the garbage.
func (g *Group) loadRest(records Delta) error {
	trees := map[uint64]*secretTree{g.ctx.epoch: g.keys}
	for _, r := range records {
		if !strings.HasPrefix(r.Key, "p/") {
			continue
		}
		p, err := decode(r.Value, readPastEpoch)
		if err != nil {
			return badRecord(r.Key)
		}
		if p.readable {
			p.keys.suite = g.suite
			trees[p.epoch] = p.keys
		}
		g.past = append(g.past, p)
	}
	slices.SortFunc(g.past, func(a, b *pastEpoch) int {
		if a.epoch > b.epoch {
			return -1
		}
		return 1
	})
	for _, r := range records {
		if err := g.loadRecord(r, trees); err != nil {
			return err
		}
	}
	slices.SortFunc(g.proposals, func(a, b sentProposal) int { return recordNumber(a.key) - recordNumber(b.key) })
	return nil
}

func (g *Group) loadRecord(r Record, trees map[uint64]*secretTree) error {
	part := strings.Split(r.Key, "/")
	var nums [4]uint64
	for i := 1; i < len(part) && i < 4; i++ {
		nums[i], _ = strconv.ParseUint(part[i], 10, 64)
	}
	var err error
	switch {
	case part[0] == "k" && len(part) == 2:
		g.privs[nodeIndex(nums[1])], err = g.suite.parsePrivKey(r.Value)
	case part[0] == "m" && len(part) == 4:
		t := trees[nums[1]]
		if t == nil || t != g.keys && part[2] == "h" {
			g.garbage = append(g.garbage, Record{Key: r.Key})
			return nil
		}
		if part[2] == "s" {
			t.nodes[nodeIndex(nums[3])] = r.Value
			return nil
		}
		t.ratchets[ratchetID{LeafIndex(nums[3]), part[2] == "h"}], err = decode(r.Value, readRatchet)
	case part[0] == "q" && len(part) == 2:
		err = g.loadProposal(r)
	case part[0] == "u" && len(part) == 2:
		err = g.loadUpdate(r)
	}
	if err != nil {
		return badRecord(r.Key)
	}
	return nil
}

func (g *Group) loadProposal(rec Record) error {
	r := reader{b: rec.Value}
	epoch := readVersionEpoch(&r)
	sp := sentProposal{from: readSender(&r), ref: r.opaque(), key: rec.Key}
	sp.Proposal = readProposal(&r)
	if !r.ok() {
		return ErrMalformed
	}
	g.counter = max(g.counter, uint32(recordNumber(rec.Key)))
	if epoch != g.ctx.epoch {
		g.garbage = append(g.garbage, Record{Key: rec.Key})
		return nil
	}
	g.proposals = append(g.proposals, sp)
	return nil
}

func (g *Group) loadUpdate(rec Record) error {
	r := reader{b: rec.Value}
	epoch := readVersionEpoch(&r)
	key := r.opaque()
	if !r.ok() {
		return ErrMalformed
	}
	if epoch != g.ctx.epoch {
		g.garbage = append(g.garbage, Record{Key: rec.Key})
		return nil
	}
	priv, err := g.suite.parsePrivKey(key)
	g.updates = append(g.updates, pendingUpdate{rec.Key, priv})
	return err
}

func recordNumber(key string) int {
	_, num, _ := strings.Cut(key, "/")
	n, _ := strconv.Atoi(num)
	return n
}
