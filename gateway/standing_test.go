// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"testing"
	"time"

	"valise/bulletin"
	"valise/gateway/group"
	"valise/identity"
	"valise/manifest"
	"valise/mls"
	"valise/wire"
)

// issue returns the standings of a bulletin.
// named are standings under a manifest that names the issuers of these devices.
func named(devices ...*identity.Device) *bulletin.Set {
	m := new(manifest.Manifest)
	for _, d := range devices {
		m.Issuers = append(m.Issuers, manifest.Issuer{Certificate: d.Chain[1]})
	}
	return bulletin.NewSet().WithManifest(m)
}

func issue(t testing.TB, number uint64, changes ...func(*bulletin.Bulletin)) *bulletin.Set {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	b := &bulletin.Bulletin{Number: number, Time: now, Next: now.Add(time.Minute), Manifest: 1}
	for _, change := range changes {
		change(b)
	}
	set, err := bulletin.NewSet().WithBulletin(b)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func device(id identity.DeviceID, state bulletin.State) func(*bulletin.Bulletin) {
	return func(b *bulletin.Bulletin) {
		b.Devices = append(b.Devices, bulletin.DeviceStanding{ID: id, State: state, Since: b.Time})
	}
}

func person(t testing.TB, local string, state bulletin.State) func(*bulletin.Bulletin) {
	t.Helper()
	address, err := identity.ParseAddress(local + "@interieur.example")
	if err != nil {
		t.Fatal(err)
	}
	return func(b *bulletin.Bulletin) {
		b.People = append(b.People, bulletin.PersonStanding{Address: address, State: state, Since: b.Time})
	}
}

// Admission by standing: one honest message, and beside it each whose sender or
// recipient the authority has something against.
func TestAdmitStanding(t *testing.T) {
	alice, bob, eve := deviceFor(t, "alice"), deviceFor(t, "bob"), deviceFor(t, "eve")
	header, err := (&wire.Header{Sequence: 1}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		set    *bulletin.Set
		code   wire.Code
		reason string
	}{
		"nothing is known":        {bulletin.NewSet(), wire.OK, ""},
		"all are good":            {issue(t, 1), wire.OK, ""},
		"someone else suspended":  {issue(t, 1, device(eve.ID, bulletin.Suspended), person(t, "eve", bulletin.Removed)), wire.OK, ""},
		"a listed, active sender": {issue(t, 1, person(t, "alice", bulletin.Active)), wire.OK, ""},
		"sender suspended":        {issue(t, 1, device(alice.ID, bulletin.Suspended)), wire.NotAllowed, "device_suspended"},
		"sender revoked":          {issue(t, 1, device(alice.ID, bulletin.Revoked)), wire.NotAllowed, "device_revoked"},
		"sender's person":         {issue(t, 1, person(t, "alice", bulletin.Suspended)), wire.NotAllowed, "person_suspended"},
		"sender removed":          {issue(t, 1, person(t, "alice", bulletin.Removed)), wire.NotAllowed, "person_removed"},
		"recipient suspended":     {issue(t, 1, device(bob.ID, bulletin.Suspended)), wire.RemovalDue, "removal_due"},
		"recipient's person":      {issue(t, 1, person(t, "bob", bulletin.Removed)), wire.RemovalDue, "removal_due"},
		"both issuers named":      {named(alice, bob), wire.OK, ""},
		"sender's issuer":         {named(bob), wire.NotAllowed, "issuer_not_named"},
		"recipient's issuer":      {named(alice), wire.RecipientRefused, "recipient_denied"},
	} {
		s := &snapshot{
			now: time.Now(), device: alice, domain: "interieur.example", set: test.set,
			group: group.NewView([]byte("g"), 7, alice, bob), allowance: allow(1, 1),
		}
		r := admit(s, &message{group: []byte("g"), epoch: 7, info: &mls.MessageInfo{
			Wire: mls.WirePrivateMessage, GroupID: []byte("g"), Epoch: 7, Content: mls.ContentApplication, AuthenticatedData: header,
		}})
		if r == nil {
			r = &refusal{}
		}
		if r.code != test.code || r.reason != test.reason {
			t.Errorf("%s: got %v, %q; want %v, %q", name, r.code, r.reason, test.code, test.reason)
		}
	}
}

// Certificates count only under issuing certificates that the manifest names: one
// whose key was stolen is out for senders, recipients and newcomers, with the next
// manifest and at once.
func TestIssuerNotNamed(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob, ga, _ := pair(t, gw)
	issuer := manifest.Issuer{Certificate: alice.chain[1]}
	stranger := newAuthority(t, "interieur.example").device(t, "eve", newKey(t), -time.Hour, time.Hour)[1]
	control := alice.sealed(ga, "one")
	gw.SetStandings(bulletin.NewSet().WithManifest(&manifest.Manifest{Issuers: []manifest.Issuer{issuer}}))
	if code := alice.submit(control); code != wire.OK {
		t.Fatalf("control: %v", code)
	}
	later := issuer
	later.Until = time.Now().Add(time.Hour) // in use when the certificates were issued
	gw.SetStandings(bulletin.NewSet().WithManifest(&manifest.Manifest{Issuers: []manifest.Issuer{later}}))
	if code := alice.code(&wire.Ping{}); code != wire.OK {
		t.Fatalf("control: %v", code)
	}
	gw.SetStandings(bulletin.NewSet().WithManifest(&manifest.Manifest{Issuers: []manifest.Issuer{{Certificate: stranger}}}))
	for _, d := range []*testDevice{alice, bob} {
		if code := d.link.closed(t); code != wire.CloseNotAdmitted {
			t.Errorf("closed with %d", code)
		}
	}
	if _, err := alice.tryConnect(false, 0); err == nil {
		t.Error("a certificate under an issuer that is not named got in")
	}
	gw.audit.want(t, eventRefusedConnection, "issuer_not_named")
}

// A suspended device's connection ends at once and does not come back; a person
// takes all devices along; others stay.
func TestSuspendedConnection(t *testing.T) { overBoth(t, testSuspendedConnection) }

func testSuspendedConnection(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	eve, honest := newDevice(t, gw, "eve"), newDevice(t, gw, "honest")
	first, second := newDevice(t, gw, "carol"), newDevice(t, gw, "carol")
	for _, d := range []*testDevice{eve, honest, first, second} {
		d.connect(true, 0)
	}
	gw.SetStandings(issue(t, 1, device(eve.id, bulletin.Suspended)))
	if code := eve.link.closed(t); code != wire.CloseNotAdmitted {
		t.Errorf("closed with %d", code)
	}
	if _, err := eve.tryConnect(false, 0); err == nil {
		t.Error("a suspended device got in")
	}
	gw.audit.want(t, eventRefusedConnection, "device_suspended")
	gw.SetStandings(issue(t, 2, person(t, "carol", bulletin.Removed)))
	for _, d := range []*testDevice{first, second} {
		if code := d.link.closed(t); code != wire.CloseNotAdmitted {
			t.Errorf("carol's connection closed with %d", code)
		}
	}
	if _, err := second.tryConnect(false, 0); err == nil {
		t.Error("a removed person got in")
	}
	gw.audit.want(t, eventRefusedConnection, "person_removed")
	eve.connect(false, 0) // resumed by the newer bulletin
	if code := honest.code(&wire.Ping{}); code != wire.OK {
		t.Errorf("ping: %v", code)
	}
}

// Nothing reaches a suspended recipient, nobody finds them, and nobody adds
// them to a group; all of it is there again when they are.
func TestSuspendedRecipient(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob, ga, gb := pair(t, gw)
	carol := newDevice(t, gw, "carol").ready()
	message := alice.sealed(ga, "hello")
	taken := alice.take("carol")
	adding, commit := alice.commitOf(ga, mls.AddProposal(taken[0]))
	gw.SetStandings(issue(t, 1, device(bob.id, bulletin.Suspended), device(carol.id, bulletin.Revoked)))
	bob.link.closed(t)
	answer, ok := alice.askSubmit(message).(*wire.Result)
	if !ok || answer.Code != wire.RemovalDue || string(answer.Detail) != string(bob.id[:]) {
		t.Errorf("to a suspended recipient: %+v", answer)
	}
	if line := gw.audit.want(t, eventRefusedRequest, "removal_due"); line.attrs["recipient"] != bob.id.String() {
		t.Errorf("the audit stream names %q", line.attrs["recipient"])
	}
	if code := alice.submit(commit); code != wire.RecipientRefused {
		t.Errorf("adding a revoked device: %v", code)
	}
	gw.audit.want(t, eventRefusedRequest, "added_device_denied")
	directory, ok := alice.ask(&wire.GetDirectory{}).(*wire.Directory)
	if !ok || len(directory.Chains) != 1 {
		t.Errorf("directory %+v, want alice alone", directory)
	}
	wanted := &wire.GetKeyPackages{Suite: uint16(mls.SuiteP256), Address: "carol@interieur.example"}
	if kps, ok := alice.ask(wanted).(*wire.KeyPackages); ok && len(kps.Entries) != 0 {
		t.Error("a revoked device's KeyPackages were handed out")
	}
	gw.SetStandings(issue(t, 2))
	bob.connect(false, 1)
	bob.listen(1)
	alice.must(message)
	if got := bob.read(gb); got != "hello" {
		t.Errorf("bob read %q", got)
	}
	alice.must(commit)
	if err := ga.Apply(adding.Staged); err != nil {
		t.Fatal(err)
	}
}
