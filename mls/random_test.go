// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// A crowd is a group that does random things, with an observer beside it.
type crowd struct {
	t       *testing.T
	r       *rand.Rand
	members []*device
	pub     *PublicGroup
	late    []lateMessage
	names   int
	done    map[string]int
}

// A lateMessage is delivered after the commits that overtake it.
type lateMessage struct {
	message []byte
	text    string
	epoch   uint64
	to      *device
}

// TestRandomLife runs random histories: whatever happens, all members and the
// observer agree, every joiner finds a valid tree, and every message is read
// once. MLS_SEED repeats a history.
func TestRandomLife(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("MLS_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("MLS_SEED=%d", seed)
	a := newDevice(t, SuiteX25519, "founder").create(SuiteX25519)
	c := &crowd{t: t, r: rand.New(rand.NewPCG(seed, 1)), members: []*device{a}, pub: observer(t, a), done: map[string]int{}}
	steps := []struct {
		name string
		f    func()
	}{
		{"add", c.add},
		{"add", c.add},
		{"remove", c.remove},
		{"heal", c.heal},
		{"resync", c.resync},
		{"update", c.update},
		{"talk", c.talk},
		{"talk", c.talk},
		{"restart", c.restart},
	}
	for range 200 {
		s := steps[c.r.IntN(len(steps))]
		s.f()
		c.done[s.name]++
	}
	t.Log(c.done, len(c.members), "members at the end")
	for _, s := range steps {
		if c.done[s.name] == 0 {
			t.Errorf("nothing did %s", s.name)
		}
	}
}

func (c *crowd) any() *device { return c.members[c.r.IntN(len(c.members))] }

// spread delivers a commit to all but its sender, and compares.
func (c *crowd) spread(from *device, p *PendingCommit) {
	c.t.Helper()
	for _, m := range c.members {
		if m != from {
			m.receive(p.Commit)
		}
	}
	c.pub, _ = follow(c.t, c.pub, p.Commit)
	agree(c.t, c.members...)
	if string(c.pub.Tree()) != string(from.g.Tree()) {
		c.t.Fatal("the observer's tree differs")
	}
	must(c.t, from.g.tree.checkStructure())
	c.deliver()
}

func (c *crowd) add() {
	if len(c.members) > 20 {
		return
	}
	from := c.any()
	var props []Proposal
	var joiners []*device
	var kps []*KeyPackage
	var kss []*KeyPackageSecrets
	for range 1 + c.r.IntN(3) {
		c.names++
		d := newDevice(c.t, SuiteX25519, fmt.Sprint("member ", c.names))
		kp, ks := d.keyPackage(SuiteX25519)
		props, joiners, kps, kss = append(props, AddProposal(kp)), append(joiners, d), append(kps, kp), append(kss, ks)
	}
	if len(c.members) > 3 && c.r.IntN(3) == 0 { // add and remove at once
		if out := c.any(); out != from {
			props = append(props, RemoveProposal(out.g.OwnLeaf()))
			c.leave(out)
		}
	}
	noPath := c.r.IntN(2) == 0 && len(props) == len(joiners)
	p := from.commit(CommitParams{Proposals: props, NoPath: noPath, TreeInWelcome: c.r.IntN(2) == 0})
	for i, d := range joiners {
		d.join(p.Welcome, kps[i], kss[i], p.Tree)
	}
	c.spread(from, p)
	c.members = append(c.members, joiners...)
	agree(c.t, c.members...)
}

func (c *crowd) leave(d *device) {
	c.members = slices.DeleteFunc(c.members, func(m *device) bool { return m == d })
	c.late = slices.DeleteFunc(c.late, func(l lateMessage) bool { return l.to == d })
}

func (c *crowd) remove() {
	from, out := c.any(), c.any()
	if from == out {
		return
	}
	c.leave(out)
	c.spread(from, from.commit(CommitParams{Proposals: []Proposal{RemoveProposal(out.g.OwnLeaf())}}))
}

func (c *crowd) heal() {
	from := c.any()
	c.spread(from, from.commit(CommitParams{NoGroupInfo: true}))
}

func (c *crowd) resync() {
	d, helper := c.any(), c.any()
	if d == helper {
		return
	}
	info, err := helper.g.GroupInfo()
	must(c.t, err)
	must(c.t, c.pub.CheckGroupInfo(info))
	p, err := PrepareExternalCommit(d.cfg, d.id, info, ExternalParams{Tree: c.pub.Tree(), At: now})
	must(c.t, err)
	c.late = slices.DeleteFunc(c.late, func(l lateMessage) bool { return l.to == d })
	d.g, d.disk = p.Group(), p.Delta.Merge(nil)
	c.spread(d, p)
}

// update proposes by reference, from one or two members, and then anybody
// commits, perhaps one that proposed.
func (c *crowd) update() {
	for range 1 + c.r.IntN(2) {
		d := c.any()
		if len(d.g.updates) > 0 {
			continue
		}
		s, err := d.g.ProposeUpdate(nil)
		must(c.t, err)
		d.save(s.Delta)
		for _, m := range c.members {
			if m != d {
				m.receive(s.Message)
			}
		}
		_, _, err = c.pub.See(s.Message, now)
		must(c.t, err)
		if c.r.IntN(2) == 0 {
			d.restart()
		}
	}
	from := c.any()
	c.spread(from, from.commit(CommitParams{}))
}

// talk sends to all; some read it after the next commits.
func (c *crowd) talk() {
	from := c.any()
	text := fmt.Sprint("message ", c.r.Uint32())
	m := from.encrypt(text)
	for _, to := range c.members {
		switch {
		case to == from:
		case c.r.IntN(3) == 0:
			c.late = append(c.late, lateMessage{m, text, from.g.Epoch(), to})
		default:
			to.reads(m, text)
		}
	}
}

// deliver hands out late messages, at random but in time, each once.
func (c *crowd) deliver() {
	c.r.Shuffle(len(c.late), func(i, j int) { c.late[i], c.late[j] = c.late[j], c.late[i] })
	c.late = slices.DeleteFunc(c.late, func(l lateMessage) bool {
		if l.to.g.Epoch() < l.epoch+defaultPastEpochs && c.r.IntN(2) == 0 {
			return false
		}
		l.to.reads(l.message, l.text)
		l.to.refuses(l.message, ErrUsedKey)
		return true
	})
}

func (c *crowd) restart() {
	d := c.any()
	d.restart()
	equalT(c.t, d.g.State().Marshal(), d.disk.Marshal())
}
