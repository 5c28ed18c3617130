// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// A sentProposal is a proposal with its sender, and with its reference if it
// came in a message of its own.
type sentProposal struct {
	*Proposal
	from sender
	ref  []byte
	key  string // of its record
}

// A commitFrame says who commits and what was proposed.
type commitFrame struct {
	list      []sentProposal
	committer LeafIndex // of a member
	external  bool
	auth      Authenticator
	at        time.Time
	founding  bool // first commit of a successor: the PSKs that link groups are allowed
}

// A provisional state is the old one with proposals applied, RFC 9420, Section
// 12.3.
type provisional struct {
	tree         *tree
	extensions   []Extension
	params       parameters
	added        []LeafIndex // increasing
	packages     []*KeyPackage
	removed      []Member
	updated      []LeafIndex
	psks         []PSKID
	externalInit []byte
	reinit       *ReInit
	needsPath    bool
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalidCommit, fmt.Sprintf(format, args...))
}

// checkList applies the rules of RFC 9420, Section 12.2 that need only the list.
func (f *commitFrame) checkList() error {
	count := map[ProposalType]int{}
	touched := map[LeafIndex]bool{}
	for i, p := range f.list {
		count[p.Type]++
		switch p.Type {
		case ProposalUpdate, ProposalRemove:
			l := p.Remove
			if p.Type == ProposalUpdate {
				l = LeafIndex(p.from.index)
			}
			if !f.external && l == f.committer {
				return invalid("committer updates or removes itself by proposal")
			}
			if touched[l] {
				return invalid("two proposals for leaf %d", l)
			}
			touched[l] = true
		case ProposalPSK:
			if count[p.Type] > maxPSKs {
				return invalid("more than %d pre-shared keys", maxPSKs)
			}
			if slices.ContainsFunc(f.list[:i], func(o sentProposal) bool {
				return o.Type == ProposalPSK && o.PSK.equal(*p.PSK)
			}) {
				return invalid("pre-shared key is proposed twice")
			}
		}
	}
	if count[ProposalGroupContextExtensions] > 1 {
		return invalid("several replacements of the extensions")
	}
	if count[ProposalReInit] > 0 && len(f.list) > 1 {
		return invalid("reinit beside other proposals")
	}
	if !f.external {
		if count[ProposalExternalInit] > 0 {
			return invalid("external_init in a member's commit")
		}
		return nil
	}
	return f.checkExternalList(count)
}

// checkExternalList: RFC 9420, Sections 12.2 and 12.4.3.2.
func (f *commitFrame) checkExternalList(count map[ProposalType]int) error {
	for _, p := range f.list {
		if p.ref != nil {
			return invalid("external commit refers to a proposal")
		}
		if p.Type != ProposalExternalInit && p.Type != ProposalRemove && p.Type != ProposalPSK {
			return invalid("proposal type %d in an external commit", p.Type)
		}
	}
	if count[ProposalExternalInit] != 1 || count[ProposalRemove] > 1 {
		return invalid("external commit must hold one external_init and at most one remove")
	}
	return nil
}

// stage validates a proposal list and applies it to a copy of the tree, RFC
// 9420, Sections 12.2 and 12.3.
func (ps *publicState) stage(f *commitFrame) (*provisional, error) {
	if err := f.checkList(); err != nil {
		return nil, err
	}
	p := &provisional{tree: ps.tree.clone(), extensions: ps.ctx.extensions, params: ps.params, needsPath: len(f.list) == 0}
	fresh := newKeyset()
	for _, sp := range f.list {
		p.needsPath = p.needsPath || sp.Type.needsPath()
		if err := ps.stageParameter(p, f, sp); err != nil {
			return nil, err
		}
	}
	for _, sp := range f.list {
		if sp.Type == ProposalUpdate {
			if err := ps.stageUpdate(p, f, sp, fresh); err != nil {
				return nil, err
			}
		}
	}
	for _, sp := range f.list {
		if sp.Type == ProposalRemove {
			leaf := ps.tree.leaf(sp.Remove)
			if leaf == nil {
				return nil, invalid("removed leaf %d is no member", sp.Remove)
			}
			p.removed = append(p.removed, leaf.member(sp.Remove))
			p.tree.remove(sp.Remove)
		}
	}
	if len(p.removed) > 0 {
		p.tree.truncate()
	}
	if err := ps.stageAdds(p, f, fresh); err != nil {
		return nil, err
	}
	if err := fresh.check(p.tree); err != nil {
		return nil, err
	}
	return p, p.checkMembers(f)
}

// stageParameter takes over the proposals that do not touch the tree.
func (ps *publicState) stageParameter(p *provisional, f *commitFrame, sp sentProposal) (err error) {
	switch sp.Type {
	case ProposalGroupContextExtensions:
		p.extensions = sp.Extensions
		if p.params, err = readParameters(sp.Extensions); err != nil {
			return invalid("extensions: %v", err)
		}
		for _, s := range p.params.senders {
			if err := ps.suite.checkCredential(f.auth, s.Credential, s.SignatureKey); err != nil {
				return fmt.Errorf("%w: external sender: %w", ErrInvalidCommit, err)
			}
		}
	case ProposalPSK:
		// RFC 9420, Section 12.1.4.
		if len(sp.PSK.Nonce) != ps.suite.nh() {
			return invalid("nonce of a pre-shared key has %d bytes", len(sp.PSK.Nonce))
		}
		if sp.PSK.Type == PSKResumption && sp.PSK.Usage != PSKApplication && !f.founding {
			return invalid("resumption key for a successor in a group that is none")
		}
		p.psks = append(p.psks, *sp.PSK)
	case ProposalReInit:
		if sp.ReInit.Version < versionMLS10 {
			return invalid("reinit to version %d", sp.ReInit.Version)
		}
		p.reinit = sp.ReInit
	case ProposalExternalInit:
		p.externalInit = sp.ExternalInit
	}
	return nil
}

// stageUpdate: RFC 9420, Section 12.1.2.
func (ps *publicState) stageUpdate(p *provisional, f *commitFrame, sp sentProposal, fresh *keyset) error {
	l := LeafIndex(sp.from.index)
	old := ps.tree.leaf(l)
	if sp.from.typ != senderMember || old == nil {
		return invalid("update is not from a member")
	}
	if err := ps.checkReplacement(p, f, sp.Update, LeafUpdate, l, old); err != nil {
		return fmt.Errorf("%w: update of leaf %d: %w", ErrInvalidCommit, l, err)
	}
	fresh.leaf(sp.Update, l)
	p.updated = append(p.updated, l)
	p.tree.update(l, sp.Update)
	return nil
}

// checkReplacement validates a leaf that takes another's place, RFC 9420,
// Section 7.3. A credential that stays the same is not asked about again.
func (ps *publicState) checkReplacement(p *provisional, f *commitFrame, leaf *LeafNode, source LeafSource, l LeafIndex, old *LeafNode) error {
	auth := f.auth
	if old != nil {
		if bytes.Equal(leaf.EncryptionKey, old.EncryptionKey) {
			return fmt.Errorf("%w: encryption key is not renewed", ErrInvalidLeaf)
		}
		if bytes.Equal(leaf.SignatureKey, old.SignatureKey) &&
			bytes.Equal(leaf.Credential.append(nil), old.Credential.append(nil)) {
			auth = unchanged{}
		}
	}
	if err := ps.suite.checkLeaf(leaf, source, auth, ps.ctx.groupID, l, f.at); err != nil {
		return err
	}
	return leaf.checkParameters(p.extensions, &p.params)
}

// unchanged stands in for the Authenticator where a credential was approved
// before.
type unchanged struct{}

func (unchanged) Authenticate(Credential, []byte) error { return nil }

// stageAdds verifies all added packages side by side, then adds them in order.
func (ps *publicState) stageAdds(p *provisional, f *commitFrame, fresh *keyset) error {
	var adds []*KeyPackage
	for _, sp := range f.list {
		if sp.Type == ProposalAdd {
			adds = append(adds, sp.Add)
		}
	}
	if len(adds) > maxLeaves {
		return invalid("group would have more than %d leaves", maxLeaves)
	}
	bad, alone := each(len(adds), func(i int) error {
		if adds[i].Suite != ps.suite.id {
			return invalid("added key package is for %v", adds[i].Suite)
		}
		if err := adds[i].verifyAlone(f.at); err != nil {
			return fmt.Errorf("%w: added key package: %w", ErrInvalidCommit, err)
		}
		return nil
	})
	for i, kp := range adds {
		if i == bad {
			return alone
		}
		if err := ps.stageAdd(p, f, kp, fresh); err != nil {
			return err
		}
	}
	return nil
}

// stageAdd takes in a package that is verified by itself: RFC 9420, Sections
// 10.1 and 12.1.1.
func (ps *publicState) stageAdd(p *provisional, f *commitFrame, kp *KeyPackage, fresh *keyset) error {
	if err := authenticate(f.auth, kp.Leaf.Credential, kp.Leaf.SignatureKey); err != nil {
		return fmt.Errorf("%w: added key package: %w", ErrInvalidCommit, err)
	}
	if err := kp.Leaf.checkParameters(p.extensions, &p.params); err != nil {
		return fmt.Errorf("%w: added key package: %w", ErrInvalidCommit, err)
	}
	l := p.tree.add(&kp.Leaf)
	fresh.leaf(&kp.Leaf, l)
	p.added, p.packages = append(p.added, l), append(p.packages, kp)
	if uint32(l) >= maxLeaves {
		return invalid("group would have more than %d leaves", maxLeaves)
	}
	return nil
}

// checkMembers compares members with parameters that this commit changes, RFC
// 9420, Sections 7.3 and 12.1.7.
func (p *provisional) checkMembers(f *commitFrame) error {
	if slices.ContainsFunc(f.list, func(sp sentProposal) bool { return sp.Type == ProposalGroupContextExtensions }) {
		for i, l := range p.tree.leaves() {
			if err := l.checkParameters(p.extensions, &p.params); err != nil {
				return fmt.Errorf("%w: leaf %d: %w", ErrInvalidCommit, i, err)
			}
		}
	}
	if len(p.added)+len(p.updated) == 0 {
		return nil
	}
	if err := p.tree.checkCredentialTypes(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidCommit, err)
	}
	return nil
}

// A keyset collects keys that are new to a tree, to find those that it has
// already in one pass, RFC 9420, Section 7.3.
type keyset struct {
	enc, sig map[string]nodeIndex // key to the only node that may hold it
	dup      bool
	tails    [64]uint64 // a bit for the last octets of each key: most others stop here
}

const nowhere = ^nodeIndex(0)

func newKeyset() *keyset { return &keyset{enc: map[string]nodeIndex{}, sig: map[string]nodeIndex{}} }

// tail is the bit of a key in tails.
func tail(key []byte) (word int, bit uint64) {
	n := len(key)
	if n < 2 {
		return 0, 1
	}
	return int(key[n-2] & 63), 1 << (key[n-1] & 63)
}

// has says whether a key is new to the tree, and the node that may hold it.
func (k *keyset) has(m map[string]nodeIndex, key []byte) (nodeIndex, bool) {
	if w, bit := tail(key); k.tails[w]&bit == 0 {
		return 0, false
	}
	at, ok := m[string(key)]
	return at, ok
}

func (k *keyset) put(m map[string]nodeIndex, key []byte, at nodeIndex) {
	if _, dup := m[string(key)]; dup {
		k.dup = true
	}
	m[string(key)] = at
	w, bit := tail(key)
	k.tails[w] |= bit
}

func (k *keyset) leaf(l *LeafNode, at LeafIndex) {
	k.put(k.enc, l.EncryptionKey, at.node())
	k.put(k.sig, l.SignatureKey, at.node())
}

func (k *keyset) check(t *tree) error {
	if k.dup {
		return invalid("a key is introduced twice")
	}
	if len(k.enc)+len(k.sig) == 0 {
		return nil
	}
	for i, n := range t.nodes {
		if n == nil {
			continue
		}
		if at, ok := k.has(k.enc, n.encryptionKey()); ok && at != nodeIndex(i) {
			return invalid("encryption key is already at node %d", i)
		}
		if n.leaf == nil {
			continue
		}
		if at, ok := k.has(k.sig, n.leaf.SignatureKey); ok && at != nodeIndex(i) {
			return invalid("signature key is already at node %d", i)
		}
	}
	return nil
}
