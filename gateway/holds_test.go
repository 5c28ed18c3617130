// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"testing"

	"valise/bulletin"
	"valise/identity"
	"valise/internal/testenv/paper"
	"valise/mls"
	"valise/statement"
	"valise/wire"
)

// offers is how many devices of a person are offered to others.
func (d *testDevice) offers(local string) int {
	d.t.Helper()
	kps, ok := d.ask(&wire.GetKeyPackages{Suite: uint16(mls.SuiteP256), Address: local + "@" + d.gw.authority.domain}).(*wire.KeyPackages)
	if !ok {
		return 0
	}
	return len(kps.Entries)
}

// wantHold waits until a device's mailbox was dealt with.
func (g *testGateway) wantHold(t *testing.T, event string, d *testDevice) {
	t.Helper()
	if line := g.audit.want(t, event, ""); line.attrs["device"] != d.id.String() {
		t.Errorf("%s: device %s, want %s", event, line.attrs["device"], d.local)
	}
}

// While a device is suspended its mail waits and it is offered to nobody; resumed, it has
// all of it back. The same holds for the devices of somebody who is taken off the roster.
func TestQuarantine(t *testing.T) {
	for name, bar := range map[string]func(*testDevice) *bulletin.Set{
		"device suspended": func(d *testDevice) *bulletin.Set { return issue(t, 1, device(d.id, bulletin.Suspended)) },
		"person removed":   func(d *testDevice) *bulletin.Set { return issue(t, 1, person(t, "bob", bulletin.Removed)) },
	} {
		t.Run(name, func(t *testing.T) {
			gw := startGateway(t, gatewayOptions{})
			alice, bob, ga, gb := pair(t, gw)
			_ = bob.link.conn.CloseWithError(0, "")
			gw.lost(t, bob)
			alice.must(alice.sealed(ga, "waiting"))
			gw.SetStandings(bar(bob))
			gw.wantHold(t, eventQuarantined, bob)
			if n := alice.offers("bob"); n != 0 {
				t.Errorf("%d devices of bob's are offered", n)
			}
			if got, err := gw.cfg.Store.Read(t.Context(), bob.id, 0, 10, 1<<20); err != nil || len(got) != 0 {
				t.Errorf("%d deliveries can be read, %v", len(got), err)
			}
			gw.SetStandings(issue(t, 2))
			bob.connect(false, 1)
			bob.listen(1)
			if got := bob.read(gb); got != "waiting" {
				t.Errorf("bob read %q", got)
			}
			if n := alice.offers("bob"); n != 1 {
				t.Errorf("%d devices of bob's are offered, he was resumed", n)
			}
			gw.audit.want(t, eventReleased, "")
			bob.must(bob.sealed(gb, "back"))
			if got := alice.read(ga); got != "back" {
				t.Errorf("alice read %q", got)
			}
		})
	}
}

// Standings are the truth: what was laid before a restart is lifted after it, and what
// was not, laid. Each is done once.
func TestQuarantineAfterRestart(t *testing.T) {
	authority := newAuthority(t, "interieur.example")
	dir := t.TempDir()
	gw := startGateway(t, gatewayOptions{dir: dir, authority: authority})
	alice, bob, carol, _, _, _ := three(t, gw)
	gw.SetStandings(issue(t, 1, device(bob.id, bulletin.Suspended)))
	gw.wantHold(t, eventQuarantined, bob)
	gw.stop()
	gw = startGateway(t, gatewayOptions{dir: dir, authority: authority, standings: issue(t, 2, device(carol.id, bulletin.Suspended))})
	alice.gw = gw
	gw.wantHold(t, eventQuarantined, carol)
	gw.wantHold(t, eventReleased, bob)
	alice.connect(false, 0)
	if alice.offers("bob") != 1 || alice.offers("carol") != 0 {
		t.Error("what is offered is not what standings say")
	}
	gw.SetStandings(issue(t, 3, device(carol.id, bulletin.Suspended)))
	gw.SetStandings(issue(t, 4, device(carol.id, bulletin.Suspended), device(bob.id, bulletin.Suspended)))
	gw.audit.wantCount(t, eventQuarantined, "", 2)
	if n := gw.audit.count(eventReleased, ""); n != 1 {
		t.Errorf("%d releases", n)
	}
}

// What a revoked device had is deleted, once the authority's bulletin says so: an
// officer's statement alone is a quarantine. Others keep theirs.
func TestRevokedIsDeleted(t *testing.T) {
	a := paper.New(t, "interieur.example")
	olga := a.Officer("olga", identity.RoleOfficer)
	gw := startGateway(t, gatewayOptions{})
	alice, bob, ga, _ := pair(t, gw)
	carol := newDevice(t, gw, "carol").ready()
	_ = bob.link.conn.CloseWithError(0, "")
	gw.lost(t, bob)
	alice.must(alice.sealed(ga, "waiting"))
	st := olga.Verified(&statement.Revocation{Target: statement.Target{Kind: statement.TargetDevice, Device: bob.id}, Reason: "lost", Change: statement.NewID()})
	office := func(b *bulletin.Bulletin) {
		b.Officers = append(b.Officers, bulletin.OfficerStanding{Key: olga.ID, Address: olga.Address, Role: olga.Role, State: bulletin.Active})
	}
	set, err := issue(t, 1, office).WithStatement(st, 5)
	if err != nil {
		t.Fatal(err)
	}
	gw.SetStandings(set)
	gw.wantHold(t, eventQuarantined, bob)
	totals := func() int64 {
		t.Helper()
		got, err := gw.cfg.Store.Totals(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got.Pointers
	}
	if n := totals(); n != 1 {
		t.Errorf("%d deliveries are kept before the bulletin, want 1", n)
	}
	gw.SetStandings(issue(t, 2, office, device(bob.id, bulletin.Revoked)))
	gw.wantHold(t, eventPurged, bob)
	if n := totals(); n != 0 {
		t.Errorf("%d deliveries are left", n)
	}
	// For good: nobody brings back what is gone, whatever a later bulletin says.
	gw.SetStandings(issue(t, 3, office))
	if _, err := bob.tryConnect(false, 1); err == nil {
		t.Error("a device whose mailbox was deleted got in")
	}
	if n := alice.offers("bob"); n != 0 {
		t.Errorf("%d devices of bob's are offered", n)
	}
	if n := alice.offers("carol"); n != 1 {
		t.Errorf("control: %d devices of carol's are offered", n)
	}
	if code := carol.code(&wire.Ping{}); code != wire.OK {
		t.Errorf("control: %v", code)
	}
}
