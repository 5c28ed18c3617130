// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"slices"
	"testing"

	"valise/mls"
)

// suites are those that both sides have, the slowest first; the hybrid one
// reaches ts-mls through node/hybrid.mjs.
var suites = []mls.Suite{mls.SuiteMLKEM1024P384, mls.SuiteP384, mls.SuiteP256, mls.SuiteX25519}

// scenarios are played on the suites named, nil meaning all: what depends on
// the shape of the tree and not on the suite need not be played on each.
var scenarios = []struct {
	name string
	on   []mls.Suite
	play func(t *testing.T, w *world, founder, other kind)
}{
	{"life of a group", nil, lifeOfAGroup},
	{"external join", nil, externalJoin},
	{"altered messages", nil, alteredMessages},
	{"proposals by reference", []mls.Suite{mls.SuiteX25519, mls.SuiteP256}, proposalsByReference},
	{"ragged tree", []mls.Suite{mls.SuiteX25519, mls.SuiteP256}, raggedTree},
	{"strangers", []mls.Suite{mls.SuiteX25519, mls.SuiteP384}, strangers},
}

// Each scenario is played on each suite twice: a member on either side founds
// the group. One process serves a suite, which keeps its compiled code warm.
func TestWithTSMLS(t *testing.T) {
	for _, suite := range suites {
		t.Run(suite.String(), func(t *testing.T) {
			t.Parallel()
			p := startPeer(t)
			for _, s := range scenarios {
				if s.on != nil && !slices.Contains(s.on, suite) {
					continue
				}
				for _, founder := range []kind{inGo, inTS} {
					t.Run(s.name+" founded by "+founder.String(), func(t *testing.T) {
						s.play(t, newWorld(t, p, suite), founder, !founder)
					})
				}
			}
		})
	}
}

// RFC 9420, Sections 12.1 and 12.4: what one side commits, the other follows.
func lifeOfAGroup(t *testing.T, w *world, founder, other kind) {
	a, b, c, d := w.device(founder), w.device(other), w.device(founder), w.device(other)
	w.found(a)
	w.commit(a, change{tree: true}, []member{b}) // add
	w.commit(b, change{}, []member{c, d})        // the tree beside the Welcome
	w.talk()
	for _, m := range w.members {
		w.commit(m, change{data: []byte("renewed")}, nil) // update
	}
	w.commit(a, change{private: true}, nil)
	w.commit(b, change{private: true}, nil)
	w.talk()
	w.commit(a, change{psk: [][]byte{[]byte("shared once")}}, nil)
	w.commit(b, change{psk: [][]byte{[]byte("shared once"), []byte("shared twice")}}, nil)
	w.commit(a, change{remove: []uint32{d.status().leaf}}, nil, d) // remove
	w.commit(b, change{remove: []uint32{c.status().leaf}}, nil, c)
	w.talk()
}

// RFC 9420, Section 12.4: proposals of one side, committed by reference on the
// other.
func proposalsByReference(t *testing.T, w *world, founder, other kind) {
	a, b, c, d, e := w.device(founder), w.device(other), w.device(founder), w.device(other), w.device(inGo)
	w.found(a)
	w.commit(a, change{tree: true}, []member{b, c, d, e})
	w.deliver(c, c.propose(change{remove: []uint32{d.status().leaf}}))
	w.deliver(a, a.propose(change{psk: [][]byte{[]byte("shared once")}}))
	w.commit(b, change{}, nil, d)
	f := w.device(founder)
	w.deliver(b, b.propose(change{add: [][]byte{f.keyPackage()}}))
	w.commitTo(a, change{}, []member{f})
	// An Update needs keys of its own that ts-mls has no call for: ours
	// only, committed by a member of each side.
	w.deliver(e, e.propose(change{}))
	w.commit(a, change{}, nil)
	w.deliver(e, e.propose(change{}))
	w.commit(b, change{}, nil)
	w.talk()
}

// RFC 9420, Section 12.4.3.2: join, and replace an own leaf, from outside.
func externalJoin(t *testing.T, w *world, founder, other kind) {
	a, b, c := w.device(founder), w.device(other), w.device(founder)
	w.found(a)
	w.enter(b, a, false, false)
	w.enter(c, b, false, true)
	w.talk()
	w.enter(w.device(other), c, false, false)
	w.enter(b, a, true, false) // resync
	w.enter(a, b, true, true)
	w.talk()
	w.commit(b, change{remove: []uint32{c.status().leaf}}, nil, c)
	w.commit(a, change{}, []member{w.device(other)}) // into the free leaf
	w.talk()
}

// RFC 9420, Sections 4.1 and 7: a tree with blanks and unmerged leaves, filled
// and emptied by both.
func raggedTree(t *testing.T, w *world, founder, other kind) {
	a, b := w.device(founder), w.device(other)
	w.found(a)
	w.commit(a, change{}, []member{b, w.device(founder), w.device(other), w.device(founder), w.device(other)})
	w.commit(w.members[5], change{}, []member{w.device(other)}) // unmerged below what it just renewed
	w.commit(w.members[4], change{}, nil)
	// The first of the two leaves goes to a new member at once. ts-mls does
	// not notice its removal by a commit that does so: a Go member's, then.
	gone := w.members[2:4:4]
	if founder == inTS {
		gone = w.members[3:5:5]
	}
	gone = slices.Clone(gone)
	w.commit(b, change{remove: []uint32{gone[0].status().leaf, gone[1].status().leaf}}, []member{w.device(founder)}, gone...)
	for _, m := range w.members {
		w.commit(m, change{}, nil)
	}
	last := w.members[4]
	w.commit(a, change{remove: []uint32{last.status().leaf}}, nil, last)
	w.talk()
}
