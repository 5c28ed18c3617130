// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// A whole life of a group, on every suite, with an observer beside it.
func TestConversation(t *testing.T) {
	for _, suite := range Suites() {
		t.Run(suite.String(), func(t *testing.T) { conversation(t, suite) })
	}
}

func conversation(t *testing.T, suite Suite) {
	a, b, c := newDevice(t, suite, "a"), newDevice(t, suite, "b"), newDevice(t, suite, "c")
	a.create(suite)
	pub := observer(t, a)

	// Add, with the tree beside the Welcome.
	kp, ks := b.keyPackage(suite)
	p := a.commit(CommitParams{Proposals: []Proposal{AddProposal(kp)}})
	b.join(p.Welcome, kp, ks, p.Tree)
	agree(t, a, b)
	b.reads(a.encrypt("hello"), "hello")
	a.reads(b.encrypt("hi"), "hi")
	st, err := pub.Check(p.Commit, now)
	must(t, err)
	must(t, st.CheckGroupInfo(p.GroupInfo))
	pub, ch := follow(t, pub, p.Commit)
	if len(ch.Added) != 1 || string(ch.Added[0].Credential.Identity) != "b" || ch.Added[0].Leaf != 1 || ch.Epoch != 1 {
		t.Fatalf("observer sees %+v", ch)
	}

	// Add, with the tree in the Welcome, without a path.
	kp, ks = c.keyPackage(suite)
	p = b.commit(CommitParams{Proposals: []Proposal{AddProposal(kp)}, TreeInWelcome: true, NoPath: true})
	a.receive(p.Commit)
	c.join(p.Welcome, kp, ks, nil)
	agree(t, a, b, c)
	pub, _ = follow(t, pub, p.Commit)

	// An empty commit heals; one as a PrivateMessage too.
	p = c.commit(CommitParams{})
	a.receive(p.Commit)
	b.receive(p.Commit)
	follow(t, pub, p.Commit)
	c.reads(b.encrypt("three"), "three")
	p = a.commit(CommitParams{Private: true})
	b.receive(p.Commit)
	c.receive(p.Commit)
	agree(t, a, b, c)
	pub = observer(t, c) // one that saw no PrivateMessage commit starts over

	// Remove: c is out.
	p = a.commit(CommitParams{Proposals: []Proposal{RemoveProposal(c.g.OwnLeaf())}})
	b.receive(p.Commit)
	if r := c.receive(p.Commit); !r.Commit.SelfGone {
		t.Fatal("c does not see that it is gone")
	}
	if len(c.disk) != 0 {
		t.Fatalf("removed member keeps %d records", len(c.disk))
	}
	pub, ch = follow(t, pub, p.Commit)
	if len(ch.Removed) != 1 || ch.Removed[0].Leaf != 2 || len(pub.Members()) != 2 {
		t.Fatalf("observer sees %+v", ch)
	}

	// Resync: b lost its state.
	info, err := a.g.GroupInfo()
	must(t, err)
	must(t, pub.CheckGroupInfo(info))
	ext, err := PrepareExternalCommit(b.cfg, b.id, info, ExternalParams{Tree: a.g.Tree(), At: now})
	must(t, err)
	a.receive(ext.Commit)
	b.g, b.disk = ext.Group(), ext.Delta.Merge(nil)
	agree(t, a, b)
	pub, ch = follow(t, pub, ext.Commit)
	if !ch.External || !IsResync(ch, nil) {
		t.Fatalf("not a resync: %+v", ch)
	}
	if string(pub.Tree()) != string(a.g.Tree()) {
		t.Fatal("the observer's tree differs")
	}

	// Everything survives a restart.
	a.restart()
	b.restart()
	a.reads(b.encrypt("again"), "again")
	b.reads(a.encrypt("again"), "again")
}

// RFC 9420, Section 12.1: proposals by reference, of every type.
func TestProposalsByReference(t *testing.T) {
	all := group(t, quick, 4)
	a, b, c, d := all[0], all[1], all[2], all[3]
	secret := []byte("shared out of band")
	for _, x := range all {
		x.cfg.PSK = func(id PSKID) ([]byte, error) {
			if string(id.ID) == "psk" {
				return secret, nil
			}
			return nil, nil
		}
		x.restart()
	}
	pub := observer(t, a)
	propose := func(from *device, s *Sealed, err error) {
		t.Helper()
		must(t, err)
		from.save(s.Delta)
		_, _, err = pub.See(s.Message, now)
		must(t, err)
		for _, x := range all {
			if x != from {
				if r := x.receive(s.Message); r.Kind != ContentProposal || r.Sender.Leaf != from.g.OwnLeaf() {
					t.Fatalf("received %+v", r)
				}
			}
		}
	}
	e := newDevice(t, quick, "e")
	kp, ks := e.keyPackage(quick)
	s, err := b.g.Propose(AddProposal(kp), nil)
	propose(b, s, err)
	s, err = c.g.ProposeUpdate(nil)
	propose(c, s, err)
	s, err = b.g.Propose(RemoveProposal(d.g.OwnLeaf()), nil)
	propose(b, s, err)
	s, err = b.g.Propose(PSKProposal(PSKID{Type: PSKExternal, ID: []byte("psk")}), nil)
	propose(b, s, err)
	s, err = b.g.Propose(ExtensionsProposal([]Extension{RequiredCapabilities{Credentials: []CredentialType{CredentialBasic}}.Extension()}), nil)
	propose(b, s, err)
	if _, err := a.g.Encrypt(nil, nil); !errors.Is(err, ErrCommitFirst) {
		t.Fatalf("content before a commit: %v", err)
	}
	for _, x := range all {
		x.restart() // proposals and the key of the update are in the state
	}
	p := a.commit(CommitParams{})
	if len(p.Proposals) != 5 || len(p.Updated) != 1 || len(p.Added) != 1 || len(p.Removed) != 1 {
		t.Fatalf("commit of %d proposals: %+v", len(p.Proposals), p.Change)
	}
	b.receive(p.Commit)
	c.receive(p.Commit)
	d.receive(p.Commit)
	e.cfg.PSK = a.cfg.PSK
	e.join(p.Welcome, kp, ks, p.Tree)
	agree(t, a, b, c, e)
	if len(e.g.Extensions()) != 1 {
		t.Fatal("extensions did not change")
	}
	follow(t, pub, p.Commit)
	c.restart()
	for _, x := range []*device{a, b, e} {
		x.reads(c.encrypt("after my update"), "after my update")
	}
	p = c.commit(CommitParams{}) // c's new leaf key is the one that the others know
	a.receive(p.Commit)
	e.receive(p.Commit)
	agree(t, a, c, e)
}

// The signatures of each operation are as few as the protocol allows: a card
// may take half a second for each.
func TestSignatureCounts(t *testing.T) {
	a, b := newDevice(t, quick, "a"), newDevice(t, quick, "b")
	count := func(d *device, what string, want int, f func()) {
		t.Helper()
		before := d.sign.n
		f()
		if got := d.sign.n - before; got != want {
			t.Errorf("%s: %d signatures, want %d", what, got, want)
		}
	}
	var kp *KeyPackage
	var ks *KeyPackageSecrets
	count(a, "create", 1, func() { a.create(quick) })
	count(b, "key package", 2, func() { kp, ks = b.keyPackage(quick) })
	var p *PendingCommit
	count(a, "add without path", 2, func() {
		p = a.commit(CommitParams{Proposals: []Proposal{AddProposal(kp)}, NoPath: true})
	})
	count(b, "join", 0, func() { b.join(p.Welcome, kp, ks, p.Tree) })
	count(a, "encrypt", 1, func() { a.encrypt("x") })
	count(a, "heal", 3, func() { b.receive(a.commit(CommitParams{}).Commit) })
	count(a, "heal without group info", 2, func() { b.receive(a.commit(CommitParams{NoGroupInfo: true}).Commit) })
	count(a, "group info", 1, func() { _, _ = a.g.GroupInfo() })
	count(b, "resync", 3, func() {
		info, _ := a.g.GroupInfo()
		_, err := PrepareExternalCommit(b.cfg, b.id, info, ExternalParams{Tree: a.g.Tree(), At: now})
		must(t, err)
	})
}

// RFC 9420, Section 14: a commit that loses the race changes nothing.
func TestLostRace(t *testing.T) {
	all := group(t, quick, 3)
	a, b, c := all[0], all[1], all[2]
	pa, err := a.g.PrepareCommit(CommitParams{})
	must(t, err)
	before := string(b.g.State().Marshal())
	pb, err := b.g.PrepareCommit(CommitParams{})
	must(t, err)
	if string(b.g.State().Marshal()) != before {
		t.Fatal("preparing a commit changed the group")
	}
	b.reads(c.encrypt("meanwhile"), "meanwhile")
	for _, x := range []*device{b, c} {
		x.receive(pa.Commit)
	}
	a.save(pa.Delta)
	must(t, a.g.Apply(pa.Staged))
	agree(t, a, b, c)
	if err := b.g.Apply(pb.Staged); !errors.Is(err, ErrStale) {
		t.Fatalf("applied a commit that lost: %v", err)
	}
	c.refuses(pb.Commit, ErrPastEpoch)
}

// A pending commit survives a restart by its Delta, and so do content keys that
// moved while it was pending.
func TestPendingCommitSurvivesRestart(t *testing.T) {
	all := group(t, quick, 3)
	a, b, c := all[0], all[1], all[2]
	pa, err := a.g.PrepareCommit(CommitParams{})
	must(t, err)
	pending := pa.Delta.Marshal()
	first, second := c.encrypt("one"), c.encrypt("two")
	a.reads(first, "one")
	delta, err := ParseDelta(pending)
	must(t, err)
	a.save(delta)
	a.restart()
	b.receive(pa.Commit)
	agree(t, a, b)
	a.refuses(first, ErrUsedKey)
	a.reads(second, "two")
}

// Content that a commit overtook is read for a few epochs, and no longer.
func TestLateContent(t *testing.T) {
	all := group(t, quick, 3)
	a, b, c := all[0], all[1], all[2]
	late := c.encrypt("late")
	gone := c.encrypt("too late")
	own := b.encrypt("own")
	leaf := c.g.OwnLeaf()
	for i := range 4 {
		var props []Proposal
		if i == 0 {
			props = []Proposal{RemoveProposal(leaf)} // the sender is no longer a member
		}
		p := a.commit(CommitParams{Proposals: props})
		b.receive(p.Commit)
		b.restart()
		if i == 1 {
			if r := b.reads(late, "late"); r.Epoch != 1 || string(r.Sender.Credential.Identity) != "c" {
				t.Fatalf("late message from %+v", r.Sender)
			}
			b.refuses(late, ErrUsedKey)
			b.refuses(own, ErrOwnMessage)
		}
	}
	b.refuses(gone, ErrPastEpoch)
	for _, r := range b.disk {
		if len(r.Key) > 4 && r.Key[:4] == "m/1/" {
			t.Fatalf("record %s of an epoch that is over for good", r.Key)
		}
	}
	equalT(t, b.disk.Marshal(), b.g.State().Marshal())
}

// PastEpochs below zero keeps nothing.
func TestNoPastEpochs(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	b.cfg.PastEpochs = -1
	b.restart()
	late := a.encrypt("late")
	b.receive(a.commit(CommitParams{}).Commit)
	b.refuses(late, ErrPastEpoch)
}

// RFC 9420, Section 12.4.2: a member that misses a commit is told so.
func TestMissedCommit(t *testing.T) {
	all := group(t, quick, 3)
	a, b, c := all[0], all[1], all[2]
	b.receive(a.commit(CommitParams{}).Commit)
	c.refuses(b.encrypt("from the future"), ErrFutureEpoch)
	c.refuses(b.commit(CommitParams{}).Commit, ErrFutureEpoch)
}

// A group grows, shrinks and grows: places are used again, trees shrink.
func TestGrowAndShrink(t *testing.T) {
	all := group(t, quick, 9)
	a, b := all[0], all[1]
	pub := observer(t, a)
	sync := func(p *PendingCommit, members ...*device) {
		for _, m := range members {
			m.receive(p.Commit)
		}
		pub, _ = follow(t, pub, p.Commit)
		agree(t, append(members, a)...)
	}
	var rm []Proposal
	for _, d := range all[3:] {
		rm = append(rm, RemoveProposal(d.g.OwnLeaf()))
	}
	sync(a.commit(CommitParams{Proposals: rm}), b, all[2])
	if w := a.g.tree.width(); w != 4 {
		t.Fatalf("tree has %d leaves", w)
	}
	d := newDevice(t, quick, "new")
	kp, ks := d.keyPackage(quick)
	p := a.commit(CommitParams{Proposals: []Proposal{AddProposal(kp), RemoveProposal(all[1].g.OwnLeaf())}})
	d.join(p.Welcome, kp, ks, p.Tree)
	if d.g.OwnLeaf() != 1 {
		t.Fatalf("new member is at %d", d.g.OwnLeaf())
	}
	agree(t, a, d)
	all[2].receive(p.Commit)
	pub, _ = follow(t, pub, p.Commit)
	agree(t, a, all[2])
}

// RFC 9420, Section 8.5 and 8.7.
func TestExport(t *testing.T) {
	all := group(t, quick, 2)
	x, err := all[0].g.Export("label", []byte("ctx"), 40)
	must(t, err)
	y, err := all[1].g.Export("label", []byte("ctx"), 40)
	must(t, err)
	equalT(t, x, y)
	if z, _ := all[1].g.Export("label", []byte("other"), 40); string(z) == string(x) {
		t.Fatal("contexts do not separate")
	}
	if _, err := all[0].g.Export("label", nil, 0); err == nil {
		t.Fatal("exported nothing")
	}
}

// RFC 9420, Section 12.1.5: after a ReInit nothing is sent.
func TestReInitCloses(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	p := a.commit(CommitParams{Proposals: []Proposal{ReInitProposal(ReInit{GroupID: []byte("next"), Version: 1, Suite: DefaultSuite})}})
	if r := b.receive(p.Commit); r.Commit.ReInit == nil {
		t.Fatal("b does not see the reinit")
	}
	b.restart()
	if _, err := b.g.Encrypt([]byte("x"), nil); !errors.Is(err, ErrReInit) {
		t.Fatalf("sent after a reinit: %v", err)
	}
	if _, err := b.g.PrepareCommit(CommitParams{}); !errors.Is(err, ErrReInit) {
		t.Fatalf("committed after a reinit: %v", err)
	}
	if string(b.g.Closed().GroupID) != "next" {
		t.Fatal("successor is not named")
	}
}

// RFC 9420, Section 8.6: a resumption key of an epoch that all have seen.
func TestResumptionPSK(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	epoch := a.g.Epoch()
	b.receive(a.commit(CommitParams{}).Commit)
	b.restart()
	psk := PSKProposal(PSKID{Type: PSKResumption, Usage: PSKApplication, GroupID: a.g.ID(), Epoch: epoch})
	b.receive(a.commit(CommitParams{Proposals: []Proposal{psk}, NoPath: true}).Commit)
	agree(t, a, b)
	psk.PSK.Epoch = 0 // before b joined
	p, err := a.g.PrepareCommit(CommitParams{Proposals: []Proposal{psk}})
	must(t, err)
	b.refuses(p.Commit, ErrUnknownPSK)
}

// A certificate is renewed for the same key with a commit.
func TestNewCredential(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	c := BasicCredential([]byte("a, renewed"))
	b.receive(a.commit(CommitParams{Credential: &c}).Commit)
	if m, _ := b.g.Member(0); string(m.Credential.Identity) != "a, renewed" {
		t.Fatalf("b sees %s", m.Credential.Identity)
	}
}

// Records touched by a message do not grow with the group.
func TestMessageDeltaIsSmall(t *testing.T) {
	all := group(t, SuiteX25519, 64)
	s, err := all[0].g.Encrypt([]byte("x"), nil)
	must(t, err)
	r := all[1].receive(s.Message)
	for _, d := range []Delta{s.Delta, r.Delta} {
		if len(d) > 12 || len(d.Marshal()) > 1500 {
			t.Fatalf("delta of %d records, %d bytes", len(d), len(d.Marshal()))
		}
		if slices.ContainsFunc(d, func(r Record) bool { return r.Key == "epoch" || r.Key[:2] == "n/" }) {
			t.Fatal("a message rewrites the epoch")
		}
	}
	second := all[1].receive(all[0].encrypt("y")).Delta
	if len(second) != 1 {
		t.Fatalf("second delta has %d records", len(second))
	}
	whole := len(all[1].g.State().Marshal())
	p, err := all[2].g.PrepareCommit(CommitParams{})
	must(t, err)
	if n := len(p.Delta.Marshal()); n > whole/4 {
		t.Fatalf("commit writes %d of %d bytes", n, whole)
	}
}

// RFC 9420, Section 15.1.
func TestPadding(t *testing.T) {
	for _, c := range [][2]int{{0, 0}, {1, 256}, {256, 256}, {257, 512}, {4096, 4096}, {4097, 4608}, {8192, 8192}, {8193, 9216}} {
		if got := PadToClasses(c[0]); got != c[1] {
			t.Errorf("%d pads to %d, want %d", c[0], got, c[1])
		}
	}
	all := group(t, quick, 2)
	lengths := map[int]bool{}
	for n := range 100 {
		m := all[0].encrypt(fmt.Sprintf("%*d", n+1, 0))
		lengths[len(m)] = true
		all[1].receive(m)
	}
	if len(lengths) != 1 {
		t.Fatalf("messages up to 100 bytes have %d sizes", len(lengths))
	}
}

// Lifetimes are checked where a time is given, RFC 9420, Section 7.3.
func TestLifetimes(t *testing.T) {
	a := newDevice(t, quick, "a").create(quick)
	kp, _ := newDevice(t, quick, "b").keyPackage(quick)
	for _, c := range []struct {
		at   time.Time
		want error
	}{{now, nil}, {time.Time{}, nil}, {now.Add(2 * time.Hour), ErrLifetime}, {now.Add(-2 * time.Hour), ErrLifetime}} {
		if err := kp.Verify(trustAll{}, c.at); !errors.Is(err, c.want) {
			t.Errorf("verify at %v: %v", c.at, err)
		}
		if _, err := a.g.PrepareCommit(CommitParams{Proposals: []Proposal{AddProposal(kp)}, At: c.at}); !errors.Is(err, c.want) {
			t.Errorf("add at %v: %v", c.at, err)
		}
	}
	b := newDevice(t, quick, "b")
	long, _, err := NewKeyPackage(b.id, KeyPackageParams{Suite: quick, Lifetime: NewLifetime(now, now.Add(MaxLifetime+time.Hour))})
	must(t, err)
	if err := long.Verify(trustAll{}, now); !errors.Is(err, ErrLifetime) {
		t.Errorf("endless lifetime: %v", err)
	}
}
