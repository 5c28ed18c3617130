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

// BenchmarkGroup measures the operations of a group. It leaves out the card:
// the signatures are made in software.
func BenchmarkGroup(b *testing.B) {
	for _, c := range []struct {
		suite Suite
		sizes []int
	}{{SuiteP256, []int{2, 100, 1000}}, {SuiteP384, []int{2, 100}}, {SuiteMLKEM1024P384, []int{2, 100}}} {
		for _, n := range c.sizes {
			x, y := populated(b, c.suite, n)
			name := func(op string) string { return fmt.Sprintf("%s/suite=%#04x/N=%d", op, uint16(c.suite), n) }
			joiner := newDevice(b, c.suite, "j")
			kp, ks := joiner.keyPackage(c.suite)
			p, err := x.g.PrepareCommit(CommitParams{})
			must(b, err)
			add, err := x.g.PrepareCommit(CommitParams{Proposals: []Proposal{AddProposal(kp)}, At: now})
			must(b, err)
			b.Run(name("commit"), func(b *testing.B) {
				for b.Loop() {
					_, err := x.g.PrepareCommit(CommitParams{NoGroupInfo: true})
					must(b, err)
				}
				b.ReportMetric(float64(len(p.Commit)), "bytes")
			})
			b.Run(name("process"), func(b *testing.B) {
				for b.Loop() {
					_, err := y.g.Receive(p.Commit, now)
					must(b, err)
				}
			})
			b.Run(name("observe"), func(b *testing.B) {
				pub := &PublicGroup{auth: trustAll{}, publicState: x.g.publicState}
				for b.Loop() {
					_, err := pub.Check(p.Commit, now)
					must(b, err)
				}
			})
			b.Run(name("join"), func(b *testing.B) {
				for b.Loop() {
					_, err := Join(joiner.cfg, joiner.id, add.Welcome, kp, ks, JoinParams{Tree: add.Tree, At: now})
					must(b, err)
				}
				b.ReportMetric(float64(len(add.Tree)), "tree-bytes")
			})
			b.Run(name("encrypt"), func(b *testing.B) {
				for b.Loop() {
					_, err := x.g.Encrypt(make([]byte, 100), nil)
					must(b, err)
				}
			})
			b.Run(name("decrypt"), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					b.StopTimer()
					if i%500 == 0 { // both start over, so that nothing was skipped
						secret := random(x.g.suite.nh())
						for _, d := range []*device{x, y} {
							d.g.keys = newSecretTree(d.g.suite, d.g.ctx.epoch, d.g.tree.width(), secret)
						}
					}
					m, err := x.g.Encrypt(make([]byte, 100), nil)
					must(b, err)
					b.StartTimer()
					_, err = y.g.Receive(m.Message, now)
					must(b, err)
				}
			})
			b.Run(name("load"), func(b *testing.B) {
				for b.Loop() {
					_, err := Load(x.cfg, x.id, x.disk)
					must(b, err)
				}
				b.ReportMetric(float64(len(x.disk.Marshal())), "state-bytes")
			})
		}
	}
}
