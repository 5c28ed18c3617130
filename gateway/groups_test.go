// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"sync"
	"testing"
	"time"

	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// A group of three: everybody else gets everything, the removed device learns
// of its removal and then gets nothing more.
func TestAddAndRemove(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob, ga, gb := pair(t, gw)
	carol := newDevice(t, gw, "carol").ready()
	alice.add(ga, alice.take("carol")...)
	if bob.read(gb) != "commit" {
		t.Fatal("bob did not get the commit")
	}
	gc := carol.join()
	carol.must(carol.sealed(gc, "hello"))
	if alice.read(ga) != "hello" || bob.read(gb) != "hello" {
		t.Fatal("carol was not heard by both")
	}

	leaf := leafOf(t, ga, bob)
	p, commit := alice.commitOf(ga, mls.RemoveProposal(leaf))
	alice.must(commit)
	if err := ga.Apply(p.Staged); err != nil {
		t.Fatal(err)
	}
	m := bob.next()
	if m.Kind != wire.DeliverCommit || m.Epoch != commit.Epoch {
		t.Fatalf("bob got kind %d of epoch %d", m.Kind, m.Epoch)
	}
	if carol.read(gc) != "commit" {
		t.Fatal("carol did not get the commit")
	}
	alice.must(alice.sealed(ga, "without bob"))
	if carol.read(gc) != "without bob" {
		t.Fatal("carol missed a message")
	}
	bob.nothing(100 * time.Millisecond)
	if code := bob.submit(bob.sealed(gb, "let me in")); code != wire.NotMember {
		t.Errorf("a removed device sends: %v", code)
	}
	if code := bob.code(&wire.GetGroup{Group: ga.ID()}); code != wire.NotMember {
		t.Errorf("a removed device asks for the group: %v", code)
	}
}

func leafOf(t *testing.T, g *mls.Group, d *testDevice) mls.LeafIndex {
	t.Helper()
	for _, m := range g.Members() {
		if string(m.Credential.Certificates[0]) == string(d.chain[0]) {
			return m.Leaf
		}
	}
	t.Fatalf("%s is not in the group", d.local)
	return 0
}

// Many commits for one epoch: exactly one wins, and every loser finds the
// winner's commit in its mailbox.
func TestOneCommitWins(t *testing.T) { oneCommitWins(t, startGateway(t, gatewayOptions{})) }

// oneCommitWins has the devices at several gateways by turns.
func oneCommitWins(t *testing.T, gateways ...*testGateway) {
	alice := newDevice(t, gateways[0], "alice").ready()
	ga := alice.found()
	others := []*testDevice{}
	groups := []*mls.Group{}
	for i, name := range []string{"bob", "carol", "dave", "erin"} {
		d := newDevice(t, gateways[i%len(gateways)], name).ready()
		alice.add(ga, alice.take(name)...)
		for i, o := range others {
			if o.read(groups[i]) != "commit" {
				t.Fatal("no commit")
			}
		}
		others, groups = append(others, d), append(groups, d.join())
	}
	for round := range 5 {
		epoch := groups[0].Epoch()
		codes := make([]wire.Code, len(others))
		pending := make([]*mls.PendingCommit, len(others))
		var crowd sync.WaitGroup
		for i, o := range others {
			p, req := o.commitOf(groups[i])
			pending[i] = p
			req.SetSubmissionCounter(o.counter + 1)
			answer := o.link.start(req)
			crowd.Go(func() {
				if a, ok := (<-answer).(*wire.Result); ok {
					codes[i] = a.Code
				}
			})
		}
		crowd.Wait()
		winner := -1
		for i, code := range codes {
			switch code {
			case wire.OK:
				if winner >= 0 {
					t.Fatalf("round %d: two winners", round)
				}
				winner = i
			case wire.StaleEpoch:
			default:
				t.Fatalf("round %d: %v", round, code)
			}
		}
		if winner < 0 {
			t.Fatalf("round %d: nobody won", round)
		}
		others[winner].counter++
		if err := groups[winner].Apply(pending[winner].Staged); err != nil {
			t.Fatal(err)
		}
		for i, o := range others {
			if i != winner && o.read(groups[i]) != "commit" {
				t.Fatal("a loser did not get the winner's commit")
			}
			if groups[i].Epoch() != epoch+1 {
				t.Fatalf("epoch %d", groups[i].Epoch())
			}
		}
		if alice.read(ga) != "commit" {
			t.Fatal("alice did not get the commit")
		}
	}
	for _, o := range others {
		o.nothing(50 * time.Millisecond)
	}
}

// What a commit must not do, each beside the honest one.
func TestCommitRefusals(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob, ga, gb := pair(t, gw)
	carol := newDevice(t, gw, "carol").ready()
	ghost := newDevice(t, gw, "ghost") // has never connected
	stranger := newDeviceOf(t, gw, newAuthority(t, "interieur.example"), "stranger", newKey(t), -time.Hour, time.Hour)
	anyone := mls.Config{Authenticator: trustAll{}}

	refused := func(name string, d *testDevice, req *wire.Commit, code wire.Code, reason string) {
		t.Helper()
		if got := d.submit(req); got != code {
			t.Errorf("%s: %v, want %v", name, got, code)
		}
		gw.audit.want(t, eventRefusedRequest, reason)
	}
	_, honest := alice.commitOf(ga, addProposals(alice.take("carol"))...)
	with := func(change func(*wire.Commit)) *wire.Commit {
		c := *honest
		change(&c)
		return &c
	}
	_, bobs := bob.commitOf(gb)
	refused("somebody else's commit", alice, with(func(c *wire.Commit) {
		c.Commit, c.GroupInfo, c.Welcome = bobs.Commit, bobs.GroupInfo, nil
	}), wire.InvalidCommit, "sender_mismatch")
	refused("by a stranger to the group", carol, with(func(*wire.Commit) {}), wire.NotMember, "not_member")
	refused("for another epoch", alice, with(func(c *wire.Commit) { c.Epoch++ }), wire.StaleEpoch, "stale_epoch")
	refused("for an unknown group", alice, with(func(c *wire.Commit) { c.Group = []byte("x") }), wire.UnknownGroup, "unknown_group")
	refused("altered", alice, with(func(c *wire.Commit) { c.Commit = flip(c.Commit, len(c.Commit)/2) }), wire.InvalidCommit, "bad_signature")
	refused("cut off", alice, with(func(c *wire.Commit) { c.Commit = c.Commit[:len(c.Commit)-1] }), wire.Malformed, "malformed_commit")
	refused("not a commit", alice, with(func(c *wire.Commit) { c.Commit = alice.sealed(ga, "x").Message }), wire.InvalidCommit, "not_a_public_commit")
	refused("GroupInfo of the old epoch", alice, with(func(c *wire.Commit) { c.GroupInfo, _ = ga.GroupInfo() }), wire.InvalidCommit, "invalid_group_info")
	refused("altered GroupInfo", alice, with(func(c *wire.Commit) { c.GroupInfo = flip(c.GroupInfo, len(c.GroupInfo)-4) }), wire.InvalidCommit, "invalid_group_info")
	refused("Welcome left out", alice, with(func(c *wire.Commit) { c.Welcome = nil }), wire.InvalidCommit, "invalid_welcome")
	refused("Welcome that is none", alice, with(func(c *wire.Commit) { c.Welcome = []byte("welcome") }), wire.InvalidCommit, "invalid_welcome")

	kp, _ := ghost.keyPackage(false)
	_, req := alice.commitOf(ga, mls.AddProposal(kp))
	refused("adding an unknown device", alice, req, wire.RecipientRefused, "added_device_unknown")

	// Alice's own software would refuse the stranger; an altered one would not.
	records := ga.State()
	careless, err := mls.Load(anyone, alice.mls, records)
	if err != nil {
		t.Fatal(err)
	}
	kp, _ = stranger.keyPackage(false)
	_, req = alice.commitOf(careless, mls.AddProposal(kp))
	refused("adding another authority's device", alice, req, wire.InvalidCommit, "credential_refused")

	gw.SetDenied(map[identity.DeviceID]bool{carol.id: true})
	refused("adding a denied device", alice, with(func(*wire.Commit) {}), wire.RecipientRefused, "added_device_denied")
	gw.SetDenied(nil)

	alice.must(honest)
	carol.connect(false, 0)
	carol.listen(0)
	carol.join()
	if bob.read(gb) != "commit" {
		t.Error("bob did not get the honest commit")
	}
}

type trustAll struct{}

func (trustAll) Authenticate(mls.Credential, []byte) error { return nil }

func flip(b []byte, at int) []byte {
	out := append([]byte(nil), b...)
	out[at] ^= 1
	return out
}

// CreateGroup: one member, the sender; an id is taken once.
func TestCreateRefusals(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob := newDevice(t, gw, "alice").ready(), newDevice(t, gw, "bob").ready()
	g, honest := alice.founding()
	altered := *honest
	altered.GroupInfo = flip(honest.GroupInfo, len(honest.GroupInfo)-4)
	if code := alice.submit(&altered); code != wire.InvalidCommit {
		t.Errorf("altered GroupInfo: %v", code)
	}
	gw.audit.want(t, eventRefusedRequest, "invalid_group")
	theirs := *honest
	if code := bob.submit(&theirs); code != wire.InvalidCommit {
		t.Errorf("somebody else's group: %v", code)
	}
	gw.audit.want(t, eventRefusedRequest, "not_the_founder")
	alice.must(honest)
	again := *honest
	if code := alice.submit(&again); code != wire.GroupExists {
		t.Errorf("a taken id: %v", code)
	}
	gw.audit.want(t, eventRefusedRequest, "group_exists")

	// A group that has grown elsewhere is not registered.
	g2, _ := alice.founding()
	p, _ := alice.commitOf(g2, addProposals(alice.take("bob"))...)
	if err := g2.Apply(p.Staged); err != nil {
		t.Fatal(err)
	}
	info, err := g2.GroupInfo()
	if err != nil {
		t.Fatal(err)
	}
	if code := alice.submit(&wire.CreateGroup{GroupInfo: info, Tree: g2.Tree()}); code != wire.InvalidCommit {
		t.Errorf("a group at epoch 1: %v", code)
	}
	alice.add(g, alice.take("bob")...)
	bob.join()
}

// A device that lost its state replaces its own leaf by an external commit; no
// other device of the same person, and nobody else, enters that way.
func TestResync(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob, ga, _ := pair(t, gw)
	second := newDevice(t, gw, "bob").ready() // another device of bob's

	if code := second.code(&wire.GetGroup{Group: ga.ID()}); code != wire.NotMember {
		t.Errorf("GetGroup by a device outside: %v", code)
	}
	gw.audit.want(t, eventRefusedRequest, "not_member")
	state, ok := bob.ask(&wire.GetGroup{Group: ga.ID()}).(*wire.Group)
	if !ok || state.Epoch != ga.Epoch() {
		t.Fatalf("GetGroup: %+v", state)
	}

	join := func(d *testDevice, replace func(mls.Member) bool) (*mls.PendingCommit, *wire.Commit) {
		t.Helper()
		p, err := mls.PrepareExternalCommit(d.cfg, d.mls, state.GroupInfo, mls.ExternalParams{Tree: state.Tree, At: time.Now(), Replace: replace})
		if err != nil {
			t.Fatalf("%s: %v", d.local, err)
		}
		return p, &wire.Commit{Group: ga.ID(), Epoch: state.Epoch, Commit: p.Commit, GroupInfo: p.GroupInfo}
	}
	// Another device of the same person, in place of bob's leaf or beside it.
	isBob := func(m mls.Member) bool { return string(m.Credential.Certificates[0]) == string(bob.chain[0]) }
	none := func(mls.Member) bool { return false }
	for name, replace := range map[string]func(mls.Member) bool{"in place": isBob, "beside": none} {
		if _, req := join(second, replace); second.submit(req) == wire.OK {
			t.Errorf("another device of the same person came in %s", name)
		}
	}
	// Even with the request sent by a member.
	_, req := join(second, isBob)
	if code := bob.submit(req); code == wire.OK {
		t.Error("a member smuggled another device in")
	}
	gw.audit.want(t, eventRefusedRequest, "sender_mismatch")
	// Bob, throwing alice out on the way.
	isAlice := func(m mls.Member) bool { return string(m.Credential.Certificates[0]) == string(alice.chain[0]) }
	// Package mls makes no such commit: bob's key would be in the tree twice.
	if _, err := mls.PrepareExternalCommit(bob.cfg, bob.mls, state.GroupInfo, mls.ExternalParams{Tree: state.Tree, At: time.Now(), Replace: isAlice}); err == nil {
		t.Error("a resync that throws somebody else out can be made: test that the gateway refuses it")
	}

	p, honest := join(bob, nil)
	bob.must(honest)
	gb := p.Group()
	if alice.read(ga) != "commit" {
		t.Fatal("alice did not get the resync")
	}
	alice.must(alice.sealed(ga, "welcome back"))
	if got := bob.read(gb); got != "welcome back" {
		t.Errorf("bob read %q", got)
	}
}

// Another device of a member's own person does not come in by an external commit, whoever
// sends it: new devices are added by a member. The member's own device does.
func TestExternalJoinByAnotherDevice(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob, ga, _ := pair(t, gw)
	second := newDevice(t, gw, "bob").ready()
	state, ok := bob.ask(&wire.GetGroup{Group: ga.ID()}).(*wire.Group)
	if !ok {
		t.Fatal("no group")
	}
	join := func(d *testDevice) *wire.Commit {
		t.Helper()
		p, err := mls.PrepareExternalCommit(d.cfg, d.mls, state.GroupInfo, mls.ExternalParams{
			Tree: state.Tree, At: time.Now(),
			Replace: func(m mls.Member) bool {
				return string(m.Credential.Certificates[0]) == string(bob.chain[0])
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return &wire.Commit{Group: ga.ID(), Epoch: state.Epoch, Commit: p.Commit, GroupInfo: p.GroupInfo}
	}
	if code := second.submit(join(second)); code != wire.NotMember {
		t.Errorf("another device of bob's: %v", code)
	}
	gw.audit.want(t, eventRefusedRequest, "not_member")
	if code := bob.submit(join(second)); code != wire.InvalidCommit {
		t.Errorf("another device of bob's, sent by bob's: %v", code)
	}
	gw.audit.want(t, eventRefusedRequest, "sender_mismatch")
	bob.must(join(bob))
	if alice.read(ga) != "commit" {
		t.Error("alice did not get the resync")
	}
}

// Message refusals over the real connection; the honest one goes through.
func TestSendRefusals(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob, ga, gb := pair(t, gw)
	carol := newDevice(t, gw, "carol").ready()
	honest := alice.sealed(ga, "hello")
	check := func(name string, d *testDevice, s *wire.Send, code wire.Code, reason string) {
		t.Helper()
		if got := d.submit(s); got != code {
			t.Errorf("%s: %v, want %v", name, got, code)
		}
		gw.audit.want(t, eventRefusedRequest, reason)
	}
	copyOf := func(change func(*wire.Send)) *wire.Send {
		s := *honest
		change(&s)
		return &s
	}
	check("no member", carol, copyOf(func(*wire.Send) {}), wire.NotMember, "not_member")
	check("not MLS", alice, copyOf(func(s *wire.Send) { s.Message = []byte("plain text") }), wire.Malformed, "malformed_message")
	_, commit := alice.commitOf(ga)
	check("a commit", alice, copyOf(func(s *wire.Send) { s.Message = commit.Commit }), wire.Malformed, "malformed_message")
	check("other epoch", alice, copyOf(func(s *wire.Send) { s.Epoch++ }), wire.Malformed, "wrong_epoch")
	check("label", alice, alice.sealedUnder(ga, "x", wire.Header{Sequence: 1, Policy: []byte{1}, Labelled: true, Label: []byte("SECRET")}),
		wire.LabelRefused, "no_policy_for_label")
	s, err := ga.Encrypt([]byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	check("no header", alice, copyOf(func(c *wire.Send) { c.Message = s.Message }), wire.LabelRefused, "malformed_header")
	gw.SetDenied(map[identity.DeviceID]bool{bob.id: true})
	check("denied recipient", alice, copyOf(func(*wire.Send) {}), wire.RecipientRefused, "recipient_denied")
	gw.SetDenied(nil)
	bob.connect(false, 1)
	bob.listen(1)
	alice.must(honest)
	if got := bob.read(gb); got != "hello" {
		t.Errorf("bob read %q", got)
	}
	p, commit := alice.commitOf(ga)
	alice.must(commit)
	late := alice.sealed(ga, "late")
	if answer, ok := alice.askSubmit(late).(*wire.Result); !ok || answer.Code != wire.StaleEpoch || len(answer.Detail) != 8 || answer.Detail[7] != byte(ga.Epoch()+1) {
		t.Errorf("a message of the epoch before: %+v", answer)
	}
	if err := ga.Apply(p.Staged); err != nil {
		t.Fatal(err)
	}
}

func (d *testDevice) askSubmit(s wire.Submission) wire.Answer {
	d.t.Helper()
	s.SetSubmissionCounter(d.counter + 1)
	return d.ask(s)
}

// Groups are the same after a restart.
func TestGroupsSurviveRestart(t *testing.T) {
	authority := newAuthority(t, "interieur.example")
	dir := t.TempDir()
	gw := startGateway(t, gatewayOptions{dir: dir, authority: authority})
	alice, bob, ga, gb := pair(t, gw)
	gw.stop()
	gw = startGateway(t, gatewayOptions{dir: dir, authority: authority})
	alice.gw, bob.gw = gw, gw
	alice.connect(false, 0)
	bob.connect(false, 1)
	bob.listen(1)
	alice.must(alice.sealed(ga, "same epoch"))
	p, commit := alice.commitOf(ga)
	alice.must(commit)
	if err := ga.Apply(p.Staged); err != nil {
		t.Fatal(err)
	}
	alice.must(alice.sealed(ga, "next epoch"))
	if a, b, c := bob.read(gb), bob.read(gb), bob.read(gb); a != "same epoch" || b != "commit" || c != "next epoch" {
		t.Errorf("bob read %q, %q, %q", a, b, c)
	}
}
