// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// picky refuses one name.
type picky string

func (p picky) Authenticate(c Credential, _ []byte) error {
	if string(c.Identity) == string(p) {
		return errors.New("not on the list")
	}
	return nil
}

// What an observer refuses to start from: each beside the honest original.
func TestPublicGroupVerifiesItsStart(t *testing.T) {
	all := group(t, quick, 4)
	a := all[0]
	for _, d := range all[:3] {
		p := d.commit(CommitParams{})
		for _, o := range all {
			if o != d {
				o.receive(p.Commit)
			}
		}
	}
	info, err := a.g.GroupInfo()
	must(t, err)
	start := func(change func(*groupInfo, *tree)) error {
		gi, err := parseGroupInfo(info)
		must(t, err)
		tr, err := parseTree(a.g.suite, a.g.Tree())
		must(t, err)
		change(gi, tr)
		_, err = NewPublicGroup(trustAll{}, gi.message(), tr.append(nil), now)
		return err
	}
	// resign makes the change consistent up to the rule in question.
	resign := func(gi *groupInfo, tr *tree) {
		tr.hash = make([][]byte, len(tr.nodes))
		gi.context.treeHash = tr.rootHash()
		gi.signature, err = a.g.suite.signWithLabel(a.id.Signer, "GroupInfoTBS", gi.appendBody(nil))
		must(t, err)
	}
	edit := func(tr *tree, x nodeIndex, f func(*parentNode)) {
		p := *tr.nodes[x].parent
		f(&p)
		tr.nodes[x] = &node{parent: &p}
	}
	for _, r := range []struct {
		name   string
		want   error
		change func(*groupInfo, *tree)
	}{
		{"control", nil, func(*groupInfo, *tree) {}},
		{"control, signed anew", nil, resign},
		{"signature", ErrSignature, func(gi *groupInfo, _ *tree) { gi.signature[10] ^= 1 }},
		{"signer is no member", ErrInvalidTree, func(gi *groupInfo, _ *tree) { gi.signer = 9 }},
		{"another signer", ErrSignature, func(gi *groupInfo, _ *tree) { gi.signer = 1 }},
		{"tree hash", ErrInvalidTree, func(_ *groupInfo, tr *tree) { tr.nodes[6] = nil; tr.nodes[5] = nil }},
		{"parent hash", ErrInvalidTree, func(gi *groupInfo, tr *tree) {
			edit(tr, 3, func(p *parentNode) { p.parentHash = random(32) })
			resign(gi, tr)
		}},
		{"parent key", ErrInvalidTree, func(gi *groupInfo, tr *tree) {
			k, _ := a.g.suite.generateKey()
			edit(tr, 3, func(p *parentNode) { p.encryptionKey = k.public() })
			resign(gi, tr)
		}},
		{"key twice", ErrInvalidTree, func(gi *groupInfo, tr *tree) {
			edit(tr, 3, func(p *parentNode) { p.encryptionKey = tr.nodes[0].leaf.EncryptionKey })
			resign(gi, tr)
		}},
		{"unmerged leaf below another node", ErrInvalidTree, func(gi *groupInfo, tr *tree) {
			edit(tr, 1, func(p *parentNode) { p.unmerged = []LeafIndex{3} })
			resign(gi, tr)
		}},
		{"one member in two places", ErrInvalidTree, func(gi *groupInfo, tr *tree) {
			tr.nodes[6] = tr.nodes[4]
			resign(gi, tr)
		}},
	} {
		if err := start(r.change); !errors.Is(err, r.want) {
			t.Errorf("%s: %v, want %v", r.name, err, r.want)
		}
	}
	if _, err := NewPublicGroup(picky("c"), info, a.g.Tree(), now); !errors.Is(err, ErrCredential) {
		t.Errorf("refused credential: %v", err)
	}
	if _, err := NewPublicGroup(picky("z"), info, a.g.Tree(), now); err != nil {
		t.Errorf("control: %v", err)
	}
	if _, err := NewPublicGroup(trustAll{}, info, nil, now); !errors.Is(err, ErrNeedTree) {
		t.Errorf("no tree: %v", err)
	}
	if _, err := NewPublicGroup(trustAll{}, info, a.g.Tree(), now.Add(-48*time.Hour)); !errors.Is(err, ErrLifetime) {
		t.Errorf("leaf from the future: %v", err)
	}
	if _, err := NewPublicGroup(trustAll{}, info, a.g.Tree(), now.Add(48*time.Hour)); err != nil {
		t.Errorf("a quiet member's leaf has expired: %v", err)
	}
}

// RFC 9420, Section 7.3: leaves are verified one by one, also where no parent
// hash covers them.
func TestTreeLeavesAreVerified(t *testing.T) {
	a := newDevice(t, quick, "a").create(quick)
	for name, r := range map[string]struct {
		want   error
		change func(*LeafNode)
	}{
		"control":   {nil, func(*LeafNode) {}},
		"signature": {ErrSignature, func(l *LeafNode) { l.Signature = bytes.Clone(l.Signature); l.Signature[10] ^= 1 }},
		"content":   {ErrSignature, func(l *LeafNode) { l.Lifetime.NotAfter++ }},
	} {
		l := *a.g.tree.leaf(0)
		r.change(&l)
		tr := &tree{suite: a.g.suite}
		tr.add(&l)
		info := &groupInfo{context: a.g.ctx, confirmationTag: a.g.confirmationTag}
		info.context.treeHash = tr.rootHash()
		var err error
		info.signature, err = a.g.suite.signWithLabel(a.id.Signer, "GroupInfoTBS", info.appendBody(nil))
		must(t, err)
		if _, err := NewPublicGroup(trustAll{}, info.message(), tr.append(nil), now); !errors.Is(err, r.want) {
			t.Errorf("%s: %v, want %v", name, err, r.want)
		}
	}
}

// RFC 9420, Section 12.4.3.3: the tree must be the one that the group agreed
// on, not another valid one of the same member.
func TestTreeHashIsCompared(t *testing.T) {
	a := newDevice(t, quick, "a").create(quick)
	info, err := a.g.GroupInfo()
	must(t, err)
	right := a.g.Tree()
	other := a.create(quick).g.Tree()
	if _, err := NewPublicGroup(trustAll{}, info, other, now); !errors.Is(err, ErrInvalidTree) {
		t.Errorf("another tree: %v", err)
	}
	_, err = NewPublicGroup(trustAll{}, info, right, now)
	must(t, err)
}

// What an observer refuses to follow.
func TestPublicGroupVerifiesCommits(t *testing.T) {
	all := group(t, quick, 3)
	a, b := all[0], all[1]
	pub := observer(t, a)
	p, err := a.g.PrepareCommit(CommitParams{})
	must(t, err)
	for name, change := range map[string]struct {
		want error
		f    func(*authContent)
	}{
		"control":       {nil, func(*authContent) {}},
		"signature":     {ErrSignature, func(ac *authContent) { ac.signature[10] ^= 1 }},
		"other sender":  {ErrSignature, func(ac *authContent) { ac.content.sender.index = 1 }},
		"no member":     {ErrSignature, func(ac *authContent) { ac.content.sender.index = 7 }},
		"other group":   {ErrWrongGroup, func(ac *authContent) { ac.content.groupID = []byte("g") }},
		"later epoch":   {ErrFutureEpoch, func(ac *authContent) { ac.content.epoch++ }},
		"earlier epoch": {ErrPastEpoch, func(ac *authContent) { ac.content.epoch-- }},
		"header":        {ErrSignature, func(ac *authContent) { ac.content.authData = []byte("x") }},
	} {
		m, err := parseMessage(p.Commit)
		must(t, err)
		change.f(&m.public.authContent)
		if _, err := pub.Check(m.marshal(), now); !errors.Is(err, change.want) {
			t.Errorf("%s: %v, want %v", name, err, change.want)
		}
	}
	if _, err := pub.Check(a.encrypt("x"), now); !errors.Is(err, ErrMalformed) {
		t.Errorf("content as a commit: %v", err)
	}
	// A proposal that the observer has not seen; then it has.
	s, err := b.g.Propose(RemoveProposal(2), nil)
	must(t, err)
	a.receive(s.Message)
	p, err = a.g.PrepareCommit(CommitParams{})
	must(t, err)
	if _, err := pub.Check(p.Commit, now); !errors.Is(err, ErrUnknownProposal) {
		t.Errorf("unknown proposal: %v", err)
	}
	_, d, err := pub.See(s.Message, now)
	must(t, err)
	if len(d) != 1 {
		t.Errorf("seen proposal writes %d records", len(d))
	}
	if pub, err = LoadPublicGroup(trustAll{}, pub.State()); err != nil {
		t.Fatal(err)
	}
	pub.auth = picky("a") // the committer's credential is the same as before
	st, err := pub.Check(p.Commit, now)
	must(t, err)
	if err := pub.Apply(st); err != nil {
		t.Fatal(err)
	}
	if err := pub.Apply(st); !errors.Is(err, ErrStale) {
		t.Errorf("applied twice: %v", err)
	}
}

// A GroupInfo must be of the epoch, with the right tag and signer.
func TestCheckGroupInfo(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	pub := observer(t, a)
	old, err := a.g.GroupInfo()
	must(t, err)
	p := a.commit(CommitParams{})
	b.receive(p.Commit)
	st, err := pub.Check(p.Commit, now)
	must(t, err)
	must(t, st.CheckGroupInfo(p.GroupInfo))
	if err := st.CheckGroupInfo(old); !errors.Is(err, ErrStale) {
		t.Errorf("old group info: %v", err)
	}
	gi, err := parseGroupInfo(p.GroupInfo)
	must(t, err)
	gi.signature[10] ^= 1
	if err := st.CheckGroupInfo(gi.message()); !errors.Is(err, ErrSignature) {
		t.Errorf("signature: %v", err)
	}
	if st.Members()[0].Leaf != 0 || !bytes.Equal(st.Tree(), a.g.Tree()) {
		t.Error("members or tree after the commit")
	}
	bInfo, err := b.g.GroupInfo()
	must(t, err)
	must(t, st.CheckGroupInfo(bInfo))
}

// The clear fields of messages.
func TestParseMessageInfo(t *testing.T) {
	a := group(t, quick, 2)[0]
	m := a.encrypt("x")
	info, err := ParsePrivateMessageInfo(m)
	must(t, err)
	if !bytes.Equal(info.GroupID, a.g.ID()) || info.Epoch != 1 || info.Content != ContentApplication ||
		string(info.AuthenticatedData) != "header" || info.Wire != WirePrivateMessage {
		t.Fatalf("got %+v", info)
	}
	p := a.commit(CommitParams{AuthenticatedData: []byte("why")})
	if info, err = ParseMessageInfo(p.Commit); err != nil || info.Content != ContentCommit || string(info.AuthenticatedData) != "why" {
		t.Fatalf("got %+v, %v", info, err)
	}
	if _, err := ParsePrivateMessageInfo(p.Commit); !errors.Is(err, ErrMalformed) {
		t.Fatalf("commit as content: %v", err)
	}
	if _, err := ParseMessageInfo(p.GroupInfo); !errors.Is(err, ErrMalformed) {
		t.Fatalf("group info as message: %v", err)
	}
}
