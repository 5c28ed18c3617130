// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"fmt"
	"time"
)

// JoinParams helps to read a Welcome.
type JoinParams struct {
	Tree []byte    // ratchet tree, if the Welcome does not hold it
	At   time.Time // refuses leaves from the future; zero does not
	// Previous is the group that the new one succeeds, if a Welcome says so.
	// Same compares members of the two; nil compares signature keys.
	Previous *Group
	Same     func(old, new Member) bool
}

// Join enters a group by a Welcome, RFC 9420, Section 12.4.3.1. The caller
// makes sure that it is not in a group of that ID already.
func Join(cfg Config, id Identity, message []byte, kp *KeyPackage, secrets *KeyPackageSecrets, p JoinParams) (*Group, error) {
	m, err := parseMessage(message)
	if err != nil {
		return nil, err
	}
	if m.welcome == nil {
		return nil, fmt.Errorf("%w: message is not a welcome", ErrMalformed)
	}
	s, err := kp.Suite.params()
	if err != nil {
		return nil, err
	}
	initKey, leafKey, err := secrets.keys(s, kp, id)
	if err != nil {
		return nil, err
	}
	// The secrets that are encrypted to this KeyPackage.
	gs, err := m.welcome.openSecrets(s, kp, initKey)
	if err != nil {
		return nil, err
	}
	if err := gs.checkPSKs(); err != nil {
		return nil, err
	}
	psks, err := findPSKs(gs.psks, withPrevious(p.Previous, cfg.psk))
	if err != nil {
		return nil, err
	}
	// The GroupInfo that they open, and the tree that it names.
	j := s.joinerFrom(gs.joiner, s.pskSecret(psks))
	info, err := j.openGroupInfo(m.welcome.groupInfo)
	if err != nil {
		return nil, err
	}
	if info.context.suite != kp.Suite {
		return nil, fmt.Errorf("%w: group info is for %v", ErrSuite, info.context.suite)
	}
	t, err := info.tree(s, p.Tree)
	if err != nil {
		return nil, err
	}
	ps, err := info.verifyInfo(s, t, &commitFrame{auth: cfg.Authenticator, at: p.At})
	if err != nil {
		return nil, err
	}
	if err := ps.checkSuccession(gs.psks, p.Previous, p.Same); err != nil {
		return nil, err
	}
	ep := &epochState{publicState: ps, privs: map[nodeIndex]*privKey{}}
	if err := ep.findOwn(kp, leafKey); err != nil {
		return nil, err
	}
	if gs.hasPath {
		x := commonAncestor(ep.own.node(), info.signer.node())
		if t.at(x) == nil {
			return nil, fmt.Errorf("%w: path secret for a blank node", ErrInvalidTree)
		}
		if _, err := t.climb(gs.path, t.setNodes(x), ep.privs); err != nil {
			return nil, err
		}
	}
	// The epoch's secrets, confirmed by the tag.
	epochSecrets, encryption := j.epoch(ps.context)
	ep.secrets = epochSecrets
	if !equalMAC(ep.secrets.confirmationTag(s, ps.ctx.confirmed), ps.confirmationTag) {
		return nil, fmt.Errorf("%w: confirmation tag of the group info", ErrInvalidTree)
	}
	return &Group{cfg: cfg, id: id, epochState: ep, keys: newSecretTree(s, ps.ctx.epoch, t.width(), encryption)}, nil
}

// keys parses the secrets and compares them with the package and the identity.
func (ks *KeyPackageSecrets) keys(s *suiteParams, kp *KeyPackage, id Identity) (initKey, leafKey *privKey, err error) {
	if initKey, err = s.parsePrivKey(ks.initKey); err != nil {
		return nil, nil, err
	}
	if leafKey, err = s.parsePrivKey(ks.encryptionKey); err != nil {
		return nil, nil, err
	}
	sig, err := id.key(s)
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(initKey.public(), kp.InitKey) || !bytes.Equal(leafKey.public(), kp.Leaf.EncryptionKey) ||
		!bytes.Equal(sig, kp.Leaf.SignatureKey) {
		return nil, nil, fmt.Errorf("%w: secrets or signer belong to another key package", ErrNotForUs)
	}
	return initKey, leafKey, nil
}

// founding says whether the key links a group to the one it succeeds.
func (p PSKID) founding() bool { return p.Type == PSKResumption && p.Usage != PSKApplication }

// checkPSKs: a key that links to another group must be the only such, RFC
// 9420, Section 12.4.3.1.
func (g *groupSecrets) checkPSKs() error {
	n := 0
	for _, p := range g.psks {
		if p.founding() {
			n++
		}
	}
	if n > 1 {
		return fmt.Errorf("%w: welcome links to several groups", ErrMalformed)
	}
	return nil
}

// findOwn finds the leaf of a KeyPackage in the tree.
func (e *epochState) findOwn(kp *KeyPackage, leafKey *privKey) error {
	want := kp.Leaf.append(nil)
	for i, l := range e.tree.leaves() {
		if bytes.Equal(l.EncryptionKey, kp.Leaf.EncryptionKey) && bytes.Equal(l.append(nil), want) {
			e.own = i
			e.privs[i.node()] = leafKey
			return nil
		}
	}
	return fmt.Errorf("%w: the group has no such leaf", ErrNotForUs)
}

// ExternalParams describes an external commit.
type ExternalParams struct {
	Tree []byte // ratchet tree, if the GroupInfo does not hold it
	// Replace says which member is this device's own old leaf, to be removed
	// in the same commit; nil compares signature keys.
	Replace           func(old Member) bool
	Capabilities      *Capabilities
	LeafExtensions    []Extension
	PSKs              []PSKID
	AuthenticatedData []byte
	At                time.Time
}

// PrepareExternalCommit makes an external commit, RFC 9420, Section 12.4.3.2.
// The Group of the result is the joined group, once the commit is accepted.
// It signs the leaf, the commit and a GroupInfo.
func PrepareExternalCommit(cfg Config, id Identity, message []byte, p ExternalParams) (*PendingCommit, error) {
	info, err := parseGroupInfo(message)
	if err != nil {
		return nil, err
	}
	s, err := info.context.suite.params()
	if err != nil {
		return nil, err
	}
	t, err := info.tree(s, p.Tree)
	if err != nil {
		return nil, err
	}
	ps, err := info.verifyInfo(s, t, &commitFrame{auth: cfg.Authenticator, at: p.At})
	if err != nil {
		return nil, err
	}
	pub, err := info.externalPub()
	if err != nil {
		return nil, err
	}
	kemOutput, initSecret, err := s.externalInit(pub)
	if err != nil {
		return nil, fmt.Errorf("%w: external_pub: %w", ErrInvalidTree, err)
	}
	g := &Group{cfg: cfg, id: id, epochState: &epochState{publicState: ps}}
	list, c, err := g.externalProposals(kemOutput, &p)
	if err != nil {
		return nil, err
	}
	prov, err := ps.stage(&commitFrame{list: list, external: true, auth: cfg.Authenticator, at: p.At})
	if err != nil {
		return nil, err
	}
	if err := g.placeJoiner(prov, &p); err != nil {
		return nil, err
	}
	return g.makeCommit(c, list, prov, sender{typ: senderNewMemberCommit}, initSecret,
		&CommitParams{AuthenticatedData: p.AuthenticatedData, At: p.At})
}

// externalProposals lists what an external commit holds.
func (g *Group) externalProposals(kemOutput []byte, p *ExternalParams) ([]sentProposal, *commit, error) {
	key, err := g.id.key(g.suite)
	if err != nil {
		return nil, nil, err
	}
	replace := p.Replace
	if replace == nil {
		replace = func(old Member) bool { return bytes.Equal(old.SignatureKey, key) }
	}
	props := []Proposal{{Type: ProposalExternalInit, ExternalInit: kemOutput}}
	for i, l := range g.tree.leaves() {
		if replace(l.member(i)) {
			props = append(props, RemoveProposal(i))
		}
	}
	for _, id := range p.PSKs {
		props = append(props, PSKProposal(id))
	}
	if props, err = g.ownProposals(props); err != nil {
		return nil, nil, err
	}
	c, list := &commit{}, []sentProposal{}
	for i := range props {
		list = append(list, sentProposal{Proposal: &props[i], from: sender{typ: senderNewMemberCommit}})
		c.proposals = append(c.proposals, proposalOrRef{proposal: &props[i]})
	}
	return list, c, nil
}

// placeJoiner puts an unsigned leaf where the path will put the signed one.
func (g *Group) placeJoiner(prov *provisional, p *ExternalParams) error {
	leaf, err := newLeaf(g.suite, g.id, nil, p.Capabilities, p.LeafExtensions)
	if err != nil {
		return err
	}
	if err := leaf.checkParameters(prov.extensions, &prov.params); err != nil {
		return err
	}
	if err := g.suite.checkCredential(g.cfg.Authenticator, leaf.Credential, leaf.SignatureKey); err != nil {
		return err
	}
	g.own = prov.tree.place(leaf)
	fresh := newKeyset()
	fresh.put(fresh.sig, leaf.SignatureKey, g.own.node())
	return fresh.check(prov.tree)
}
