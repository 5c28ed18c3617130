// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"testing"
	"time"

	"valise/bulletin"
	"valise/gateway/rules"
	"valise/identity"
	"valise/internal/testenv/paper"
	"valise/mls"
	"valise/policy/bundle"
	"valise/wire"
)

// An archive is a desk with a running gateway, and people who are cleared for SECRET.
type archive struct {
	*desk
	gw     *testGateway
	alice  *testDevice
	bulls  *paper.Authority
	number uint64
}

func newArchive(t *testing.T) *archive {
	d := newDesk(t, "", bundle.Domains{Unlabelled: true})
	a := &archive{desk: d, gw: startGateway(t, gatewayOptions{authority: d.a}), bulls: paper.New(t, home)}
	a.gw.SetRules(d.state)
	a.alice = a.person("alice")
	return a
}

func (a *archive) person(local string) *testDevice {
	d := newDevice(a.t, a.gw, local)
	d.chain = a.a.deviceAs(a.t, local, d.key, -time.Hour, 100*time.Hour, cleared(a.upTo("SECRET"), identity.TierHardware))
	d.mls.Credential = mls.X509Credential(d.chain)
	return d.ready()
}

// talks has alice begin a conversation with somebody, who goes away then.
func (a *archive) talks(to *testDevice) *mls.Group {
	g := a.alice.found()
	a.alice.add(g, a.alice.take(to.local)...)
	to.join()
	to.ack(1)
	to.settled(1)
	_ = to.link.conn.CloseWithError(0, "")
	return g
}

func (a *archive) send(g *mls.Group, class string) {
	h := wire.Header{Sequence: 1}
	if class != "" {
		label, err := a.doctrine.Label(class).Marshal()
		if err != nil {
			a.t.Fatal(err)
		}
		h = wire.Header{Sequence: 1, Labelled: true, Label: label, Policy: []byte(a.doctrine.ID), PolicyHash: a.state.Bundle.Hash[:]}
	}
	a.alice.must(a.alice.sealedUnder(g, "x", h))
}

// lowers issues a bulletin that leaves a person so much.
func (a *archive) lowers(to *testDevice, c *identity.Clearance) {
	a.t.Helper()
	address, err := identity.ParseAddress(to.local + "@" + home)
	if err != nil {
		a.t.Fatal(err)
	}
	a.number++
	b := a.bulls.Bulletin(a.number)
	b.People = []bulletin.PersonStanding{{Address: address, State: bulletin.Active, Since: b.Time, Ceiling: c}}
	set, err := bulletin.NewSet().WithBulletin(b)
	if err != nil {
		a.t.Fatal(err)
	}
	a.gw.SetStandings(set)
}

// holds connects a device and wants deliveries, as number, kind and, of what stands for
// others, the first of these. Nothing is acknowledged.
func (a *archive) holds(d *testDevice, after uint64, want ...[3]uint64) {
	a.t.Helper()
	d.connect(false, after)
	d.listen(after)
	for _, w := range want {
		m := d.next()
		got := [3]uint64{m.Number, uint64(m.Kind), 0}
		if m.Kind == wire.DeliverWithheld {
			e, err := wire.ParseExpiredMail(m.Payload)
			if err != nil || m.Sender != a.alice.id {
				a.t.Fatalf("%+v: %v", m, err)
			}
			got[2] = e.First
		}
		if got != w {
			a.t.Errorf("%s: delivery %v, want %v", d.local, got, w)
		}
	}
	d.drained()
	d.nothing(0)
	_ = d.link.conn.CloseWithError(0, "")
}

const (
	content  = uint64(wire.DeliverContent)
	withheld = uint64(wire.DeliverWithheld)
)

// Mail that waited is not for somebody whose clearance was lowered meanwhile: it is taken
// out for good, both ends are told, and what is within the clearance arrives, as does
// everything at somebody whose clearance was not lowered.
func TestStoredMailIsJudgedAgain(t *testing.T) {
	a := newArchive(t)
	for _, local := range []string{"bob", "carol"} {
		to := a.person(local)
		g := a.talks(to)
		for _, class := range []string{"SECRET", "SECRET", "DIFFUSION RESTREINTE", "", "SECRET"} {
			a.send(g, class)
		}
		if local == "carol" { // the control
			a.holds(to, 1, [3]uint64{2, content}, [3]uint64{3, content}, [3]uint64{4, content}, [3]uint64{5, content}, [3]uint64{6, content})
			continue
		}
		a.lowers(to, a.upTo("DIFFUSION RESTREINTE"))
		left := [][3]uint64{{3, withheld, 2}, {4, content}, {5, content}, {6, withheld, 6}}
		a.holds(to, 1, left...)
		line := a.gw.audit.want(t, eventWithheld, "classification")
		if line.attrs["recipient"] != to.id.String() || line.attrs["sender"] != a.alice.id.String() || line.attrs["messages"] != "2" || line.attrs["first"] != "2" || line.attrs["last"] != "3" {
			t.Errorf("the audit stream says %v", line.attrs)
		}
		notice := a.alice.next()
		told, err := wire.ParseUndeliveredMail(notice.Payload)
		if err != nil || notice.Kind != wire.DeliverForbidden || notice.Sender != to.id || len(told.Counters) != 3 || told.Incarnation != a.alice.incarnation {
			t.Fatalf("%+v, %+v, %v", notice, told, err)
		}
		a.lowers(to, a.upTo("SECRET")) // what was withheld does not come back with the clearance
		a.holds(to, 1, left...)
	}
}

// Another bundle counts for what waited under the one before; and a label that it does
// not know any more is withheld, whereas another edition of the same policy reads it.
func TestStoredMailUnderAnotherBundle(t *testing.T) {
	a := newArchive(t)
	bob := a.person("bob")
	g := a.talks(bob)
	a.send(g, "SECRET")
	a.send(g, "DIFFUSION RESTREINTE")
	a.holds(bob, 1, [3]uint64{2, content}, [3]uint64{3, content})
	put := func(table bundle.Domains) {
		_, b := a.doctrine.Bundle(2, a.doctrine.Folder("", table))
		a.gw.SetRules(&rules.State{Bundle: b, File: []byte("signed")})
	}
	id := a.doctrine.ID.String()
	put(bundle.Domains{Domains: []bundle.Bound{{Domain: home, Policy: id, Ceiling: "TRÈS SECRET"}}})
	a.holds(bob, 1, [3]uint64{2, content}, [3]uint64{3, content})
	put(bundle.Domains{Domains: []bundle.Bound{{Domain: home, Policy: id, Ceiling: "DIFFUSION RESTREINTE"}}})
	a.holds(bob, 1, [3]uint64{2, withheld, 2}, [3]uint64{3, content})
	a.gw.audit.want(t, eventWithheld, string(bundle.ReasonDomain))

	a.doctrine = paper.NewDoctrine(t, "tlp")
	put(bundle.Domains{})
	a.holds(bob, 1, [3]uint64{3, withheld, 2})
	a.gw.audit.want(t, eventWithheld, "unknown_policy")
}
