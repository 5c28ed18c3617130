// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"testing"
	"time"

	"valise/bulletin"
	"valise/gateway/group"
	"valise/mls"
	"valise/wire"
)

// Everything is refused at last, without a bulletin at once; what has a label, earlier.
func TestAdmitAge(t *testing.T) {
	alice, bob := deviceFor(t, "alice"), deviceFor(t, "bob")
	header, err := (&wire.Header{Sequence: 1}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	steps := bulletin.Tightening{First: time.Hour, All: 4 * time.Hour}
	for name, test := range map[string]struct {
		tightening bulletin.Tightening
		age        time.Duration
		code       wire.Code
		reason     string
	}{
		"fresh":                     {steps, time.Minute, wire.OK, ""},
		"the last moment":           {steps, 4*time.Hour - 1, wire.OK, ""},
		"too old":                   {steps, 4 * time.Hour, wire.StandingsStale, "stale_bulletin"},
		"there is none":             {steps, bulletin.Never, wire.StandingsStale, "no_bulletin"},
		"no authority is followed":  {bulletin.Tightening{}, bulletin.Never, wire.OK, ""},
		"a clock that is behind it": {steps, 0, wire.OK, ""},
	} {
		s := &snapshot{
			now: time.Now(), device: alice, domain: "interieur.example", set: issue(t, 1), age: test.age, tightening: test.tightening,
			group: group.NewView([]byte("g"), 7, alice, bob), allowance: allow(1000, 1000),
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
	s := &snapshot{age: 2 * time.Hour, tightening: steps}
	for rank, refused := range []bool{false, false, true, true} {
		if r := admitAge(s, rank, 3); (r != nil) != refused {
			t.Errorf("rank %d of 3 after two hours: %+v", rank, r)
		}
	}
}

// Over the connection: a bulletin that does not come in time stops content, its sender
// keeps the number, and the next bulletin lets it through. Each step is in the audit
// stream, and so is a clock that was set; set back, it makes nothing younger.
func TestStaleBulletin(t *testing.T) {
	gw := startGateway(t, gatewayOptions{tighten: bulletin.Tightening{First: time.Hour, All: 4 * time.Hour}, standings: issue(t, 1)})
	alice, bob, ga, gb := pair(t, gw)
	alice.must(alice.sealed(ga, "in time"))
	if got := bob.read(gb); got != "in time" {
		t.Fatalf("bob read %q", got)
	}
	arrived := *gw.arrival.Load()
	old := arrived.Arrived(issue(t, 2, func(b *bulletin.Bulletin) {
		b.Time, b.Next = b.Time.Add(-5*time.Hour), b.Next.Add(-5*time.Hour)
	}), time.Now(), gw.up())
	gw.arrival.Store(&old)
	if code := alice.submit(alice.sealed(ga, "late")); code != wire.StandingsStale {
		t.Errorf("under a bulletin of five hours: %v", code)
	}
	gw.audit.want(t, eventRefusedRequest, "stale_bulletin")
	if line := gw.audit.want(t, eventTightened, "stale_bulletin"); line.attrs["refused"] != "1" || line.attrs["of"] != "1" {
		t.Errorf("the step is told as %v", line.attrs)
	}
	// Commits go on: a removal must not wait for the authority.
	_, commit := alice.commitOf(ga)
	if code := alice.submit(commit); code != wire.OK {
		t.Errorf("a commit: %v", code)
	}
	gw.SetStandings(issue(t, 3))
	gw.audit.want(t, eventTightened, "")
	if code := bob.submit(bob.sealed(gb, "fresh")); code != wire.StaleEpoch { // bob has not seen the commit
		t.Errorf("under a fresh bulletin: %v", code)
	}

	// Looks by hand from here on: the wall clock is set back by a day, and time goes on.
	b := gw.arrival.Load().Set().Bulletin()
	if age := gw.arrival.Load().Age(b.Time.Add(-24*time.Hour), gw.up()+5*time.Hour); age < 5*time.Hour {
		t.Errorf("five hours after the clock was set back the bulletin is %v old", age)
	}
	gw.lookAtAge(vigil{wall: gw.now().Add(24 * time.Hour), up: gw.up()})
	if line := gw.audit.want(t, eventClock, ""); line.attrs["by"] != "-24h0m0s" {
		t.Errorf("the clock was set by %s", line.attrs["by"])
	}
}
