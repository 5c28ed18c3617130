// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"errors"
	"strings"
	"testing"
)

// external prepares an external commit of d into x's group.
func external(t *testing.T, d, x *device, p ExternalParams) *PendingCommit {
	t.Helper()
	info, err := x.g.GroupInfo()
	must(t, err)
	p.Tree, p.At = x.g.Tree(), now
	c, err := PrepareExternalCommit(d.cfg, d.id, info, p)
	must(t, err)
	return c
}

// Only an external commit that replaces the joiner's own leaf, and does nothing
// else, is a resync.
func TestIsResync(t *testing.T) {
	all := group(t, quick, 3)
	a, b, c := all[0], all[1], all[2]
	pub := observer(t, a)
	see := func(m []byte) Change {
		t.Helper()
		s, err := pub.Check(m, now)
		must(t, err)
		return s.Change
	}
	own := see(external(t, b, a, ExternalParams{}).Commit)
	if !IsResync(own, nil) || len(own.Removed) != 1 || own.Removed[0].Leaf != b.g.OwnLeaf() {
		t.Fatalf("honest resync is refused: %+v", own)
	}
	if IsResync(see(external(t, newDevice(t, quick, "stranger"), a, ExternalParams{}).Commit), nil) {
		t.Error("a join by a stranger counts as resync")
	}
	thief := newDevice(t, quick, "b") // another key under b's name
	taken := see(external(t, thief, a, ExternalParams{Replace: func(m Member) bool { return m.Leaf == 1 }}).Commit)
	if IsResync(taken, nil) {
		t.Error("replacing another's leaf counts as resync")
	}
	if !IsResync(taken, func(o, n Member) bool { return string(o.Credential.Identity) == string(n.Credential.Identity) }) {
		t.Error("the caller's own comparison is not used")
	}
	if IsResync(see(c.commitOnly(t)), nil) {
		t.Error("a member's commit counts as resync")
	}
	b.cfg.PSK = func(PSKID) ([]byte, error) { return []byte("x"), nil }
	with := see(external(t, b, a, ExternalParams{PSKs: []PSKID{{Type: PSKExternal, ID: []byte("p")}}}).Commit)
	if IsResync(with, nil) {
		t.Error("a resync with a pre-shared key does something else, too")
	}
}

func (d *device) commitOnly(t *testing.T) []byte {
	p, err := d.g.PrepareCommit(CommitParams{})
	must(t, err)
	return p.Commit
}

// RFC 9420, Section 12.4.3.2: what an external commit may not hold. Observers
// and members refuse alike.
func TestExternalCommitRules(t *testing.T) {
	all := group(t, quick, 4)
	a, b := all[0], all[1]
	pub := observer(t, a)
	kp, _ := newDevice(t, quick, "x").keyPackage(quick)
	s, err := a.g.Propose(RemoveProposal(3), nil)
	must(t, err)
	_, _, err = pub.See(s.Message, now)
	must(t, err)
	b.receive(s.Message)
	ref := b.g.proposals[0].ref
	d := newDevice(t, quick, "joiner")
	alter := func(change func(*commit)) []byte {
		m, err := parseMessage(external(t, d, a, ExternalParams{}).Commit)
		must(t, err)
		ac := &m.public.authContent
		change(ac.content.commit)
		must(t, ac.sign(a.g.suite, d.id, a.g.context))
		return protectPublic(a.g.suite, ac, nil, nil)
	}
	inline := func(p Proposal) func(*commit) {
		return func(c *commit) { c.proposals = append(c.proposals, proposalOrRef{proposal: &p}) }
	}
	for _, r := range []struct {
		name, reason string
		change       func(*commit)
	}{
		{"control", "", func(*commit) {}},
		{"no init", "exactly one external_init", func(c *commit) { c.proposals = nil }},
		{"two inits", "exactly one external_init", inline(Proposal{Type: ProposalExternalInit, ExternalInit: random(65)})},
		{"two removes", "at most one remove", func(c *commit) {
			inline(RemoveProposal(1))(c)
			inline(RemoveProposal(2))(c)
		}},
		{"an add", "proposal type 1", inline(AddProposal(kp))},
		{"extensions", "proposal type 7", inline(ExtensionsProposal(nil))},
		{"by reference", "refers to a proposal", func(c *commit) {
			c.proposals = append(c.proposals, proposalOrRef{ref: ref})
		}},
		{"no path", "may not send", func(c *commit) { c.path = nil }},
	} {
		t.Run(r.name, func(t *testing.T) {
			if r.name == "no path" {
				m, err := parseMessage(external(t, d, a, ExternalParams{}).Commit)
				must(t, err)
				m.public.content.commit.path = nil
				if _, err := pub.Check(m.marshal(), now); err == nil || !strings.Contains(err.Error(), r.reason) {
					t.Fatalf("observer: %v", err)
				}
				return
			}
			m := alter(r.change)
			_, err := pub.Check(m, now)
			if r.reason == "" {
				must(t, err)
				return
			}
			if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(r.reason, "exactly ")) &&
				!strings.Contains(err.Error(), "one external_init") {
				t.Fatalf("observer: %v, want %q", err, r.reason)
			}
			if _, err := b.g.Receive(m, now); !errors.Is(err, ErrInvalidCommit) {
				t.Fatalf("member: %v", err)
			}
		})
	}
}

// A joiner whose signature key is a member's must replace that member.
func TestExternalCommitUniqueKey(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	info, err := a.g.GroupInfo()
	must(t, err)
	_, err = PrepareExternalCommit(b.cfg, b.id, info, ExternalParams{Tree: a.g.Tree(), At: now, Replace: func(Member) bool { return false }})
	if !errors.Is(err, ErrInvalidCommit) {
		t.Fatalf("b joins beside itself: %v", err)
	}
	_, err = PrepareExternalCommit(b.cfg, b.id, info, ExternalParams{Tree: a.g.Tree(), At: now})
	must(t, err)
}

// RFC 9420, Section 12.1.8: external senders and new members may propose.
func TestProposalsFromOutside(t *testing.T) {
	desk := newDevice(t, quick, "desk")
	key, err := desk.id.key(mustSuite(quick))
	must(t, err)
	all := group(t, quick, 3)
	a, b, c := all[0], all[1], all[2]
	p := a.commit(CommitParams{Proposals: []Proposal{ExtensionsProposal([]Extension{
		ExternalSendersExtension([]ExternalSender{{key, desk.id.Credential}}),
	})}})
	b.receive(p.Commit)
	c.receive(p.Commit)
	pub := observer(t, a)
	outside := func(from sender, signer *device, prop Proposal) []byte {
		ac := &authContent{wire: WirePublicMessage, content: framedContent{
			a.g.ctx.groupID, a.g.ctx.epoch, from, nil,
			body{typ: ContentProposal, proposal: &prop},
		}}
		must(t, ac.sign(a.g.suite, signer.id, a.g.context))
		return protectPublic(a.g.suite, ac, nil, nil)
	}
	to := Outside{quick, a.g.ID(), a.g.Epoch()}
	remove, err := ProposeExternally(desk.id, to, 0, RemoveProposal(2))
	must(t, err)
	if _, err := ProposeExternally(desk.id, to, 0, Proposal{Type: ProposalExternalInit}); !errors.Is(err, ErrMalformed) {
		t.Errorf("external_init from outside: %v", err)
	}
	b.refuses(outside(sender{senderExternal, 1}, desk, RemoveProposal(2)), ErrSignature)
	b.refuses(outside(sender{senderExternal, 0}, newDevice(t, quick, "x"), RemoveProposal(2)), ErrSignature)
	b.refuses(outside(sender{senderExternal, 0}, desk, Proposal{Type: ProposalExternalInit}), ErrMalformed)
	b.refuses(outside(sender{senderNewMemberProposal, 0}, desk, RemoveProposal(2)), ErrMalformed)
	n := newDevice(t, quick, "new")
	kp, ks := n.keyPackage(quick)
	add, err := ProposeOwnAdd(n.id, to, kp)
	must(t, err)
	for _, d := range all {
		if r := d.receive(remove); !r.External || string(r.Sender.Credential.Identity) != "desk" {
			t.Fatalf("received %+v", r)
		}
		d.receive(add)
	}
	for _, m := range [][]byte{remove, add} {
		_, _, err := pub.See(m, now)
		must(t, err)
	}
	p = a.commit(CommitParams{})
	b.receive(p.Commit)
	n.join(p.Welcome, kp, ks, p.Tree)
	_, ch := follow(t, pub, p.Commit)
	if len(ch.Added) != 1 || len(ch.Removed) != 1 {
		t.Fatalf("committed %+v", ch)
	}
	agree(t, a, b, n)
}

func mustSuite(s Suite) *suiteParams {
	p, err := s.params()
	if err != nil {
		panic(err)
	}
	return p
}
