// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"fmt"
	"slices"
)

// Link returns the pre-shared key that ties a new group's first commit to this
// one, RFC 9420, Sections 11.2 and 11.3: PSKReInit after a ReInit closed this
// group, PSKBranch for a subgroup. The founder passes it as a PSKProposal of
// the new group's first commit, with this group as CommitParams.Previous.
func (g *Group) Link(usage PSKUsage) (PSKID, error) {
	id := PSKID{Type: PSKResumption, Usage: usage, GroupID: g.ID(), Epoch: g.ctx.epoch}
	switch {
	case usage == PSKReInit && g.closed == nil:
		return id, fmt.Errorf("mls: group was not closed by a reinit")
	case usage != PSKReInit && usage != PSKBranch:
		return id, fmt.Errorf("mls: usage %d links no groups", usage)
	}
	return id, nil
}

// withPrevious looks keys of another group up in it, all others as g does.
func withPrevious(previous *Group, lookup func(PSKID) ([]byte, error)) func(PSKID) ([]byte, error) {
	return func(id PSKID) ([]byte, error) {
		if previous != nil && id.Type == PSKResumption && bytes.Equal(id.GroupID, previous.ctx.groupID) {
			return previous.psk(id)
		}
		return lookup(id)
	}
}

// checkSuccession verifies that a group of epoch 1 is what it claims to
// succeed, RFC 9420, Sections 11.2, 11.3 and 12.4.3.1. same compares members.
func (ps *publicState) checkSuccession(psks []PSKID, previous *Group, same func(old, new Member) bool) error {
	i := slices.IndexFunc(psks, PSKID.founding)
	if i < 0 {
		return nil
	}
	link := psks[i]
	if ps.ctx.epoch != 1 {
		return fmt.Errorf("%w: a successor is joined at epoch 1", ErrInvalidTree)
	}
	if previous == nil || !bytes.Equal(previous.ctx.groupID, link.GroupID) {
		return fmt.Errorf("%w: the group that this one succeeds was not given", ErrUnknownPSK)
	}
	if same == nil {
		same = func(old, new Member) bool { return bytes.Equal(old.SignatureKey, new.SignatureKey) }
	}
	if link.Usage == PSKBranch {
		if ps.suite.id != previous.suite.id {
			return fmt.Errorf("%w: a branch keeps the suite of its group", ErrInvalidTree)
		}
		return counterparts(ps.tree.members(), previous.tree.members(), func(new, old Member) bool { return same(old, new) })
	}
	r := previous.closed
	if r == nil || previous.ctx.epoch != link.Epoch {
		return fmt.Errorf("%w: the last commit of the former group was no reinit", ErrInvalidTree)
	}
	if !bytes.Equal(r.GroupID, ps.ctx.groupID) || r.Version != versionMLS10 || r.Suite != ps.suite.id ||
		!bytes.Equal(appendExtensions(nil, r.Extensions), appendExtensions(nil, ps.ctx.extensions)) {
		return fmt.Errorf("%w: the group is not the one that the reinit names", ErrInvalidTree)
	}
	return counterparts(previous.tree.members(), ps.tree.members(), same)
}

// counterparts fails unless each member of a has its like in b.
func counterparts(a, b []Member, same func(x, y Member) bool) error {
	for _, x := range a {
		if !slices.ContainsFunc(b, func(y Member) bool { return same(x, y) }) {
			return fmt.Errorf("%w: leaf %d has no counterpart in the linked group", ErrInvalidTree, x.Leaf)
		}
	}
	return nil
}
