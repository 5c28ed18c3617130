// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"errors"
	"strings"
	"testing"
)

// loosely applies proposals without any check, as a malicious committer would.
func loosely(g *Group, list []sentProposal) *provisional {
	p := &provisional{tree: g.tree.clone(), extensions: g.ctx.extensions, params: g.params}
	for _, sp := range list {
		switch sp.Type {
		case ProposalGroupContextExtensions:
			p.extensions = sp.Extensions
			p.params, _ = readParameters(sp.Extensions)
		case ProposalPSK:
			p.psks = append(p.psks, *sp.PSK)
		case ProposalReInit:
			p.reinit = sp.ReInit
		case ProposalUpdate:
			p.tree.update(LeafIndex(sp.from.index), sp.Update)
		}
	}
	for _, sp := range list {
		if sp.Type == ProposalRemove {
			if l := p.tree.leaf(sp.Remove); l != nil && sp.Remove != g.own {
				p.tree.remove(sp.Remove)
			}
		}
	}
	p.tree.truncate()
	for _, sp := range list {
		if sp.Type == ProposalAdd {
			p.added = append(p.added, p.tree.add(&sp.Add.Leaf))
			p.packages = append(p.packages, sp.Add)
		}
	}
	return p
}

// forge makes a commit that is right in everything but the rules of proposal
// lists: signatures, path, key schedule and tags are those of its content.
func forge(t *testing.T, d *device, params CommitParams, props ...Proposal) []byte {
	t.Helper()
	g := d.g
	c, list := &commit{}, []sentProposal(nil)
	for i := range props {
		list = append(list, sentProposal{Proposal: &props[i], from: sender{senderMember, uint32(g.own)}})
		c.proposals = append(c.proposals, proposalOrRef{proposal: &props[i]})
	}
	params.NoGroupInfo = true
	p, err := g.makeCommit(c, list, loosely(g, list), sender{senderMember, uint32(g.own)}, g.secrets.initSecret, &params)
	must(t, err)
	return p.Commit
}

// refusedBy checks that both a member and an observer refuse a commit, for the
// reason given, and that they accept the control.
func refusedBy(t *testing.T, member *device, pub *PublicGroup, bad, control []byte, reason string) {
	t.Helper()
	if _, err := member.g.Receive(bad, now); !errors.Is(err, ErrInvalidCommit) || !strings.Contains(err.Error(), reason) {
		t.Errorf("member: %v, want %q", err, reason)
	}
	if _, err := pub.Check(bad, now); !errors.Is(err, ErrInvalidCommit) || !strings.Contains(err.Error(), reason) {
		t.Errorf("observer: %v, want %q", err, reason)
	}
	if control == nil {
		return
	}
	if _, err := member.g.Receive(control, now); err != nil {
		t.Errorf("member refuses the control: %v", err)
	}
	if _, err := pub.Check(control, now); err != nil {
		t.Errorf("observer refuses the control: %v", err)
	}
}

// RFC 9420, Section 12.2: each rule of a proposal list, beside a list that
// differs in that rule only.
func TestProposalListRules(t *testing.T) {
	all := group(t, quick, 4)
	a, b, c := all[0], all[1], all[2]
	for _, d := range all {
		d.cfg.PSK = func(PSKID) ([]byte, error) { return []byte("psk"), nil }
		d.restart()
	}
	pub := observer(t, a)
	x, y := newDevice(t, quick, "x"), newDevice(t, quick, "y")
	add := func(d *device) Proposal { kp, _ := d.keyPackage(quick); return AddProposal(kp) }
	ax, ax2, ay := add(x), add(x), add(y)
	psk := func(id string, n int) Proposal {
		return PSKProposal(PSKID{Type: PSKExternal, ID: []byte(id), Nonce: make([]byte, n)})
	}
	resumption := func(u PSKUsage) Proposal {
		return PSKProposal(PSKID{Type: PSKResumption, Usage: u, GroupID: []byte("other"), Epoch: 1, Nonce: make([]byte, 32)})
	}
	ext := ExtensionsProposal(nil)
	reinit := ReInitProposal(ReInit{GroupID: []byte("n"), Version: 1, Suite: quick})
	old := ReInitProposal(ReInit{GroupID: []byte("n"), Version: 0, Suite: quick})
	needs := ExtensionsProposal([]Extension{RequiredCapabilities{Extensions: []ExtensionType{0x7777}}.Extension()})
	fine := ExtensionsProposal([]Extension{RequiredCapabilities{Extensions: []ExtensionType{ExtensionLastResort}}.Extension()})
	otherKP, _ := newDevice(t, quick, "z").keyPackage(quick)
	otherKP.Suite = SuiteP384
	members := add(b)
	for _, r := range []struct {
		name, reason string
		bad, control []Proposal
	}{
		{"remove twice", "two proposals for leaf 2", []Proposal{RemoveProposal(2), RemoveProposal(2)}, []Proposal{RemoveProposal(2)}},
		{"remove self", "committer updates or removes itself", []Proposal{RemoveProposal(0)}, []Proposal{RemoveProposal(3)}},
		{"remove nobody", "no member", []Proposal{RemoveProposal(77)}, []Proposal{RemoveProposal(3)}},
		{"add twice", "introduced twice", []Proposal{ax, ax2}, []Proposal{ax, ay}},
		{"add a member", "signature key is already", []Proposal{members}, []Proposal{members, RemoveProposal(b.g.OwnLeaf())}},
		{"psk twice", "proposed twice", []Proposal{psk("1", 32), psk("1", 32)}, []Proposal{psk("1", 32), psk("2", 32)}},
		{"psk nonce", "nonce", []Proposal{psk("1", 31)}, []Proposal{psk("1", 32)}},
		{"reserved psk", "successor", []Proposal{resumption(PSKBranch)}, []Proposal{resumption(PSKApplication)}},
		{"reserved psk, reinit", "successor", []Proposal{resumption(PSKReInit)}, []Proposal{resumption(PSKApplication)}},
		{"two extension lists", "several replacements", []Proposal{ext, ext}, []Proposal{ext}},
		{"reinit with others", "beside other", []Proposal{reinit, ax}, []Proposal{reinit}},
		{"reinit back", "version 0", []Proposal{old}, []Proposal{reinit}},
		{"external init", "external_init in a member's", []Proposal{{Type: ProposalExternalInit}}, nil},
		{"unsupported requirement", "required extension", []Proposal{needs}, []Proposal{fine}},
		{
			"added without support", "group extension 0x000a",
			[]Proposal{
				ExtensionsProposal([]Extension{{Type: ExtensionLastResort}}), bare(t, "p"),
			},
			[]Proposal{ExtensionsProposal([]Extension{{Type: ExtensionLastResort}}), ay},
		},
		{"other suite", "added key package is for", []Proposal{AddProposal(otherKP)}, []Proposal{ax}},
	} {
		t.Run(r.name, func(t *testing.T) {
			var control []byte
			if r.control != nil {
				control = forge(t, a, CommitParams{}, r.control...)
			}
			reader := c
			if len(r.control) > 1 || r.name == "remove twice" {
				reader = all[3]
			}
			if r.name == "remove self" || r.name == "remove nobody" {
				reader = c
			}
			refusedBy(t, reader, pub, forge(t, a, CommitParams{}, r.bad...), control, r.reason)
			// The committer itself refuses to make it.
			if _, err := a.g.PrepareCommit(CommitParams{Proposals: r.bad, At: now}); !errors.Is(err, ErrInvalidCommit) {
				t.Errorf("committer: %v", err)
			}
		})
	}
}

// bare is an Add of a device that supports no extension.
func bare(t *testing.T, name string) Proposal {
	d := newDevice(t, quick, name)
	caps := DefaultCapabilities()
	caps.Extensions = nil
	kp, _, err := NewKeyPackage(d.id, KeyPackageParams{Suite: quick, Capabilities: &caps, Lifetime: NewLifetime(now, now.AddDate(0, 0, 1))})
	must(t, err)
	return AddProposal(kp)
}

// RFC 9420, Section 12.4: what removes must renew the path.
func TestPathRequired(t *testing.T) {
	all := group(t, quick, 3)
	a, b := all[0], all[1]
	pub := observer(t, a)
	rm := RemoveProposal(2)
	refusedBy(t, b, pub, forge(t, a, CommitParams{NoPath: true}, rm), forge(t, a, CommitParams{}, rm), "path is missing")
	refusedBy(t, b, pub, forge(t, a, CommitParams{NoPath: true}), forge(t, a, CommitParams{}), "path is missing")
	if _, err := a.g.PrepareCommit(CommitParams{NoPath: true, Proposals: []Proposal{rm}}); !errors.Is(err, ErrInvalidCommit) {
		t.Errorf("committer: %v", err)
	}
}

// RFC 9420, Section 12.4: an update of the committer itself, in its own commit.
func TestOwnUpdateInCommit(t *testing.T) {
	all := group(t, quick, 3)
	a, b := all[0], all[1]
	s, err := a.g.ProposeUpdate(nil)
	must(t, err)
	m, err := parseMessage(s.Message)
	must(t, err)
	p := *m.public.content.proposal
	refusedBy(t, b, observer(t, b), forge(t, a, CommitParams{}, p), nil, "update of the committer itself")
}

// altered re-signs a commit after a change; its confirmation tag does not
// follow, which an observer cannot see.
func altered(t *testing.T, d *device, change func(*commit)) []byte {
	t.Helper()
	p, err := d.g.PrepareCommit(CommitParams{})
	must(t, err)
	m, err := parseMessage(p.Commit)
	must(t, err)
	ac := &m.public.authContent
	change(ac.content.commit)
	must(t, ac.sign(d.g.suite, d.id, d.g.context))
	return protectPublic(d.g.suite, ac, d.g.secrets.membershipKey, d.g.context)
}

// RFC 9420, Sections 7.5, 7.6, 7.9.2 and 12.4.2: what a path must be.
func TestPathRules(t *testing.T) {
	all := group(t, quick, 5)
	a, b := all[0], all[1]
	for _, d := range all { // populate the tree
		p := d.commit(CommitParams{})
		for _, o := range all {
			if o != d {
				o.receive(p.Commit)
			}
		}
	}
	pub := observer(t, a)
	resign := func(c *commit) { must(t, c.path.leaf.sign(a.g.suite, a.id, a.g.ctx.groupID, 0)) }
	for _, r := range []struct {
		name, reason string
		change       func(*commit)
	}{
		{"control", "", func(*commit) {}},
		{"node missing", "nodes, must have", func(c *commit) { c.path.nodes = c.path.nodes[1:] }},
		{"secret missing", "secrets, must have", func(c *commit) { c.path.nodes[0].secrets = nil }},
		{"parent hash", "parent hash", func(c *commit) { c.path.leaf.ParentHash = random(32); resign(c) }},
		{"node key changed", "parent hash", func(c *commit) {
			k, _ := a.g.suite.generateKey()
			c.path.nodes[1].encryptionKey = k.public()
		}},
		{"no point", "encryption key", func(c *commit) { c.path.nodes[0].encryptionKey = random(65) }},
		{"leaf not signed", "signature", func(c *commit) { c.path.leaf.Signature[9] ^= 1 }},
		{"leaf for another place", "signature", func(c *commit) {
			must(t, c.path.leaf.sign(a.g.suite, a.id, a.g.ctx.groupID, 1))
		}},
		{"leaf for another group", "signature", func(c *commit) {
			must(t, c.path.leaf.sign(a.g.suite, a.id, []byte("other"), 0))
		}},
		{"source", "source is 2", func(c *commit) { c.path.leaf.Source = LeafUpdate; resign(c) }},
		{"key not renewed", "not renewed", func(c *commit) {
			c.path.leaf.EncryptionKey = a.g.tree.leaf(0).EncryptionKey
			resign(c)
		}},
		{"another's leaf key", "already at node", func(c *commit) {
			c.path.leaf.EncryptionKey = b.g.tree.leaf(1).EncryptionKey
			resign(c)
		}},
		{"old node key", "already at node", func(c *commit) {
			c.path.nodes[0].encryptionKey = a.g.tree.at(1).encryptionKey()
		}},
		{"one key twice", "introduced twice", func(c *commit) {
			c.path.nodes[0].encryptionKey = c.path.nodes[1].encryptionKey
		}},
		{"capabilities", "own credential type", func(c *commit) { c.path.leaf.Capabilities.Credentials = nil; resign(c) }},
	} {
		t.Run(r.name, func(t *testing.T) {
			m := altered(t, a, r.change)
			_, err := pub.Check(m, now)
			if r.reason == "" {
				must(t, err)
				return
			}
			if err == nil || !strings.Contains(err.Error(), r.reason) {
				t.Fatalf("observer: %v, want %q", err, r.reason)
			}
			if _, err = b.g.Receive(m, now); err == nil || !strings.Contains(err.Error(), r.reason) {
				t.Fatalf("member: %v, want %q", err, r.reason)
			}
		})
	}
}

// RFC 9420, Section 6.1: members check the confirmation tag.
func TestConfirmationTag(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	p, err := a.g.PrepareCommit(CommitParams{})
	must(t, err)
	m, err := parseMessage(p.Commit)
	must(t, err)
	bad := m.public.authContent
	bad.confirmationTag = random(32)
	b.refuses(protectPublic(a.g.suite, &bad, a.g.secrets.membershipKey, a.g.context), ErrInvalidCommit)
	b.receive(p.Commit)
}

// RFC 9420, Section 6.2: a member's PublicMessage carries a membership tag.
func TestMembershipTag(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	p, err := a.g.PrepareCommit(CommitParams{})
	must(t, err)
	m, err := parseMessage(p.Commit)
	must(t, err)
	b.refuses(protectPublic(a.g.suite, &m.public.authContent, random(32), a.g.context), ErrSignature)
	b.receive(p.Commit)
}

// RFC 9420, Section 6: application data never travels as a PublicMessage.
func TestNoPublicContent(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	ac := &authContent{wire: WirePublicMessage, content: a.g.frame(nil, body{typ: ContentApplication, application: []byte("x")})}
	must(t, ac.sign(a.g.suite, a.id, a.g.context))
	b.refuses(protectPublic(a.g.suite, ac, a.g.secrets.membershipKey, a.g.context), ErrMalformed)
}
