// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"errors"
	"testing"
)

// found makes a group that succeeds old, of the given devices, and returns how
// each of them joins it.
func found(t *testing.T, old *device, usage PSKUsage, params CreateParams, others ...*device) func(*device, JoinParams) error {
	t.Helper()
	link, err := old.g.Link(usage)
	must(t, err)
	params.At = now
	g, err := Create(old.cfg, old.id, params)
	must(t, err)
	props := []Proposal{PSKProposal(link)}
	kps, kss := map[*device]*KeyPackage{}, map[*device]*KeyPackageSecrets{}
	for _, d := range others {
		kps[d], kss[d] = d.keyPackage(params.Suite)
		props = append(props, AddProposal(kps[d]))
	}
	p, err := g.PrepareCommit(CommitParams{Proposals: props, Previous: old.g, At: now})
	must(t, err)
	must(t, g.Apply(p.Staged))
	return func(d *device, jp JoinParams) error {
		jp.Tree, jp.At = p.Tree, now
		h, err := Join(d.cfg, d.id, p.Welcome, kps[d], kss[d], jp)
		if err == nil {
			equal(t, "authenticator", h.EpochAuthenticator(), g.EpochAuthenticator())
		}
		return err
	}
}

func refusesJoin(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// RFC 9420, Section 11.2: a group continues under other parameters, with all
// of its members, and joiners check that.
func TestReInitSuccessor(t *testing.T) {
	all := group(t, quick, 3)
	a, b, c := all[0], all[1], all[2]
	if _, err := a.g.Link(PSKReInit); err == nil {
		t.Fatal("linked to a group that goes on")
	}
	next := ReInit{
		GroupID: []byte("next"), Version: 1, Suite: SuiteMLKEM768P256,
		Extensions: []Extension{RequiredCapabilities{Credentials: []CredentialType{CredentialBasic}}.Extension()},
	}
	p := a.commit(CommitParams{Proposals: []Proposal{ReInitProposal(next)}, NoPath: true})
	b.receive(p.Commit)
	c.receive(p.Commit)
	b.restart()
	right := CreateParams{Suite: next.Suite, GroupID: next.GroupID, Extensions: next.Extensions}
	join := found(t, a, PSKReInit, right, b, c)
	must(t, join(b, JoinParams{Previous: b.g}))
	must(t, join(c, JoinParams{Previous: c.g}))
	refusesJoin(t, "former group not given", join(b, JoinParams{}), ErrUnknownPSK)
	stranger := group(t, quick, 2)[1]
	refusesJoin(t, "another former group", join(b, JoinParams{Previous: stranger.g}), ErrUnknownPSK)
	refusesJoin(t, "member missing", found(t, a, PSKReInit, right, b)(b, JoinParams{Previous: b.g}), ErrInvalidTree)
	for name, wrong := range map[string]CreateParams{
		"suite":      {Suite: quick, GroupID: right.GroupID, Extensions: right.Extensions},
		"group id":   {Suite: right.Suite, GroupID: []byte("other"), Extensions: right.Extensions},
		"extensions": {Suite: right.Suite, GroupID: right.GroupID},
	} {
		refusesJoin(t, name, found(t, a, PSKReInit, wrong, b, c)(b, JoinParams{Previous: b.g}), ErrInvalidTree)
	}
}

// RFC 9420, Section 11.3: a subgroup has only members of its group.
func TestBranch(t *testing.T) {
	all := group(t, quick, 3)
	a, b := all[0], all[1]
	join := found(t, a, PSKBranch, CreateParams{Suite: quick}, b)
	must(t, join(b, JoinParams{Previous: b.g}))
	x := newDevice(t, quick, "x")
	refusesJoin(t, "stranger", found(t, a, PSKBranch, CreateParams{Suite: quick}, b, x)(b, JoinParams{Previous: b.g}), ErrInvalidTree)
	refusesJoin(t, "other suite", found(t, a, PSKBranch, CreateParams{Suite: SuiteMLKEM768P256}, b)(b, JoinParams{Previous: b.g}), ErrInvalidTree)
	// The caller's own comparison decides who is the same member.
	if err := join(b, JoinParams{Previous: b.g, Same: func(_, _ Member) bool { return false }}); !errors.Is(err, ErrInvalidTree) {
		t.Errorf("the caller's comparison is not used: %v", err)
	}
	// Nothing links a group that has begun.
	link, err := a.g.Link(PSKBranch)
	must(t, err)
	if _, err := b.g.PrepareCommit(CommitParams{Proposals: []Proposal{PSKProposal(link)}, Previous: a.g}); !errors.Is(err, ErrInvalidCommit) {
		t.Errorf("linked at epoch 1: %v", err)
	}
}
