// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"fmt"
	"maps"
	"testing"
	"time"
)

// populated makes a group of n whose tree is full, as if every member had
// committed, seen by the first member and by the one in the middle.
func populated(b testing.TB, suite Suite, n int) (x, y *device) {
	b.Helper()
	s := mustSuite(suite)
	t := &tree{suite: s}
	all := make([]*device, n)
	for i := range all {
		all[i] = newDevice(b, suite, fmt.Sprint("member ", i))
		priv, err := s.generateKey()
		must(b, err)
		leaf, err := newLeaf(s, all[i].id, priv.public(), nil, nil)
		must(b, err)
		leaf.Source, leaf.Lifetime = LeafKeyPackage, NewLifetime(now.Add(-time.Hour), now.Add(time.Hour))
		t.add(leaf)
	}
	own := [2]LeafIndex{0, LeafIndex(n / 2)}
	privs := [2]map[nodeIndex]*privKey{{}, {}}
	id := []byte("benchmark")
	for i := range all {
		fresh, err := t.renewPath(LeafIndex(i), *t.leaf(LeafIndex(i)), all[i].id, id)
		must(b, err)
		for k, l := range own {
			if LeafIndex(i) == l {
				privs[k][l.node()] = fresh.leafKey
			}
			for j, st := range fresh.steps {
				if st.node.covers(l.node()) {
					privs[k][st.node] = fresh.keys[j]
				}
			}
		}
	}
	must(b, t.checkStructure())
	secrets, encryption := s.epochFrom(random(s.nh()))
	ctx := groupContext{suite: suite, groupID: id, epoch: 7, treeHash: t.rootHash(), confirmed: random(s.nh())}
	ps, err := newPublicState(s, ctx, t, secrets.confirmationTag(s, ctx.confirmed))
	must(b, err)
	for k, l := range own {
		d := all[l]
		ep := &epochState{publicState: ps, own: l, secrets: secrets, privs: maps.Clone(privs[k])}
		d.g = &Group{cfg: d.cfg, id: d.id, epochState: ep, keys: newSecretTree(s, ctx.epoch, t.width(), encryption)}
		d.disk = d.g.State()
	}
	return all[own[0]], all[own[1]]
}

// The group that benchmarks use is one in which commits work.
func TestPopulated(t *testing.T) {
	x, y := populated(t, quick, 20)
	y.receive(x.commit(CommitParams{}).Commit)
	x.receive(y.commit(CommitParams{}).Commit)
	y.reads(x.encrypt("x"), "x")
	agree(t, x, y)
	observer(t, x)
}
