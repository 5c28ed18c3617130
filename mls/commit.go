// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"
)

// CommitParams says what a commit does.
type CommitParams struct {
	// Proposals are carried in the commit itself.
	Proposals []Proposal
	// IgnorePending leaves out the proposals that were received; without it
	// all that go together are committed by reference.
	IgnorePending bool
	// NoPath leaves out the update path where RFC 9420, Section 12.4 allows
	// it (adds, PSKs and ReInit only): cheaper, heals nothing.
	NoPath bool
	// Private sends the commit as a PrivateMessage.
	Private bool
	// TreeInWelcome puts the ratchet tree in the Welcome, at the price of one
	// more signature; otherwise joiners need it from elsewhere (Group.Tree).
	TreeInWelcome bool
	// NoGroupInfo makes no GroupInfo, which saves a signature where nobody is
	// added.
	NoGroupInfo bool
	// Credential replaces this member's credential, a renewed certificate of
	// the same key; nil keeps it. Needs a path.
	Credential *Credential
	// Previous is the group that this one succeeds, in the first commit of a
	// new group whose proposals hold its Link.
	Previous *Group
	// AuthenticatedData travels with the commit, signed, in clear.
	AuthenticatedData []byte
	// At checks lifetimes of added members; zero leaves them unchecked.
	At time.Time
}

// A PendingCommit is a commit of this member that has not been applied.
type PendingCommit struct {
	*Staged
	Commit    []byte // MLSMessage
	Welcome   []byte // MLSMessage; nil if nobody is added
	GroupInfo []byte // MLSMessage with external_pub, without the tree; nil under NoGroupInfo
	Tree      []byte // ratchet tree of the next epoch; nil if nobody is added
	// Spent must be written before the commit is sent, whatever becomes of
	// it: the key that encrypted it. Empty unless CommitParams.Private is set.
	Spent Delta
}

// A Change is what a commit does to a group.
type Change struct {
	GroupID   []byte
	Epoch     uint64 // the epoch that the commit leads to
	Committer Member // after the commit
	External  bool   // the committer joins by this commit
	Added     []Member
	Removed   []Member   // as they were; an external committer's old leaf included
	Updated   []Member   // by Update proposals; the committer's path is not listed
	Proposals []Proposal // all, resolved, in order
	ReInit    *ReInit    // the group is closed by this commit
	SelfGone  bool       // this member is removed; the Group ends with this commit
	// AuthenticatedData came with the commit.
	AuthenticatedData []byte
	// Path says whether the committer's keys were renewed.
	Path bool
}

// A Staged commit has been checked and not applied.
type Staged struct {
	Change
	Delta Delta       // from the present state to the next
	from  *epochState // nil for a joiner
	next  *Group
	spend *use // key of a commit that came as a PrivateMessage
}

// Group returns the group as it will be after the commit; nil if SelfGone.
// It is how an external joiner obtains its group; a member calls Apply.
func (s *Staged) Group() *Group { return s.next }

// PrepareCommit makes a commit, RFC 9420, Section 12.4.1, and leaves the group
// as it is. It signs the commit, its leaf unless NoPath is set, and one
// GroupInfo, which the Welcome shares.
func (g *Group) PrepareCommit(p CommitParams) (*PendingCommit, error) {
	if err := g.usable(); err != nil {
		return nil, err
	}
	c := &commit{}
	me := sender{senderMember, uint32(g.own)}
	var list []sentProposal
	if !p.IgnorePending {
		for _, sp := range g.selectPending(p.Proposals) {
			list = append(list, sp)
			c.proposals = append(c.proposals, proposalOrRef{ref: sp.ref})
		}
	}
	own, err := g.ownProposals(p.Proposals)
	if err != nil {
		return nil, err
	}
	for i := range own {
		list = append(list, sentProposal{Proposal: &own[i], from: me})
		c.proposals = append(c.proposals, proposalOrRef{proposal: &own[i]})
	}
	f := &commitFrame{
		list: list, committer: g.own, auth: g.cfg.Authenticator, at: p.At,
		founding: p.Previous != nil && g.ctx.epoch == 0,
	}
	prov, err := g.stage(f)
	if err != nil {
		return nil, err
	}
	if prov.needsPath && p.NoPath {
		return nil, invalid("these proposals need a path")
	}
	if p.NoPath && p.Credential != nil {
		return nil, invalid("a new credential needs a path")
	}
	return g.makeCommit(c, list, prov, me, g.secrets.initSecret, &p)
}

// ownProposals completes the caller's proposals.
func (g *Group) ownProposals(list []Proposal) ([]Proposal, error) {
	out := slices.Clone(list)
	for i := range out {
		if !out[i].complete() {
			return nil, fmt.Errorf("mls: proposal %d of type %d lacks its body", i, out[i].Type)
		}
		if out[i].Type == ProposalGroupContextExtensions {
			if err := checkExtensions(out[i].Extensions); err != nil {
				return nil, err
			}
		}
		if out[i].Type == ProposalPSK && len(out[i].PSK.Nonce) == 0 {
			id := *out[i].PSK
			id.Nonce = random(g.suite.nh())
			out[i].PSK = &id
		}
	}
	return out, nil
}

// makeCommit turns staged proposals into a commit, for members and for
// external joiners.
func (g *Group) makeCommit(c *commit, list []sentProposal, prov *provisional, me sender, initSecret []byte, p *CommitParams) (*PendingCommit, error) {
	s, t := g.suite, prov.tree
	psks, err := findPSKs(prov.psks, withPrevious(p.Previous, g.psk))
	if err != nil {
		return nil, err
	}
	privs := g.keptPrivs(t)
	path, commitSecret, err := g.renew(t, privs, p)
	if err != nil {
		return nil, err
	}
	st := &stagedPublic{provisional: prov, from: g.own, list: list, context: g.nextContext(prov)}
	if path != nil {
		if c.path, err = path.seal(t, prov.added, st.context.marshal()); err != nil {
			return nil, err
		}
	}
	ac := &authContent{wire: WirePublicMessage, content: framedContent{
		groupID: g.ctx.groupID, epoch: g.ctx.epoch,
		sender: me, authData: p.AuthenticatedData, body: body{typ: ContentCommit, commit: c},
	}}
	if p.Private {
		ac.wire = WirePrivateMessage
	}
	if err := ac.sign(s, g.id, g.context); err != nil {
		return nil, err
	}
	st.ac = ac
	next, j := g.nextEpoch(st, initSecret, commitSecret, psks, privs)
	ac.confirmationTag = next.confirmationTag
	out := &PendingCommit{}
	if len(prov.added) > 0 {
		out.Tree = next.Tree()
	}
	if err = g.protectCommit(out, ac); err != nil {
		return nil, err
	}
	out.Staged = g.staged(st, next, nil)
	if err := g.welcomeJoiners(out, next, j, st, path, psks, p); err != nil {
		return nil, err
	}
	return out, nil
}

// renew gives the committer a new path unless NoPath is set, and adds its
// private keys to privs. Without a path the commit secret is zero.
func (g *Group) renew(t *tree, privs map[nodeIndex]*privKey, p *CommitParams) (*freshPath, []byte, error) {
	if p.NoPath {
		return nil, g.suite.zero(), nil
	}
	leaf := *t.leaf(g.own)
	if p.Credential != nil {
		leaf.Credential = *p.Credential
		if err := g.suite.checkCredential(g.cfg.Authenticator, leaf.Credential, leaf.SignatureKey); err != nil {
			return nil, nil, err
		}
	}
	path, err := t.renewPath(g.own, leaf, g.id, g.ctx.groupID)
	if err != nil {
		return nil, nil, err
	}
	for i, st := range path.steps {
		privs[st.node] = path.keys[i]
	}
	privs[g.own.node()] = path.leafKey
	var old *LeafNode
	if g.secrets != nil { // an external joiner replaces none that was checked here
		old = g.tree.leaf(g.own)
	}
	return path, path.commit, t.checkReplacedType(old, path.leaf)
}

// protectCommit encodes a commit with keys of the epoch that it ends.
func (g *Group) protectCommit(out *PendingCommit, ac *authContent) error {
	if ac.wire == WirePublicMessage {
		var key []byte
		if ac.content.sender.typ == senderMember {
			key = g.secrets.membershipKey
		}
		out.Commit = protectPublic(g.suite, ac, key, g.context)
		return nil
	}
	// The key is spent at once: whether or not the commit wins, it was used.
	u, err := g.keys.takeNext(ratchetFor(g.own, ContentCommit))
	if err != nil {
		return err
	}
	out.Spent = u.consume()
	out.Commit = protectPrivate(g.suite, ac, g.secrets.senderData, u, 0)
	return nil
}

// nextEpoch runs the key schedule for a commit whose signature is made or
// verified. The confirmation tag is made here; a receiver compares it.
func (g *Group) nextEpoch(st *stagedPublic, initSecret, commitSecret []byte, psks []psk, privs map[nodeIndex]*privKey) (*Group, *joiner) {
	s := g.suite
	ps := st.advance(g.publicState)
	j := s.newJoiner(initSecret, commitSecret, s.pskSecret(psks), ps.context)
	secrets, encryption := j.epoch(ps.context)
	ps.confirm(secrets.confirmationTag(s, ps.ctx.confirmed))
	ep := &epochState{publicState: ps, own: g.own, secrets: secrets, privs: privs, closed: st.reinit}
	next := &Group{
		cfg: g.cfg, id: g.id, epochState: ep,
		keys: newSecretTree(s, ps.ctx.epoch, st.tree.width(), encryption),
	}
	return next, j
}

// keptPrivs returns the private keys that still fit a tree.
func (g *Group) keptPrivs(t *tree) map[nodeIndex]*privKey {
	privs := make(map[nodeIndex]*privKey, len(g.privs))
	maps.Copy(privs, g.privs)
	maps.DeleteFunc(privs, func(x nodeIndex, _ *privKey) bool {
		return !t.has(x) || t.at(x) == nil ||
			!t.samePublic(g.tree, x)
	})
	// An own Update that was committed brings its own key.
	if l := t.leaf(g.own); l != nil && privs[g.own.node()] == nil {
		for _, u := range g.updates {
			if bytes.Equal(u.priv.public(), l.EncryptionKey) {
				privs[g.own.node()] = u.priv
			}
		}
	}
	return privs
}

// samePublic says whether a node has the same key in both trees.
func (t *tree) samePublic(o *tree, x nodeIndex) bool {
	return o != nil && o.has(x) && o.at(x) != nil &&
		bytes.Equal(t.at(x).encryptionKey(), o.at(x).encryptionKey())
}

// welcomeJoiners adds GroupInfo and Welcome to a commit, RFC 9420, Section
// 12.4.3.1.
func (g *Group) welcomeJoiners(out *PendingCommit, next *Group, j *joiner, st *stagedPublic, path *freshPath, psks []psk, p *CommitParams) error {
	var info *groupInfo
	var err error
	if !p.NoGroupInfo || (len(st.added) > 0 && !p.TreeInWelcome) {
		if info, err = next.groupInfo(g.id, false); err != nil {
			return err
		}
	}
	if !p.NoGroupInfo {
		out.GroupInfo = info.message()
	}
	if len(st.added) == 0 {
		return nil
	}
	if p.TreeInWelcome {
		if info, err = next.groupInfo(g.id, true); err != nil {
			return err
		}
	}
	w := &welcome{suite: g.suite.id, groupInfo: j.sealGroupInfo(info)}
	secrets := groupSecrets{joiner: j.secret}
	for _, k := range psks {
		secrets.psks = append(secrets.psks, k.id)
	}
	w.secrets = make([]encryptedSecrets, len(st.added))
	_, err = each(len(st.added), func(i int) (err error) {
		mine := secrets
		if path != nil {
			mine.hasPath, mine.path = true, path.secretFor(st.added[i])
		}
		w.secrets[i], err = g.secretsFor(st.packages[i], &mine, w.groupInfo)
		return err
	})
	if err != nil {
		return err
	}
	out.Welcome = (&mlsMessage{wire: WireWelcome, welcome: w}).marshal()
	return nil
}

// secretsFor encrypts group secrets to a KeyPackage.
func (g *Group) secretsFor(kp *KeyPackage, secrets *groupSecrets, info []byte) (encryptedSecrets, error) {
	ref, err := kp.Ref()
	if err != nil {
		return encryptedSecrets{}, err
	}
	c, err := g.suite.encryptWithLabel(kp.InitKey, "Welcome", info, secrets.marshal())
	return encryptedSecrets{ref, c}, err
}

// secretFor is the path secret of the lowest node above both the committer and
// a new leaf.
func (p *freshPath) secretFor(l LeafIndex) []byte {
	for i, st := range p.steps {
		if st.copath.covers(l.node()) {
			return p.secrets[i]
		}
	}
	return nil // unreachable: a member's leaf is never filtered out
}
