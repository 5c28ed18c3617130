// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A PublicGroup follows a group from outside, without secrets: a relay's view.
// Its methods must not be called from two goroutines at once.
type PublicGroup struct {
	auth Authenticator
	*publicState
	proposals []sentProposal // seen in the present epoch
	counter   int
	garbage   Delta
}

// NewPublicGroup verifies a GroupInfo and its ratchet tree: signatures, tree
// hash, parent hashes, every leaf, every credential. tree may be nil if the
// GroupInfo holds it.
func NewPublicGroup(auth Authenticator, message, tree []byte, at time.Time) (*PublicGroup, error) {
	info, err := parseGroupInfo(message)
	if err != nil {
		return nil, err
	}
	s, err := info.context.suite.params()
	if err != nil {
		return nil, err
	}
	t, err := info.tree(s, tree)
	if err != nil {
		return nil, err
	}
	ps, err := info.verifyInfo(s, t, &commitFrame{auth: auth, at: at})
	if err != nil {
		return nil, err
	}
	return &PublicGroup{auth: auth, publicState: ps}, nil
}

// LoadPublicGroup restores a PublicGroup from all of its records.
func LoadPublicGroup(auth Authenticator, records Delta) (*PublicGroup, error) {
	i := slices.IndexFunc(records, func(r Record) bool { return r.Key == "epoch" })
	if i < 0 {
		return nil, badRecord("epoch")
	}
	e, err := decode(records[i].Value, func(r *reader) *epochRecord {
		e := &epochRecord{}
		e.readPublic(r)
		return e
	})
	if err != nil {
		return nil, badRecord("epoch")
	}
	s, err := e.ctx.suite.params()
	if err != nil {
		return nil, err
	}
	ps, err := loadPublic(s, e, records)
	if err != nil {
		return nil, err
	}
	p := &PublicGroup{auth: auth, publicState: ps}
	loader := &Group{epochState: &epochState{publicState: ps}}
	for _, r := range records {
		if strings.HasPrefix(r.Key, "q/") {
			if err := loader.loadProposal(r); err != nil {
				return nil, badRecord(r.Key)
			}
		}
	}
	p.proposals, p.garbage, p.counter = loader.proposals, loader.garbage, int(loader.counter)
	return p, nil
}

// ID returns the group's identifier.
func (p *PublicGroup) ID() []byte { return bytes.Clone(p.ctx.groupID) }

// Epoch returns the present epoch.
func (p *PublicGroup) Epoch() uint64 { return p.ctx.epoch }

// Suite returns the cipher suite.
func (p *PublicGroup) Suite() Suite { return p.suite.id }

// Members lists the members by leaf index.
func (p *PublicGroup) Members() []Member { return p.tree.members() }

// Extensions returns the group context's extensions.
func (p *PublicGroup) Extensions() []Extension { return slices.Clone(p.ctx.extensions) }

// Tree returns the encoded ratchet tree, for joiners.
func (p *PublicGroup) Tree() []byte { return p.tree.append(nil) }

// State returns all records.
func (p *PublicGroup) State() Delta {
	d := append(Delta{{"epoch", p.publicState.marshal([]byte{stateVersion})}}, p.tree.records(nil)...)
	for _, q := range p.proposals {
		d = append(d, Record{q.key, q.marshal(p.ctx.epoch)})
	}
	return d.Merge(nil)
}

// A PublicStaged commit has been checked and not applied.
type PublicStaged struct {
	Change
	Delta Delta
	from  *publicState
	next  *publicState
}

// handshake verifies a PublicMessage of the present epoch as far as it can be
// verified from outside: the membership tag is for members.
func (p *PublicGroup) handshake(message []byte, want ContentType) (*authContent, error) {
	m, err := parseMessage(message)
	if err != nil {
		return nil, err
	}
	if m.public == nil || m.public.content.typ != want {
		return nil, fmt.Errorf("%w: not a public message of content type %d", ErrMalformed, want)
	}
	ac := &m.public.authContent
	return ac, p.verify(ac)
}

// Check verifies a PublicMessage commit and stages it: epoch, membership and
// signature of the sender, proposals, path, leaves. An observer cannot check
// the confirmation tag.
func (p *PublicGroup) Check(message []byte, at time.Time) (*PublicStaged, error) {
	ac, err := p.handshake(message, ContentCommit)
	if err != nil {
		return nil, err
	}
	st, err := p.stageCommit(ac, p.proposals, &commitFrame{auth: p.auth, at: at})
	if err != nil {
		return nil, err
	}
	next := st.advance(p.publicState)
	next.confirm(ac.confirmationTag)
	s := &PublicStaged{Change: st.change(p.publicState), from: p.publicState, next: next}
	s.Delta = append(s.Delta, p.garbage...)
	s.Delta = append(s.Delta, Record{"epoch", next.marshal([]byte{stateVersion})})
	s.Delta = append(s.Delta, next.tree.records(p.tree)...)
	for _, q := range p.proposals {
		s.Delta = append(s.Delta, Record{Key: q.key})
	}
	return s, nil
}

// CheckGroupInfo verifies that a GroupInfo describes the epoch after the
// commit and is signed by a member of it.
func (s *PublicStaged) CheckGroupInfo(message []byte) error { return s.next.checkGroupInfo(message) }

// CheckGroupInfo verifies that a GroupInfo describes the present epoch and is
// signed by a member of it.
func (p *PublicGroup) CheckGroupInfo(message []byte) error {
	return p.publicState.checkGroupInfo(message)
}

func (ps *publicState) checkGroupInfo(message []byte) error {
	info, err := parseGroupInfo(message)
	if err != nil {
		return err
	}
	if !bytes.Equal(info.context.marshal(), ps.context) || !bytes.Equal(info.confirmationTag, ps.confirmationTag) {
		return fmt.Errorf("%w: group info is not of this epoch", ErrStale)
	}
	pub, err := info.externalPub()
	if err != nil {
		return err
	}
	if err := ps.suite.checkHPKEKey(pub); err != nil {
		return err
	}
	return info.verify(ps.suite, ps.tree)
}

// Members lists the members after the commit.
func (s *PublicStaged) Members() []Member { return s.next.tree.members() }

// Tree returns the encoded ratchet tree after the commit.
func (s *PublicStaged) Tree() []byte { return s.next.tree.append(nil) }

// See verifies a PublicMessage proposal and keeps it until the epoch ends, so
// that commits can refer to it. The Delta must be persisted.
func (p *PublicGroup) See(message []byte, at time.Time) (*Proposal, Delta, error) {
	ac, err := p.handshake(message, ContentProposal)
	if err != nil {
		return nil, nil, err
	}
	sp, err := p.admit(ac, p.proposals, &commitFrame{auth: p.auth, at: at})
	if err != nil || sp == nil {
		return ac.content.proposal, nil, err
	}
	p.counter++
	sp.key = fmt.Sprintf("q/%d", p.counter)
	p.proposals = append(p.proposals, *sp)
	d := append(p.garbage, Record{sp.key, sp.marshal(p.ctx.epoch)})
	p.garbage = nil
	return sp.Proposal, d, nil
}

// Apply moves to the state after a commit. The caller has persisted the Delta
// before.
func (p *PublicGroup) Apply(s *PublicStaged) error {
	if s.from != p.publicState {
		return ErrStale
	}
	written := map[string]bool{}
	for _, r := range s.Delta {
		written[r.Key] = true
	}
	p.garbage = nil
	for _, q := range p.proposals {
		if !written[q.key] {
			p.garbage = append(p.garbage, Record{Key: q.key})
		}
	}
	p.publicState, p.proposals = s.next, nil
	return nil
}
