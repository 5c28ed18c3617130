// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"errors"
	"fmt"
)

// A Sealed message must be persisted with its Delta before it is sent.
type Sealed struct {
	Message []byte // MLSMessage
	Delta   Delta
}

// ErrCommitFirst: a proposal was received that nobody has committed yet; RFC
// 9420, Section 12.4 forbids to send content before a commit.
var ErrCommitFirst = errors.New("mls: a received proposal must be committed before content is sent")

// Encrypt seals content for the group, RFC 9420, Section 6.3. It signs once.
// authenticatedData travels in clear, signed and authenticated.
func (g *Group) Encrypt(plaintext, authenticatedData []byte) (*Sealed, error) {
	if err := g.usable(); err != nil {
		return nil, err
	}
	if len(g.proposals) > 0 {
		return nil, ErrCommitFirst
	}
	if len(plaintext)+len(authenticatedData) > maxPlaintext {
		return nil, fmt.Errorf("mls: content of %d bytes; at most %d fit", len(plaintext)+len(authenticatedData), maxPlaintext)
	}
	ac := &authContent{wire: WirePrivateMessage, content: g.frame(authenticatedData,
		body{typ: ContentApplication, application: plaintext})}
	if err := ac.sign(g.suite, g.id, g.context); err != nil {
		return nil, err
	}
	u, err := g.keys.takeNext(ratchetFor(g.own, ContentApplication))
	if err != nil {
		return nil, err
	}
	size := opaqueSize(len(plaintext)) + opaqueSize(len(ac.signature))
	size = min(max(g.cfg.pad(size), size), 2*maxPlaintext)
	return &Sealed{protectPrivate(g.suite, ac, g.secrets.senderData, u, size), g.flush(u.consume())}, nil
}

func (g *Group) frame(authData []byte, b body) framedContent {
	return framedContent{g.ctx.groupID, g.ctx.epoch, sender{senderMember, uint32(g.own)}, authData, b}
}

// Propose makes a proposal for others to commit, as a PublicMessage. It signs
// once.
func (g *Group) Propose(p Proposal, authenticatedData []byte) (*Sealed, error) {
	if p.Type == ProposalUpdate {
		return nil, invalid("updates are made by ProposeUpdate")
	}
	own, err := g.ownProposals([]Proposal{p})
	if err != nil {
		return nil, err
	}
	return g.propose(&own[0], authenticatedData, nil)
}

// ProposeUpdate proposes new keys for this member, RFC 9420, Section 12.1.2.
// It signs twice.
func (g *Group) ProposeUpdate(authenticatedData []byte) (*Sealed, error) {
	if err := g.usable(); err != nil {
		return nil, err
	}
	priv, err := g.suite.generateKey()
	if err != nil {
		return nil, err
	}
	leaf := *g.tree.leaf(g.own)
	leaf.EncryptionKey, leaf.Source, leaf.Lifetime, leaf.ParentHash = priv.public(), LeafUpdate, Lifetime{}, nil
	if err := leaf.sign(g.suite, g.id, g.ctx.groupID, g.own); err != nil {
		return nil, err
	}
	return g.propose(&Proposal{Type: ProposalUpdate, Update: &leaf}, authenticatedData, priv)
}

// propose signs a proposal and keeps it like those of others.
func (g *Group) propose(p *Proposal, authData []byte, priv *privKey) (*Sealed, error) {
	if err := g.usable(); err != nil {
		return nil, err
	}
	ac := &authContent{wire: WirePublicMessage, content: g.frame(authData, body{typ: ContentProposal, proposal: p})}
	if err := ac.sign(g.suite, g.id, g.context); err != nil {
		return nil, err
	}
	f := &commitFrame{auth: g.cfg.Authenticator}
	sp, err := g.admit(ac, g.proposals, f)
	if err != nil {
		return nil, err
	}
	if sp == nil {
		return nil, invalid("the same proposal was made before")
	}
	g.counter++
	sp.key = fmt.Sprintf("q/%d", g.counter)
	g.proposals = append(g.proposals, *sp)
	d := Delta{{sp.key, sp.marshal(g.ctx.epoch)}}
	if priv != nil {
		u := pendingUpdate{fmt.Sprintf("u/%d", g.counter), priv}
		g.updates = append(g.updates, u)
		d = append(d, Record{u.key, u.marshal(g.ctx.epoch)})
	}
	return &Sealed{protectPublic(g.suite, ac, g.secrets.membershipKey, g.context), g.flush(d)}, nil
}
