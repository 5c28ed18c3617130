// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"valise/transport"
	"valise/wire"
)

// Nodes are tried in an order: where the device was, others as drawn, and last those that
// were of no use a moment ago.
func TestOrderOfNodes(t *testing.T) {
	var p places
	now := time.Now()
	a, b, c := node{udp: "10.0.0.1:1"}, node{udp: "10.0.0.2:1"}, node{udp: "10.0.0.3:1"}
	all := []node{a, b, c}
	firsts := make(map[string]int)
	for range 300 {
		firsts[p.order(all, now)[0].udp]++
	}
	if len(firsts) != 3 {
		t.Errorf("devices do not spread: %v", firsts)
	}
	p.reached(b)
	for range 50 {
		if got := p.order(all, now); got[0] != b {
			t.Fatalf("%v comes before the node where the device was", got[0])
		}
	}
	clock := func() time.Time { return now }
	p.failed(b, now, nodeAvoid)
	for range 50 {
		if got := p.order(all, now); got[2] != b {
			t.Fatalf("%v comes after a node that has just failed", got[2])
		}
	}
	if !p.others(clock) {
		t.Error("two nodes are left, and none is found")
	}
	p.failed(a, now, nodeAvoid)
	p.failed(c, now, 2*nodeAvoid)
	if got := p.order(all, now); got[2] != c {
		t.Errorf("the one that is away for longest comes %v", slices.Index(got, c))
	}
	if p.others(clock) {
		t.Error("all nodes have failed, and one is found")
	}
	now = now.Add(nodeAvoid + time.Second)
	if got := p.order(all, now); got[2] != c || !p.others(clock) {
		t.Errorf("what failed long ago is remembered: %v", got)
	}
	p.failed(a, now, nodeAvoid)
	now = now.Add(-time.Hour) // somebody has set the clock
	if !p.others(clock) {
		t.Error("under a clock that was set back a node is avoided for an hour")
	}
}

// What one node says of itself is no reason to ask another, unless it is about the node.
func TestWhatSendsADeviceElsewhere(t *testing.T) {
	e := new(Engine)
	e.cfg.Now = time.Now
	n := node{udp: "10.0.0.1:1"}
	e.places.order([]node{n, {udp: "10.0.0.2:1"}, {udp: "10.0.0.3:1"}}, e.now())
	closed := func(code wire.CloseCode, reason string) error {
		return closeReason(&transport.CloseError{Code: code, Reason: reason, Remote: true})
	}
	for name, c := range map[string]struct {
		err   error
		moves bool
	}{
		"it stops":         {closed(wire.CloseShutdown, ""), true},
		"it is not heard":  {errors.New("the gateway does not answer"), true},
		"it is not there":  {errGone, true},
		"a newer session":  {closed(wire.CloseReplaced, ""), false},
		"not admitted":     {closed(wire.CloseNotAdmitted, ""), false},
		"expired":          {closed(wire.CloseExpired, ""), false},
		"an older copy":    {errBehind, false},
		"UDP passes again": {errUDPPasses, false},
	} {
		e.places.avoid = nil
		e.left(n, c.err)
		if avoided := len(e.places.avoid) == 1; avoided != c.moves {
			t.Errorf("%s: avoided: %v", name, avoided)
		}
	}
	e.left(n, closed(wire.CloseShutdown, ""))
	if d := e.untilNext(errGone, 20*time.Second); d > moveJitter {
		t.Errorf("a device that has another node waits %v", d)
	}
	if d := e.untilNext(errNotAdmitted, 20*time.Second); d < 10*time.Second {
		t.Errorf("one that is not admitted comes again in %v", d)
	}
	e.left(n, closed(wire.CloseShutdown, wire.BackIn(20*time.Second)))
	if d := time.Until(e.places.avoid[n.udp]); d < 19*time.Second {
		t.Errorf("one that is back in 20 s is avoided for %v", d)
	}
}

// A name that stands for several addresses stands for several nodes, and each of them has
// its TCP at the same address.
func TestNodesBehindAnAddress(t *testing.T) {
	for _, c := range []struct {
		at   Endpoint
		name string
		want node
	}{
		{Endpoint{Gateway: "127.0.0.1:4433"}, "", node{"127.0.0.1:4433", "127.0.0.1:4433", "127.0.0.1"}},
		{Endpoint{Gateway: "[::1]:4433"}, "gw.example", node{"[::1]:4433", "[::1]:4433", "gw.example"}},
		{Endpoint{Gateway: "localhost:4433"}, "", node{"127.0.0.1:4433", "127.0.0.1:4433", "localhost"}},
		{Endpoint{Gateway: "localhost:4433", GatewayTCP: "localhost:443"}, "", node{"127.0.0.1:4433", "127.0.0.1:443", "localhost"}},
		{Endpoint{Gateway: "127.0.0.1:4433", GatewayTCP: "relay.example:443"}, "", node{"127.0.0.1:4433", "relay.example:443", "127.0.0.1"}},
	} {
		got, err := lookup(t.Context(), c.at, c.name)
		if err != nil || len(got) != 1 || got[0] != c.want {
			t.Errorf("%+v: %+v, %v", c.at, got, err)
		}
	}
	for _, bad := range []string{"127.0.0.1", ":4433", "127.0.0.1:port", "no such host.invalid:1"} {
		if got, err := lookup(t.Context(), Endpoint{Gateway: bad}, ""); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}

// A device whose node is not there goes to another one, asks the card once, and comes back
// there the next time; one that is not a gateway of the authority is passed over.
func TestGoesToAnotherNode(t *testing.T) {
	w := newWorld(t)
	signer := &countingSigner{}
	e := w.device("alice").reachable().rests(signer, &signer.Signer)
	dead, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close() // it hears and says nothing
	e.cfg.Gateway, e.cfg.Nodes = dead.LocalAddr().String(), []Endpoint{{Gateway: w.address}}
	e.places.last = dead.LocalAddr().String()
	for range 2 {
		line, err := e.reach(t.Context(), wire.Protocol)
		if err != nil {
			t.Fatal(err)
		}
		l, err := e.meet(t.Context(), line, e.hello())
		if err != nil {
			t.Fatal(err)
		}
		l.close()
		if l.line.node.udp != w.address || l.line.way != wayQUIC {
			t.Errorf("connected to %+v by %s", l.line.node, l.line.way)
		}
		if first, _ := e.ways.first(time.Now()); first != wayQUIC {
			t.Error("a node that is not there is taken for a network without UDP")
		}
	}
	if n := signer.signed.Load(); n != 2 {
		t.Errorf("the card signed %d times for two connections", n)
	}
	if e.places.last != w.address || e.places.avoid[dead.LocalAddr().String()].IsZero() {
		t.Errorf("remembered: %q, avoided %v", e.places.last, e.places.avoid)
	}
}

// A node that was killed is noticed by the host's word that nothing is there, without
// waiting for an answer that never comes.
func TestNoticesThatANodeIsGone(t *testing.T) {
	w := newWorld(t)
	signer := &countingSigner{}
	e := w.device("alice").reachable().rests(signer, &signer.Signer)
	here := node{udp: w.address}
	if e.gone(t.Context(), here) {
		t.Error("a gateway that is there is taken for one that is not")
	}
	mute, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	at := node{udp: mute.LocalAddr().String()}
	if !e.gone(t.Context(), at) {
		t.Error("a silent node is not given up although another one answers")
	}
	if answersElsewhere(t.Context(), at, []node{at}) {
		t.Error("the only node is given up, and it is the network that is silent")
	}
	if err := mute.Close(); err != nil {
		t.Fatal(err)
	}
	if !e.gone(t.Context(), at) {
		t.Error("a port on which nothing listens is taken for a slow gateway")
	}
}
