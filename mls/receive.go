// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Received message.
type Received struct {
	Kind  ContentType
	Epoch uint64
	// Sender as of that epoch; of a proposal from outside only the signature
	// key and credential are set, and External says so.
	Sender            Member
	External          bool
	AuthenticatedData []byte
	Plaintext         []byte    // ContentApplication
	Proposal          *Proposal // ContentProposal; kept until the epoch ends
	Commit            *Staged   // ContentCommit; nothing has changed yet
	Delta             Delta     // ContentApplication and ContentProposal
}

// Receive opens an MLSMessage. A refused message changes nothing. at is when the
// relay accepted the message: lifetimes of added KeyPackages are checked at that
// time, not at the time of reading, which may be weeks later. Zero leaves them
// unchecked.
func (g *Group) Receive(message []byte, at time.Time) (*Received, error) {
	if g.removed {
		return nil, ErrRemoved
	}
	m, err := parseMessage(message)
	if err != nil {
		return nil, err
	}
	switch {
	case m.public != nil:
		return g.receivePublic(m.public, at)
	case m.private != nil:
		return g.receivePrivate(m.private, at)
	}
	return nil, fmt.Errorf("%w: not a message of a group", ErrMalformed)
}

// receivePublic: RFC 9420, Section 6.2. Application data never travels so.
func (g *Group) receivePublic(m *publicMessage, at time.Time) (*Received, error) {
	if m.content.typ == ContentApplication {
		return nil, fmt.Errorf("%w: application data in a public message", ErrMalformed)
	}
	if err := g.isCurrent(m.content.groupID, m.content.epoch); err != nil {
		return nil, err
	}
	if err := m.checkMembership(g.suite, g.secrets.membershipKey, g.context); err != nil {
		return nil, err
	}
	return g.receiveHandshake(&m.authContent, nil, at)
}

// receivePrivate: RFC 9420, Section 6.3.
func (g *Group) receivePrivate(m *privateMessage, at time.Time) (*Received, error) {
	if err := g.isCurrent(m.groupID, m.epoch); err != nil {
		if errors.Is(err, ErrPastEpoch) && m.typ == ContentApplication {
			return g.receiveLate(m)
		}
		return nil, err
	}
	d, err := m.openSenderData(g.suite, g.secrets.senderData)
	if err != nil {
		return nil, err
	}
	leaf := g.tree.leaf(d.leaf)
	if leaf == nil {
		return nil, fmt.Errorf("%w: leaf %d is no member", ErrDecrypt, d.leaf)
	}
	if d.leaf == g.own {
		return nil, ErrOwnMessage
	}
	ac, u, err := m.open(g.suite, d, g.keys)
	if err != nil {
		return nil, err
	}
	if m.typ != ContentApplication {
		return g.receiveHandshake(ac, u, at)
	}
	if err := ac.verify(g.suite, leaf.SignatureKey, g.context); err != nil {
		return nil, err
	}
	return g.content(ac, leaf.member(d.leaf), u), nil
}

// content hands out application data and spends its key.
func (g *Group) content(ac *authContent, from Member, u *use) *Received {
	return &Received{
		Kind: ContentApplication, Epoch: ac.content.epoch, Sender: from,
		AuthenticatedData: ac.content.authData, Plaintext: ac.content.application,
		Delta: g.flush(u.consume()),
	}
}

// receiveHandshake verifies a proposal or commit of the present epoch.
func (g *Group) receiveHandshake(ac *authContent, u *use, at time.Time) (*Received, error) {
	c := &ac.content
	if c.sender.typ == senderMember && LeafIndex(c.sender.index) == g.own {
		return nil, ErrOwnMessage
	}
	if err := g.verify(ac); err != nil {
		return nil, err
	}
	r := &Received{
		Kind: c.typ, Epoch: c.epoch, Sender: g.senderOf(c), External: c.sender.typ != senderMember,
		AuthenticatedData: c.authData,
	}
	var err error
	if c.typ == ContentProposal {
		r.Proposal = c.proposal
		r.Delta, err = g.keep(ac, u, at)
		return r, err
	}
	if r.Commit, err = g.stageReceived(ac, u, at); err != nil {
		return nil, err
	}
	return r, nil
}

// senderOf names the sender of verified content.
func (ps *publicState) senderOf(c *framedContent) Member {
	switch c.sender.typ {
	case senderMember:
		return ps.tree.leaf(LeafIndex(c.sender.index)).member(LeafIndex(c.sender.index))
	case senderExternal:
		s := ps.params.senders[c.sender.index]
		return Member{Credential: s.Credential, SignatureKey: s.SignatureKey}
	case senderNewMemberProposal:
		return c.proposal.Add.Leaf.member(0)
	}
	return c.commit.path.leaf.member(0)
}

// keep validates a proposal by itself and keeps it until a commit refers to
// it, RFC 9420, Section 12.1.
func (g *Group) keep(ac *authContent, u *use, at time.Time) (Delta, error) {
	sp, err := g.admit(ac, g.proposals, &commitFrame{auth: g.cfg.Authenticator, at: at})
	if err != nil || sp == nil {
		return nil, err
	}
	g.counter++
	sp.key = fmt.Sprintf("q/%d", g.counter)
	g.proposals = append(g.proposals, *sp)
	d := Delta{{sp.key, sp.marshal(g.ctx.epoch)}}
	if u != nil {
		d = append(d, u.consume()...)
	}
	return g.flush(d), nil
}

// admit checks a verified proposal against the present state. It returns nil
// for one that is kept already.
func (ps *publicState) admit(ac *authContent, kept []sentProposal, f *commitFrame) (*sentProposal, error) {
	ref := ac.proposalRef(ps.suite)
	if slices.ContainsFunc(kept, func(p sentProposal) bool { return string(p.ref) == string(ref) }) {
		return nil, nil
	}
	if len(kept) >= maxProposals {
		return nil, fmt.Errorf("%w: more than %d proposals in one epoch", ErrInvalidCommit, maxProposals)
	}
	sp := sentProposal{Proposal: ac.content.proposal, from: ac.content.sender, ref: ref}
	f.list, f.committer = []sentProposal{sp}, LeafIndex(nowhere)
	if _, err := ps.stage(f); err != nil {
		return nil, err
	}
	return &sp, nil
}

// stageReceived processes another's commit, RFC 9420, Section 12.4.2.
func (g *Group) stageReceived(ac *authContent, u *use, at time.Time) (*Staged, error) {
	if g.closed != nil {
		return nil, ErrReInit
	}
	f := &commitFrame{auth: g.cfg.Authenticator, at: at}
	st, err := g.stageCommit(ac, g.proposals, f)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(st.removed, func(m Member) bool { return m.Leaf == g.own }) {
		s := &Staged{Change: st.change(g.publicState), from: g.epochState}
		s.SelfGone = true
		s.Delta = g.wipe()
		return s, nil
	}
	psks, err := findPSKs(st.psks, g.psk)
	if err != nil {
		return nil, err
	}
	initSecret := g.secrets.initSecret
	if f.external {
		if initSecret, err = g.suite.acceptExternalInit(g.secrets.external, st.externalInit); err != nil {
			return nil, fmt.Errorf("%w: external_init: %w", ErrInvalidCommit, err)
		}
	}
	privs := g.keptPrivs(st.tree)
	commitSecret := g.suite.zero()
	if st.path != nil {
		commitSecret, err = st.tree.openPath(g.own, st.path, ac.content.commit.path, st.added, st.context.marshal(), privs)
		if err != nil {
			return nil, err
		}
	}
	next, _ := g.nextEpoch(st, initSecret, commitSecret, psks, privs)
	if !equalMAC(next.confirmationTag, ac.confirmationTag) {
		return nil, fmt.Errorf("%w: confirmation tag", ErrInvalidCommit)
	}
	return g.staged(st, next, u), nil
}
