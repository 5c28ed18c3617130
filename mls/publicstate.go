// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"fmt"
)

// publicState is what members and observers share about an epoch. It is never
// changed once made.
type publicState struct {
	suite           *suiteParams
	ctx             groupContext
	context         []byte // ctx, encoded
	params          parameters
	tree            *tree
	interim         []byte // interim_transcript_hash
	confirmationTag []byte
}

func newPublicState(s *suiteParams, ctx groupContext, t *tree, confirmationTag []byte) (*publicState, error) {
	params, err := readParameters(ctx.extensions)
	if err != nil {
		return nil, err
	}
	return &publicState{s, ctx, ctx.marshal(), params, t, s.interimHash(ctx.confirmed, confirmationTag), confirmationTag}, nil
}

// verifyInfo checks a GroupInfo and tree as whoever joins must, RFC 9420,
// Section 12.4.3.1.
func (g *groupInfo) verifyInfo(s *suiteParams, t *tree, f *commitFrame) (*publicState, error) {
	if err := g.verify(s, t); err != nil {
		return nil, err
	}
	if err := t.check(&g.context, f.auth, f.at); err != nil {
		return nil, err
	}
	ps, err := newPublicState(s, g.context, t, g.confirmationTag)
	if err != nil {
		return nil, err
	}
	for _, es := range ps.params.senders {
		if err := s.checkCredential(f.auth, es.Credential, es.SignatureKey); err != nil {
			return nil, fmt.Errorf("external sender: %w", err)
		}
	}
	return ps, nil
}

// resolve looks up the proposals of a commit, RFC 9420, Section 12.4.
func resolve(c *commit, from sender, known []sentProposal) ([]sentProposal, error) {
	byRef := make(map[string]sentProposal, len(known))
	for _, p := range known {
		byRef[string(p.ref)] = p
	}
	var list []sentProposal
	for _, p := range c.proposals {
		if p.proposal != nil {
			if p.proposal.Type == ProposalUpdate {
				return nil, invalid("update of the committer itself")
			}
			list = append(list, sentProposal{Proposal: p.proposal, from: from})
			continue
		}
		sp, ok := byRef[string(p.ref)]
		if !ok {
			return nil, ErrUnknownProposal
		}
		list = append(list, sp)
	}
	return list, nil
}

// signatureKeyOf finds the key that must have signed content, RFC 9420,
// Section 6.1.
func (ps *publicState) signatureKeyOf(c *framedContent) ([]byte, error) {
	if err := c.checkSender(); err != nil {
		return nil, err
	}
	switch c.sender.typ {
	case senderExternal:
		if int64(c.sender.index) >= int64(len(ps.params.senders)) {
			return nil, fmt.Errorf("%w: external sender %d is not listed", ErrSignature, c.sender.index)
		}
		return ps.params.senders[c.sender.index].SignatureKey, nil
	case senderNewMemberProposal:
		return c.proposal.Add.Leaf.SignatureKey, nil
	case senderNewMemberCommit:
		return c.commit.path.leaf.SignatureKey, nil
	}
	leaf := ps.tree.leaf(LeafIndex(c.sender.index))
	if leaf == nil {
		return nil, fmt.Errorf("%w: leaf %d is no member", ErrSignature, c.sender.index)
	}
	return leaf.SignatureKey, nil
}

// verify checks a message's group, epoch and signature.
func (ps *publicState) verify(ac *authContent) error {
	if err := ps.isCurrent(ac.content.groupID, ac.content.epoch); err != nil {
		return err
	}
	key, err := ps.signatureKeyOf(&ac.content)
	if err != nil {
		return err
	}
	return ac.verify(ps.suite, key, ps.context)
}

func (ps *publicState) isCurrent(groupID []byte, epoch uint64) error {
	switch {
	case string(groupID) != string(ps.ctx.groupID):
		return ErrWrongGroup
	case epoch > ps.ctx.epoch:
		return ErrFutureEpoch
	case epoch < ps.ctx.epoch:
		return ErrPastEpoch
	}
	return nil
}

// A stagedPublic commit is what can be known of a commit without secrets.
type stagedPublic struct {
	*provisional
	from    LeafIndex // the committer, after the commit
	path    []step    // nil without a path
	list    []sentProposal
	context groupContext // provisional: old confirmed transcript hash
	ac      *authContent
}

// stageCommit validates and applies the public part of a commit whose
// signature is verified, RFC 9420, Section 12.4.2.
func (ps *publicState) stageCommit(ac *authContent, known []sentProposal, f *commitFrame) (*stagedPublic, error) {
	c := ac.content.commit
	list, err := resolve(c, ac.content.sender, known)
	if err != nil {
		return nil, err
	}
	f.list, f.committer = list, LeafIndex(ac.content.sender.index)
	f.external = ac.content.sender.typ == senderNewMemberCommit
	p, err := ps.stage(f)
	if err != nil {
		return nil, err
	}
	st := &stagedPublic{provisional: p, from: f.committer, list: list, ac: ac}
	if c.path == nil {
		if p.needsPath {
			return nil, invalid("path is missing")
		}
	} else if err := st.mergePath(ps, c.path, f); err != nil {
		return nil, err
	}
	st.context = ps.nextContext(p)
	return st, nil
}

// nextContext is the provisional GroupContext of RFC 9420, Section 12.4.1.
func (ps *publicState) nextContext(p *provisional) groupContext {
	return groupContext{ps.ctx.suite, ps.ctx.groupID, ps.ctx.epoch + 1, p.tree.rootHash(), ps.ctx.confirmed, p.extensions}
}

// mergePath validates a commit's path and merges it, RFC 9420, Section 12.4.2.
func (st *stagedPublic) mergePath(ps *publicState, up *updatePath, f *commitFrame) error {
	var old *LeafNode
	if f.external {
		st.from = st.tree.place(up.leaf)
		if len(st.removed) > 0 {
			old = ps.tree.leaf(st.removed[0].Leaf)
		}
	} else {
		old = ps.tree.leaf(st.from)
	}
	if err := ps.checkReplacement(st.provisional, f, up.leaf, LeafCommit, st.from, old); err != nil {
		return fmt.Errorf("%w: committer's leaf: %w", ErrInvalidCommit, err)
	}
	fresh := newKeyset()
	fresh.put(fresh.sig, up.leaf.SignatureKey, st.from.node())
	at := nowhere
	if f.external {
		at = st.from.node() // it was placed above
	}
	fresh.put(fresh.enc, up.leaf.EncryptionKey, at)
	for _, n := range up.nodes {
		fresh.put(fresh.enc, n.encryptionKey, nowhere)
	}
	if err := fresh.check(st.tree); err != nil {
		return err
	}
	var err error
	if st.path, err = st.tree.mergePath(st.from, up, st.added); err != nil {
		return err
	}
	if st.path == nil {
		st.path = []step{}
	}
	if err := st.tree.checkReplacedType(old, up.leaf); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidCommit, err)
	}
	return nil
}

// confirm completes an epoch's transcript.
func (ps *publicState) confirm(tag []byte) {
	ps.interim, ps.confirmationTag = ps.suite.interimHash(ps.ctx.confirmed, tag), tag
}

// advance makes the next epoch's public state of a signed commit, to be
// confirmed.
func (st *stagedPublic) advance(ps *publicState) *publicState {
	ctx := st.context
	ctx.confirmed = ps.suite.confirmedHash(ps.interim, st.ac)
	return &publicState{ps.suite, ctx, ctx.marshal(), st.params, st.tree, nil, nil}
}

// change describes a commit to the caller.
func (st *stagedPublic) change(ps *publicState) Change {
	c := Change{
		GroupID: ps.ctx.groupID, Epoch: ps.ctx.epoch + 1,
		Committer: st.tree.leaf(st.from).member(st.from),
		External:  st.ac.content.sender.typ == senderNewMemberCommit,
		Removed:   st.removed, ReInit: st.reinit,
		AuthenticatedData: st.ac.content.authData,
		Path:              st.ac.content.commit.path != nil,
	}
	for _, l := range st.added {
		c.Added = append(c.Added, st.tree.leaf(l).member(l))
	}
	for _, l := range st.updated {
		c.Updated = append(c.Updated, st.tree.leaf(l).member(l))
	}
	for _, p := range st.list {
		c.Proposals = append(c.Proposals, *p.Proposal)
	}
	return c
}

// IsResync says whether a commit is an external commit that replaces exactly
// the joiner's own old leaf and does nothing else. same decides whether two
// leaves are one device; nil compares signature keys.
func IsResync(c Change, same func(old, new Member) bool) bool {
	if !c.External || len(c.Removed) != 1 || len(c.Added)+len(c.Updated) != 0 || c.ReInit != nil {
		return false
	}
	for _, p := range c.Proposals {
		if p.Type != ProposalExternalInit && p.Type != ProposalRemove {
			return false
		}
	}
	if same == nil {
		same = func(old, new Member) bool { return string(old.SignatureKey) == string(new.SignatureKey) }
	}
	return same(c.Removed[0], c.Committer)
}
