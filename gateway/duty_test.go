// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"valise/bulletin"
	"valise/gateway/group"
	"valise/gateway/mailbox"
	"valise/identity"
	"valise/internal/testenv/paper"
	"valise/mls"
	"valise/statement"
	"valise/wire"
)

// three makes a group of three that are all connected.
func three(t *testing.T, gw *testGateway) (alice, bob, carol *testDevice, ga, gb, gc *mls.Group) {
	t.Helper()
	alice, bob, ga, gb = pair(t, gw)
	carol = newDevice(t, gw, "carol").ready()
	alice.add(ga, alice.take("carol")...)
	if bob.read(gb) != "commit" {
		t.Fatal("bob did not get the commit")
	}
	return alice, bob, carol, ga, gb, carol.join()
}

// leased waits until one of the devices is asked to remove somebody.
func leased(t *testing.T, devices ...*testDevice) (*testDevice, *wire.Lease) {
	t.Helper()
	deadline := time.After(patience)
	for {
		for _, d := range devices {
			select {
			case lease := <-d.link.leases:
				return d, lease
			default:
			}
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatal("nobody was asked to remove the suspended device")
		}
	}
}

// remove commits the removal of a device.
func (d *testDevice) remove(g *mls.Group, leaf mls.LeafIndex) wire.Code {
	d.t.Helper()
	p, commit := d.commitOf(g, mls.RemoveProposal(leaf))
	code := d.submit(commit)
	if code == wire.OK {
		if err := g.Apply(p.Staged); err != nil {
			d.t.Fatal(err)
		}
	}
	return code
}

// Content waits for the removal of a suspended member; one member is asked for it, and
// another may be faster. What is said after it the suspended device cannot read, and
// when it is resumed it comes back by being added anew.
func TestRemovalDuty(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob, carol, ga, gb, gc := three(t, gw)
	alice.must(alice.sealed(ga, "before"))
	for _, r := range []struct {
		d *testDevice
		g *mls.Group
	}{{bob, gb}, {carol, gc}} {
		if got := r.d.read(r.g); got != "before" {
			t.Fatalf("%s read %q", r.d.local, got)
		}
	}
	gw.SetStandings(issue(t, 1, device(carol.id, bulletin.Suspended)))
	carol.link.closed(t)
	holder, lease := leased(t, alice, bob)
	if string(lease.Group) != string(ga.ID()) || lease.Epoch != ga.Epoch() || lease.Milliseconds != uint32(leaseTime/time.Millisecond) {
		t.Errorf("lease %+v", lease)
	}
	held := alice.sealed(ga, "held back")
	answer, ok := alice.askSubmit(held).(*wire.Result)
	if !ok || answer.Code != wire.RemovalDue || string(answer.Detail) != string(carol.id[:]) {
		t.Errorf("content while the removal is due: %+v", answer)
	}
	// Who does not hold the lease may be first all the same.
	first, g, other, og := alice, ga, bob, gb
	if holder == alice {
		first, g, other, og = bob, gb, alice, ga
	}
	if code := first.remove(g, leafOf(t, g, carol)); code != wire.OK {
		t.Fatalf("the removal: %v", code)
	}
	if code := other.remove(og, leafOf(t, og, carol)); code != wire.StaleEpoch {
		t.Errorf("a removal that came second: %v", code)
	}
	if other.read(og) != "commit" {
		t.Fatal("the loser did not get the removal")
	}
	first.must(first.sealed(g, "after"))
	if got := other.read(og); got != "after" {
		t.Errorf("%s read %q", other.local, got)
	}
	// Resumed, carol learns of her removal, and of nothing else.
	gw.SetStandings(issue(t, 2))
	carol.connect(false, 2)
	carol.listen(2)
	m := carol.next()
	if r, err := gc.Receive(m.Payload, time.Now()); err != nil || r.Commit == nil || !r.Commit.SelfGone {
		t.Fatalf("carol did not learn of her removal: %+v, %v", r, err)
	}
	carol.ack(m.Number)
	if code := carol.submit(carol.sealed(gc, "let me in")); code != wire.NotMember {
		t.Errorf("a removed device sends: %v", code)
	}
	carol.nothing(50 * time.Millisecond)
	first.add(g, first.take("carol")...)
	gc = carol.join()
	if other.read(og) != "commit" {
		t.Fatal("no commit")
	}
	first.must(first.sealed(g, "welcome back"))
	if got := carol.read(gc); got != "welcome back" {
		t.Errorf("carol read %q", got)
	}
	for _, d := range []*testDevice{alice, bob} {
		if len(d.link.leases) > 0 {
			t.Errorf("%s is still asked", d.local)
		}
	}
}

// The duty goes around: to the next one when the holder does nothing, at once when the
// holder is gone, and to whoever comes back when nobody is there.
func TestLeaseGoesOn(t *testing.T) {
	gw := startGateway(t, gatewayOptions{period: 300 * time.Millisecond})
	alice, bob, carol, _, _, _ := three(t, gw)
	gw.SetStandings(issue(t, 1, device(carol.id, bulletin.Revoked)))
	first, _ := leased(t, alice, bob)
	second, other := bob, alice
	if first == bob {
		second, other = alice, bob
	}
	if next, _ := leased(t, alice, bob); next != second {
		t.Errorf("the second lease went to %s again", next.local)
	}
	_ = second.link.conn.CloseWithError(0, "")
	if next, _ := leased(t, other); next != other {
		t.Error("nobody else was asked")
	}
	_ = other.link.conn.CloseWithError(0, "")
	gw.lost(t, alice, bob)
	alice.connect(false, 0)
	alice.listen(0)
	if next, _ := leased(t, alice); next != alice {
		t.Error("who came back was not asked")
	}
}

// lost waits until the gateway has noticed that devices are gone.
func (g *testGateway) lost(t *testing.T, devices ...*testDevice) {
	t.Helper()
	for _, d := range devices {
		until(t, d.local+" to be gone", func() bool { return g.session(d.id) == nil })
	}
}

// After a restart the duty is the same: it follows from standings and group.
func TestRemovalDutyAfterRestart(t *testing.T) {
	authority := newAuthority(t, "interieur.example")
	dir := t.TempDir()
	gw := startGateway(t, gatewayOptions{dir: dir, authority: authority})
	alice, bob, carol, ga, gb, _ := three(t, gw)
	gw.SetStandings(issue(t, 1, person(t, "carol", bulletin.Removed)))
	gw.stop()
	gw = startGateway(t, gatewayOptions{dir: dir, authority: authority})
	gw.SetStandings(issue(t, 1, person(t, "carol", bulletin.Removed)))
	alice.gw, bob.gw = gw, gw
	alice.connect(false, 0)
	bob.connect(false, 2)
	alice.listen(0)
	bob.listen(2)
	if code := alice.submit(alice.sealed(ga, "held back")); code != wire.RemovalDue {
		t.Errorf("content after a restart: %v", code)
	}
	holder, _ := leased(t, alice, bob)
	g := ga
	if holder == bob {
		g = gb
	}
	if code := holder.remove(g, leafOf(t, g, carol)); code != wire.OK {
		t.Fatalf("the removal: %v", code)
	}
	holder.must(holder.sealed(g, "after"))
}

// Groups in which nobody says anything are cleared too: after a restart nothing is in
// memory, and one member is asked for each of them all the same, page by page. Those who
// are resumed meanwhile are left alone.
func TestIdleGroupsAreCleared(t *testing.T) {
	authority := newAuthority(t, "interieur.example")
	dir := t.TempDir()
	gw := startGateway(t, gatewayOptions{dir: dir, authority: authority})
	alice, bob, carol, ga, _, _ := three(t, gw)
	carol.publish(3, false)
	groups := map[string]*mls.Group{string(ga.ID()): ga}
	for range 3 {
		g := alice.found()
		alice.add(g, alice.take("carol")...)
		groups[string(g.ID())] = g
	}
	other := alice.found() // without carol
	alice.add(other, alice.take("bob")...)
	gw.stop()
	walked := make(chan int, 8)
	gw = startGateway(t, gatewayOptions{dir: dir, authority: authority, standings: issue(t, 1, device(carol.id, bulletin.Suspended)), swept: walked})
	alice.gw, bob.gw = gw, gw
	alice.connect(false, 0)
	alice.listen(0)
	asked := map[string]bool{}
	for len(asked) < len(groups) {
		_, lease := leased(t, alice)
		if groups[string(lease.Group)] == nil {
			t.Fatalf("asked for a group without carol: %x", lease.Group)
		}
		asked[string(lease.Group)] = true
	}
	if n := within(t, walked); n != len(groups) {
		t.Errorf("a walk through %d groups, carol is in %d", n, len(groups))
	}
	if n := len(gw.groups.Views()); n != 0 {
		t.Errorf("%d groups are in memory after the walk", n)
	}
	for id, g := range groups {
		if code := alice.remove(g, leafOf(t, g, carol)); code != wire.OK {
			t.Fatalf("the removal from %x: %v", id, code)
		}
	}
	if !gw.duties.idle() {
		t.Error("groups wait for a removal that was made")
	}
	// Who is suspended is looked for once; somebody else, again.
	gw.SetStandings(issue(t, 2, device(carol.id, bulletin.Suspended)))
	gw.SetStandings(issue(t, 3, device(carol.id, bulletin.Suspended), device(bob.id, bulletin.Suspended)))
	if n := within(t, walked); n != 2 {
		t.Errorf("the second walk: %d groups, bob is in 2", n)
	}
	if gw.duties.idle() {
		t.Error("nobody is asked to remove bob")
	}
	gw.SetStandings(issue(t, 4, device(carol.id, bulletin.Suspended)))
	if !gw.duties.idle() {
		t.Error("bob was resumed, and is to be removed all the same")
	}
	if len(walked) > 0 {
		t.Error("a walk for nothing")
	}
}

// readings counts the groups that a gateway reads.
type readings struct {
	mailbox.Store
	groups atomic.Int64
}

func (r *readings) Group(ctx context.Context, id []byte) (*mailbox.Group, error) {
	r.groups.Add(1)
	return r.Store.Group(ctx, id)
}

// Who is suspended costs a look at his groups, however many there are. Those of a store
// from before, of which it is not known by device who stands in them, are read once.
func TestSweepReadsTheirGroupsOnly(t *testing.T) {
	authority, dir := newAuthority(t, "interieur.example"), t.TempDir()
	gw := startGateway(t, gatewayOptions{dir: dir, authority: authority})
	alice, bob, carol := newDevice(t, gw, "alice").ready(), newDevice(t, gw, "bob").ready(), newDevice(t, gw, "carol").ready()
	const others, theirs = 9, 2
	bob.publish(others, false)
	for i := range others + theirs {
		who := "bob"
		if i < theirs {
			who = "carol"
		}
		alice.add(alice.found(), alice.take(who)...)
	}
	gw.stop()
	standings := issue(t, 1, device(carol.id, bulletin.Suspended))
	walk := func(what string, visited, read int) {
		t.Helper()
		walked := make(chan int, 8)
		r := new(readings)
		gw := startGateway(t, gatewayOptions{
			dir: dir, authority: authority, standings: standings, swept: walked,
			wrap: func(s mailbox.Store) mailbox.Store { r.Store = s; return r },
		})
		if n := within(t, walked); n != visited || r.groups.Load() != int64(read) {
			t.Errorf("%s: a walk through %d groups, %d read; want %d and %d", what, n, r.groups.Load(), visited, read)
		}
		gw.stop()
	}
	walk("carol is suspended", theirs, theirs)
	forget(t, dir)
	walk("of a store from before", others+theirs+theirs, others+theirs+theirs)
	walk("once they are listed", theirs, theirs)
}

// forget takes from a stopped gateway's store who stands in which group, as if it were
// from before this was kept.
func forget(t *testing.T, dir string) {
	t.Helper()
	driver, source := "sqlite", filepath.Join(dir, "relay.db")
	if strings.HasPrefix(t.Name(), onPostgreSQL) {
		driver, source = "pgx", databases.dsn[dir]
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, q := range []string{`DELETE FROM group_members`, `UPDATE groups SET listed = 0`} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
}

// within waits for what a channel brings.
func within(t *testing.T, c <-chan int) int {
	t.Helper()
	select {
	case n := <-c:
		return n
	case <-time.After(patience):
		t.Fatal("nothing came")
		return 0
	}
}

func (d *duties) idle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.due) == 0
}

// Turns by the clock alone: a thousand members are asked one after another, never two
// at once.
func TestOneLeaseAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var members []*identity.Device
		for i := range 1000 {
			members = append(members, &identity.Device{ID: identity.DeviceID{byte(i), byte(i >> 8), 1}})
		}
		sessions := map[identity.DeviceID]*session{}
		for _, m := range members[1:] {
			sessions[m.ID] = &session{leases: make(chan *wire.Lease, maxLeases)}
		}
		d := newDuties(
			func(id identity.DeviceID, _ identity.Address) bool { return id == members[0].ID },
			func(id identity.DeviceID) *session { return sessions[id] })
		asked := func() (all int, most int) {
			for _, s := range sessions {
				all += len(s.leases)
				most = max(most, len(s.leases))
			}
			return all, most
		}
		d.look(group.NewView([]byte("g"), 4, members...))
		for turn := range 999 {
			if wait := d.lease(time.Now()); wait != leaseTime {
				t.Fatalf("turn %d: waits for %v", turn, wait)
			}
			d.lease(time.Now().Add(leaseTime - 1)) // early
			if all, most := asked(); all != turn+1 || most != 1 {
				t.Fatalf("turn %d: %d leases, one has %d", turn, all, most)
			}
			time.Sleep(leaseTime)
		}
		d.look(group.NewView([]byte("g"), 5, members[1:]...))
		if wait := d.lease(time.Now()); wait != time.Hour {
			t.Errorf("after the removal it waits for %v", wait)
		}
		if all, _ := asked(); all != 999 {
			t.Errorf("%d leases", all)
		}
	})
}

// A device learns standings as they were signed: the bulletin if its own is older, and
// the statements that it does not know yet.
func TestGetStandings(t *testing.T) {
	a := paper.New(t, "interieur.example")
	olga := a.Officer("olga", identity.RoleOfficer)
	record, _ := newRecords(t, 3)
	record.newest = []byte("the bulletin")
	gw := startGateway(t, gatewayOptions{record: record})
	alice := newDevice(t, gw, "alice")
	alice.connect(true, 0)
	ask := func(number uint64) *wire.Standings {
		t.Helper()
		answer, ok := alice.ask(&wire.GetStandings{Bulletin: number}).(*wire.Standings)
		if !ok {
			t.Fatal("no Standings")
		}
		return answer
	}
	if s := ask(0); len(s.Bulletin) != 0 || len(s.Orders) != 0 {
		t.Errorf("before the first bulletin: %+v", s)
	}
	st := olga.Verified(&statement.Suspension{
		Target: statement.Target{Kind: statement.TargetDevice, Device: identity.DeviceID{7}}, Reason: "lost", Change: statement.NewID(),
	})
	set, err := issue(t, 3, func(b *bulletin.Bulletin) {
		b.Officers = append(b.Officers, bulletin.OfficerStanding{Key: olga.ID, Address: olga.Address, Role: olga.Role, State: bulletin.Active})
	}).WithStatement(st, 40)
	if err != nil {
		t.Fatal(err)
	}
	gw.SetStandings(set)
	s := ask(2)
	if string(s.Bulletin) != "the bulletin" {
		t.Errorf("bulletin %q", s.Bulletin)
	}
	if len(s.Orders) != 1 || string(s.Orders[0].Statement) != string(st.Raw) || s.Orders[0].Leaf != 40 {
		t.Errorf("orders %+v", s.Orders)
	}
	if s := ask(3); len(s.Bulletin) != 0 || len(s.Orders) != 1 {
		t.Errorf("to who has the bulletin: %+v", s)
	}
}

// Attempts to commit are limited by device and group, those that fail too.
func TestCommitAttempts(t *testing.T) {
	gw := startGateway(t, gatewayOptions{limits: Limits{Rate: 1e6, Burst: 1e6, Commits: 1e-6, CommitBurst: 3}})
	alice, bob, ga, _ := pair(t, gw) // one commit of alice's
	old := ga.Epoch() - 1
	_, commit := alice.commitOf(ga)
	late := *commit
	late.Epoch = old
	for range 2 {
		if code := alice.submit(&late); code != wire.StaleEpoch {
			t.Fatalf("an attempt: %v", code)
		}
	}
	if code := alice.submit(commit); code != wire.RateLimited {
		t.Errorf("one attempt too many: %v", code)
	}
	gw.audit.want(t, eventRefusedRequest, "commit_attempts")
	other := alice.found()
	alice.add(other, alice.take("bob")...) // another group
	_ = bob
}
