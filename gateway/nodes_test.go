// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"valise/bulletin"
	"valise/gateway/mailbox"
	"valise/internal/testenv"
	"valise/mls"
	"valise/wire"
)

// nodes starts gateways on one PostgreSQL, under one authority.
func nodes(t *testing.T, options ...gatewayOptions) []*testGateway {
	t.Helper()
	database, authority := testenv.Postgres(t).DSN, newAuthority(t, "interieur.example")
	all := make([]*testGateway, len(options))
	for i, o := range options {
		o.database, o.authority, o.node = database, authority, string(rune('a'+i))
		all[i] = startGateway(t, o)
	}
	return all
}

// deaf is a store that hears nothing of other gateways, and does not know it.
type deaf struct{ mailbox.Node }

func (d deaf) Follow(ctx context.Context, _ func(mailbox.News)) error {
	<-ctx.Done()
	return nil
}

func (d deaf) Deaf() error { return nil }

func hearsNothing(s mailbox.Store) mailbox.Store { return deaf{s.(mailbox.Node)} }

// moves connects a device at another gateway, and goes on where it was.
func (d *testDevice) moves(to *testGateway, cursor uint64) {
	d.t.Helper()
	d.gw = to
	d.connect(false, cursor)
	d.listen(cursor)
}

// A conversation whose devices are at two gateways, and move: members come and go, all
// hear each other, and everything arrives once and in its order.
func TestConversationAcrossNodes(t *testing.T) {
	gw := nodes(t, gatewayOptions{}, gatewayOptions{})
	alice, bob := newDevice(t, gw[0], "alice").ready(), newDevice(t, gw[1], "bob").ready()
	ga := alice.found()
	alice.add(ga, alice.take("bob")...)
	gb := bob.join()
	alice.must(alice.sealed(ga, "from a"))
	if got := bob.read(gb); got != "from a" {
		t.Fatalf("bob read %q", got)
	}
	bob.must(bob.sealed(gb, "from b"))
	if got := alice.read(ga); got != "from b" {
		t.Fatalf("alice read %q", got)
	}
	// A commit at one gateway is the epoch of the other: nobody is told to try again.
	carol := newDevice(t, gw[0], "carol").ready()
	bob.add(gb, bob.take("carol")...)
	gc := carol.join()
	if alice.read(ga) != "commit" {
		t.Fatal("alice did not get the commit")
	}
	carol.must(carol.sealed(gc, "all of us"))
	alice.must(alice.sealed(ga, "yes"))
	for range 2 {
		if got := bob.read(gb); got != "all of us" && got != "yes" {
			t.Fatalf("bob read %q", got)
		}
	}
	alice.read(ga)
	carol.read(gc)
	// Whoever comes to another gateway is no longer at the first.
	old := alice.link
	alice.moves(gw[1], 3)
	if code := old.closed(t); code != wire.CloseReplaced {
		t.Errorf("closed with %v", code)
	}
	bob.must(bob.sealed(gb, "you have moved"))
	if got := alice.read(ga); got != "you have moved" {
		t.Fatalf("alice read %q", got)
	}
}

// First wins, whichever gateway it is at.
func TestOneCommitWinsAcrossNodes(t *testing.T) {
	oneCommitWins(t, nodes(t, gatewayOptions{}, gatewayOptions{})...)
}

// Who was removed through another gateway sends nothing, gets no file and learns nothing of
// the group, although this one has it in memory as it was and no news come through.
func TestRemovedThroughAnotherNode(t *testing.T) {
	attacks := []struct {
		name string
		try  func(bob *testDevice, gb *mls.Group, file [32]byte) wire.Code
		want wire.Code
	}{
		{"fetches a file", func(bob *testDevice, _ *mls.Group, file [32]byte) wire.Code {
			_, code := bob.get(file, 0)
			return code
		}, wire.NotFound},
		{"sends a file", func(bob *testDevice, gb *mls.Group, _ [32]byte) wire.Code {
			data, id := randomFile(100)
			_, ready := bob.beginPut(gb.ID(), id, uint64(len(data)))
			return ready.Code
		}, wire.NotMember},
		{"learns of the group", func(bob *testDevice, gb *mls.Group, _ [32]byte) wire.Code {
			if r, ok := bob.ask(&wire.GetGroup{Group: gb.ID()}).(*wire.Result); ok {
				return r.Code
			}
			return wire.OK
		}, wire.NotMember},
		{"sends", func(bob *testDevice, gb *mls.Group, _ [32]byte) wire.Code {
			return bob.submit(bob.sealed(gb, "let me in"))
		}, wire.StaleEpoch},
		{"commits", func(bob *testDevice, gb *mls.Group, _ [32]byte) wire.Code {
			_, commit := bob.commitOf(gb)
			return bob.submit(commit)
		}, wire.StaleEpoch},
	}
	options := []gatewayOptions{{}}
	for range attacks {
		options = append(options, gatewayOptions{wrap: hearsNothing})
	}
	gw := nodes(t, options...)
	there := gw[0]
	alice, bob, ga, gb := pair(t, there)
	var files [][32]byte
	for i, attack := range attacks { // control: while he is a member he may
		bob.moves(gw[i+1], 1)
		data, id := randomFile(2000)
		if code := bob.put(gb.ID(), id, data); code != wire.OK { // the group is in memory here now
			t.Fatal(code)
		}
		files = append(files, id)
		if attack.want == wire.StaleEpoch {
			bob.must(bob.sealed(gb, "as a member"))
			alice.read(ga)
			continue
		}
		if code := attack.try(bob, gb, id); code != wire.OK {
			t.Fatalf("a member %s: %v", attack.name, code)
		}
	}
	before := gb.Epoch()
	if code := alice.remove(ga, leafOf(t, ga, bob)); code != wire.OK {
		t.Fatal(code)
	}
	for i, attack := range attacks {
		bob.gw = gw[i+1]
		bob.connect(false, 1)
		if view, err := bob.gw.groups.View(t.Context(), gb.ID()); err != nil || view.Epoch != before {
			t.Fatalf("gateway %d knows the removal already: this shows nothing; %v", i+1, err)
		}
		if code := attack.try(bob, gb, files[i]); code != attack.want {
			t.Errorf("who was removed %s: %v, want %v", attack.name, code, attack.want)
		}
	}
	// What the new epoch says of him is looked up before anything is said about it.
	bob.gw = gw[3]
	bob.connect(false, 1)
	stolen := alice.sealed(ga, "of the new epoch")
	if code := bob.submit(stolen); code != wire.NotMember {
		t.Errorf("who was removed sends in the new epoch: %v", code)
	}
	alice.must(stolen)
	bob.gw = there
	bob.connect(false, 1)
	bob.listen(1)
	if m := bob.next(); m.Kind != wire.DeliverCommit {
		t.Errorf("delivery %d of kind %d", m.Number, m.Kind)
	}
	bob.nothing(100 * time.Millisecond)
}

// A member at a gateway that has not heard of the newest epoch speaks in it all the same.
func TestNewEpochAtAnotherNode(t *testing.T) {
	gw := nodes(t, gatewayOptions{wrap: hearsNothing}, gatewayOptions{})
	alice, bob, ga, gb := pair(t, gw[0])
	bob.must(bob.sealed(gb, "here"))
	alice.read(ga)
	alice.moves(gw[1], 1)
	p, commit := alice.commitOf(ga)
	alice.must(commit)
	if err := ga.Apply(p.Staged); err != nil {
		t.Fatal(err)
	}
	gw[0].box.Wake(mailbox.Device(bob.id))
	if bob.read(gb) != "commit" {
		t.Fatal("no commit")
	}
	if view, err := gw[0].groups.View(t.Context(), gb.ID()); err != nil || view.Epoch == gb.Epoch() {
		t.Fatalf("the gateway knows the new epoch already: this shows nothing; %v", err)
	}
	bob.must(bob.sealed(gb, "in the new epoch"))
	if got := alice.read(ga); got != "in the new epoch" {
		t.Errorf("alice read %q", got)
	}
	p, commit = bob.commitOf(gb)
	bob.must(commit)
	if err := gb.Apply(p.Staged); err != nil {
		t.Fatal(err)
	}
	if alice.read(ga) != "commit" {
		t.Error("alice did not get bob's commit")
	}
}

// A connection that its device has left for another gateway does nothing any more, although
// nobody has told the gateway so.
func TestOldConnectionAtAnotherNode(t *testing.T) {
	gw := nodes(t, gatewayOptions{wrap: hearsNothing}, gatewayOptions{})
	alice, bob, ga, gb := pair(t, gw[0])
	alice.must(alice.sealed(ga, "one"))
	if got := bob.read(gb); got != "one" {
		t.Fatal(got)
	}
	old := alice.link
	alice.moves(gw[1], 0)
	next := alice.sealed(ga, "two")
	next.SetSubmissionCounter(alice.counter + 1)
	newer := alice.link
	alice.link = old
	late := alice.sealed(ga, "said over the old connection")
	late.SetSubmissionCounter(alice.counter + 1)
	select {
	case a, ok := <-old.start(late):
		if r, is := a.(*wire.Result); ok && (!is || r.Code != wire.Unavailable) {
			t.Errorf("over a connection that is over: %+v", a)
		}
	case <-time.After(patience):
		t.Fatal("no answer")
	}
	if code := old.closed(t); code != wire.CloseReplaced {
		t.Errorf("closed with %v", code)
	}
	alice.link = newer
	if code := alice.code(next); code != wire.OK { // its counter was not used up
		t.Errorf("the newer connection: %v", code)
	}
	gw[0].box.Wake(mailbox.Device(bob.id))
	if got := bob.read(gb); got != "two" {
		t.Errorf("bob read %q", got)
	}
}

// What no news has told of a device that has moved is looked up.
func TestMovedIsLookedUp(t *testing.T) {
	gw := nodes(t, gatewayOptions{wrap: hearsNothing}, gatewayOptions{})
	alice, bob := newDevice(t, gw[0], "alice").ready(), newDevice(t, gw[0], "bob").ready()
	old := alice.link
	alice.moves(gw[1], 0)
	if err := gw[0].others.attend(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	if code := old.closed(t); code != wire.CloseReplaced {
		t.Errorf("closed with %v", code)
	}
	if code := bob.code(new(wire.Ping)); code != wire.OK {
		t.Errorf("who has not moved: %v", code)
	}
	gw[0].end(mailbox.Seat{Device: mailbox.Device(bob.id), Turn: gw[0].session(bob.id).turn.Load()})
	if code := bob.code(new(wire.Ping)); code != wire.OK {
		t.Errorf("news of the very connection end it: %v", code)
	}
}

// Nobody who could remove a suspended member is at the gateway that knows the group: those at
// another one are asked, and what they do is known here.
func TestRemovalDutyAcrossNodes(t *testing.T) {
	gw := nodes(t, gatewayOptions{}, gatewayOptions{})
	alice, bob, carol, ga, gb, _ := three(t, gw[0])
	alice.moves(gw[1], 0)
	bob.moves(gw[1], 2)
	set := issue(t, 1, device(carol.id, bulletin.Suspended))
	for _, g := range gw {
		g.SetStandings(set)
	}
	carol.link.closed(t)
	holder, lease := leased(t, alice, bob)
	if !bytes.Equal(lease.Group, ga.ID()) {
		t.Fatalf("lease %+v", lease)
	}
	g := ga
	if holder == bob {
		g = gb
	}
	if code := holder.remove(g, leafOf(t, g, carol)); code != wire.OK {
		t.Fatalf("the removal: %v", code)
	}
	for i, g := range gw {
		until(t, "nobody to be waited for", g.duties.idle)
		if g.duties.waits(ga.ID()) {
			t.Errorf("gateway %d still waits", i)
		}
	}
}

// What no news has told of a removal is looked up.
func TestRemovalIsLookedUp(t *testing.T) {
	gw := nodes(t, gatewayOptions{wrap: hearsNothing}, gatewayOptions{})
	alice, bob, carol, ga, _, _ := three(t, gw[0])
	set := issue(t, 1, device(carol.id, bulletin.Suspended))
	gw[0].SetStandings(set)
	gw[1].SetStandings(set)
	alice.moves(gw[1], 0)
	_ = bob
	if !gw[0].duties.waits(ga.ID()) {
		t.Fatal("nothing is waited for")
	}
	if code := alice.remove(ga, leafOf(t, ga, carol)); code != wire.OK {
		t.Fatal(code)
	}
	if err := gw[0].others.attend(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	if gw[0].duties.waits(ga.ID()) {
		t.Error("a removal that is done is waited for")
	}
}

// A gateway that has not heard of a suspension does not lift the hold that another one has
// laid: it asks for newer standings, and sends the device away until it has them.
func TestGatewayBehindTheOthers(t *testing.T) {
	asked := make(chan struct{}, 100)
	behind := func() {
		select {
		case asked <- struct{}{}:
		default:
		}
	}
	gw := nodes(t, gatewayOptions{standings: issue(t, 4)}, gatewayOptions{standings: issue(t, 4), behind: behind})
	alice, bob, _, _ := pair(t, gw[1])
	ahead := issue(t, 5, device(bob.id, bulletin.Suspended))
	gw[0].SetStandings(ahead)
	gw[0].audit.want(t, eventQuarantined, "")
	select {
	case <-asked:
	case <-time.After(patience):
		t.Fatal("nobody asked for the standings that another gateway has")
	}
	if err := gw[1].holds.follow(t.Context()); !errors.Is(err, mailbox.ErrOlderLaw) {
		t.Errorf("an older law: %v", err)
	}
	if _, err := bob.tryConnect(false, 0); err == nil {
		t.Error("a suspended device is welcomed by a gateway that is behind")
	}
	if got, err := gw[0].cfg.Store.Holds(t.Context()); err != nil || got[bob.id] != mailbox.Quarantined {
		t.Errorf("its hold: %v, %v", got[bob.id], err)
	}
	alice.connect(false, 0) // control: nothing speaks against her anywhere
	back := issue(t, 6)
	gw[1].SetStandings(back)
	until(t, "the hold to be lifted by who has a newer bulletin", func() bool {
		got, err := gw[1].cfg.Store.Holds(t.Context())
		return err == nil && got[bob.id] == mailbox.Free
	})
	bob.connect(false, 1)
}

// Gateways on one database share the keys of the transport; others have their own.
func TestSharedTransportKeys(t *testing.T) {
	gw := nodes(t, gatewayOptions{}, gatewayOptions{})
	if gw[0].keys != gw[1].keys || gw[0].keys == (transportKeys{}) {
		t.Error("the keys are not the same")
	}
	if alone := startGateway(t, gatewayOptions{}); alone.keys == gw[0].keys {
		t.Error("another gateway has them too")
	}
}

// A notice for a device finds it wherever it is connected.
func TestNoticeAcrossNodes(t *testing.T) {
	gw := nodes(t, gatewayOptions{}, gatewayOptions{})
	bob := newDevice(t, gw[1], "bob").ready()
	for len(bob.link.notices) > 0 {
		<-bob.link.notices
	}
	until(t, "the notice", func() bool {
		gw[0].notify(bob.id, wire.NoticeFiles) // again: it may be told before bob's gateway listens
		select {
		case code := <-bob.link.notices:
			return code == wire.NoticeFiles
		default:
			return false
		}
	})
	for len(bob.link.notices) > 0 {
		<-bob.link.notices
	}
	for _, code := range []wire.NoticeCode{wire.NoticeBundle, wire.NoticeKeyPackagesLow} { // in this order
		gw[1].others.hear(mailbox.News{Notices: []mailbox.Notice{{Device: mailbox.Device(bob.id), Code: uint8(code)}}})
	}
	for {
		select {
		case code := <-bob.link.notices:
			if code == wire.NoticeBundle {
				t.Error("who writes into the database tells devices what is the gateway's to tell")
			}
			if code != wire.NoticeFiles { // one of those from before
				return
			}
		case <-time.After(patience):
			t.Fatal("the other notice does not come")
		}
	}
}
