// SPDX-License-Identifier: Apache-2.0

package mls

import "testing"

// An operation of a group that is measured: what it does, and what its
// formula demands.
type operation struct {
	name   string
	want   ops
	before func(n int) // prepares for n runs
	run    func(i int)
}

// A scene is a populated group of n with what its operations need.
type scene struct {
	t      testing.TB
	suite  Suite
	n      int
	x, y   *device // the first member and the one in the middle
	commit *PendingCommit
	// Somebody is added.
	joiner *device
	add    *PendingCommit
	kp     *KeyPackage
	ks     *KeyPackageSecrets
	// All are added by a founder.
	founder *device
	adds    []Proposal
	founded *PendingCommit
	// For an external commit.
	info, tree []byte
	sealed     []*Sealed
}

func newScene(t testing.TB, suite Suite, n int) *scene {
	t.Helper()
	s := &scene{t: t, suite: suite, n: n}
	s.x, s.y = populated(t, suite, n)
	var err error
	s.commit, err = s.x.g.PrepareCommit(CommitParams{})
	must(t, err)
	s.joiner = newDevice(t, suite, "joiner")
	s.kp, s.ks = s.joiner.keyPackage(suite)
	s.add, err = s.x.g.PrepareCommit(CommitParams{Proposals: []Proposal{AddProposal(s.kp)}, At: now})
	must(t, err)
	s.info, err = s.x.g.GroupInfo()
	must(t, err)
	s.tree = s.x.g.Tree()
	s.founder = newDevice(t, suite, "founder")
	for range n - 1 {
		kp, _ := newDevice(t, suite, "member").keyPackage(suite)
		s.adds = append(s.adds, AddProposal(kp))
	}
	s.founded = s.found()
	s.fresh()
	return s
}

func (s *scene) found() *PendingCommit {
	g, err := Create(s.founder.cfg, s.founder.id, CreateParams{Suite: s.suite, At: now})
	must(s.t, err)
	p, err := g.PrepareCommit(CommitParams{Proposals: s.adds, At: now})
	must(s.t, err)
	return p
}

// fresh gives both members the message keys of a new epoch, of which the
// sender's first was used: what follows is the cost of any later message.
func (s *scene) fresh() {
	secret := random(s.x.g.suite.nh())
	for _, d := range []*device{s.x, s.y} {
		d.g.keys = newSecretTree(d.g.suite, d.g.ctx.epoch, d.g.tree.width(), secret)
	}
	m, err := s.x.g.Encrypt(make([]byte, 100), nil)
	must(s.t, err)
	_, err = s.y.g.Receive(m.Message, now)
	must(s.t, err)
}

// queue seals n messages for the other member to open.
func (s *scene) queue(n int) {
	s.fresh()
	s.sealed = s.sealed[:0]
	for range n {
		m, err := s.x.g.Encrypt(make([]byte, 100), nil)
		must(s.t, err)
		s.sealed = append(s.sealed, m)
	}
}

func (s *scene) operations() []operation {
	must := func(err error) { must(s.t, err) }
	nothing := func(int) {}
	sh, own := shapeOf(s.x.g.tree), s.n/2
	joined, founded := shapeOf(s.add.next.tree), shapeOf(s.founded.next.tree)
	return []operation{
		{"create", founded.createOps(), nothing, func(int) { s.found() }},
		{"commit", sh.commitOps(0), nothing, func(int) {
			_, err := s.x.g.PrepareCommit(CommitParams{})
			must(err)
		}},
		{"process", sh.processOps(0, own), nothing, func(int) {
			_, err := s.y.g.Receive(s.commit.Commit, now)
			must(err)
		}},
		{"join", joined.joinOps(0, s.n), nothing, func(int) {
			_, err := Join(s.joiner.cfg, s.joiner.id, s.add.Welcome, s.kp, s.ks, JoinParams{Tree: s.add.Tree, At: now})
			must(err)
		}},
		{"external_join", sh.rejoinOps(own), nothing, func(int) {
			_, err := PrepareExternalCommit(s.y.cfg, s.y.id, s.info, ExternalParams{Tree: s.tree, At: now})
			must(err)
		}},
		{"encrypt", encryptOps, func(int) { s.fresh() }, func(int) {
			_, err := s.x.g.Encrypt(make([]byte, 100), nil)
			must(err)
		}},
		{"decrypt", decryptOps, s.queue, func(i int) {
			_, err := s.y.g.Receive(s.sealed[i].Message, now)
			must(err)
		}},
		{"encode", ops{}, nothing, func(int) { s.y.g.State() }},
		{"decode", sh.loadOps(len(s.y.g.privs)), nothing, func(int) {
			_, err := Load(s.y.cfg, s.y.id, s.y.disk)
			must(err)
		}},
	}
}
