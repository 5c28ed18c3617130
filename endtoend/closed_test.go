// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"valise/internal/stage"
	"valise/internal/testenv"
	"valise/internal/wan"
	"valise/internal/warp"
)

// A closedNetwork is a network of its own with two ways out, both to the gateway: one for
// UDP, which can be cut, at the gateway's address, and one for TCP at another.
type closedNetwork struct {
	*stage.Network
	udp *wan.Relay
	tcp net.Listener

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
}

// closeOff makes the ways out. UDP is cut at first.
func (w *world) closeOff(network *stage.Network) *closedNetwork {
	w.t.Helper()
	_, port, err := net.SplitHostPort(w.gateway.Address)
	if err != nil {
		w.t.Fatal(err)
	}
	gateway := "127.0.0.1:" + port
	n := &closedNetwork{Network: network}
	var inside *net.UDPConn
	err = network.Do(func() (err error) {
		if n.tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
		inside, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(gateway)))
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if n.udp, err = wan.New(wan.Config{Inside: inside, To: netip.MustParseAddrPort(gateway), Seed: 1}); err != nil {
		w.t.Fatal(err)
	}
	n.udp.Set(wan.Weather{Cut: true})
	go n.carry(gateway)
	w.t.Cleanup(func() {
		_, _ = n.udp.Close(), n.tcp.Close()
		n.drop()
	})
	return n
}

// carry lets TCP connections through.
func (n *closedNetwork) carry(gateway string) {
	for {
		in, err := n.tcp.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", gateway)
		if err != nil {
			_ = in.Close()
			continue
		}
		n.mu.Lock()
		n.conns = append(n.conns, in, out)
		n.mu.Unlock()
		for from, to := range map[net.Conn]net.Conn{in: out, out: in} {
			go func() {
				_, _ = io.Copy(to, from)
				_, _ = in.Close(), out.Close()
			}()
		}
	}
}

// drop ends the TCP connections that there are.
func (n *closedNetwork) drop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		_ = c.Close()
	}
	n.conns = nil
}

// A device in a network that drops UDP, and from which only its gateway can be reached,
// writes and reads over TCP, is back on QUIC when UDP passes, and renews its certificate
// through the gateway.
func TestClosedNetwork(t *testing.T) {
	network, err := stage.NewNetwork()
	testenv.Can(t, "network namespaces", err)
	defer network.Close()
	w := emptyWorld(t, stage.Config{}, "alice", "bob")
	n := w.closeOff(network)
	alice, bob := w.newPerson("alice", "alice", w.newReader("alice", 1)[0]), w.newPerson("bob", "bob", w.newReader("bob", 1)[0])
	w.enroll(bob)
	alice.GatewayTCP = n.tcp.Addr().String()
	if _, err := alice.Enroll(w.ctx, w.authority, w.gateway); err != nil {
		t.Fatal(err)
	}
	alice.Network = network
	if err := alice.Unlock(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.acquainted()
	alice.comesBy("tcp")
	for _, p := range w.people {
		if err := p.follow(); err != nil {
			t.Fatal(err)
		}
	}
	alice.must("send", bob.Address, "over TCP")
	bob.has("over TCP")
	bob.must("send", alice.Address, "and back")
	alice.has("and back")
	if s := n.udp.Stats(); s.Cut == 0 || s.Carried != 0 {
		t.Errorf("of UDP, %+v", s)
	}
	w.opensUDP(n, alice)
	alice.must("send", bob.Address, "over QUIC")
	bob.has("over QUIC")
	w.renewsThroughTheGateway(n, alice)
}

// comesBy waits until a device is online over a transport.
func (p *person) comesBy(transport string) {
	p.w.t.Helper()
	p.w.until(p.Name+" to be online over "+transport, func() (bool, error) {
		st, err := p.status(p.w.ctx)
		return st.Engine.Connection.Name == "online" && st.Engine.Connection.Transport == transport, err
	})
}

// opensUDP lets UDP pass. The device believes for some minutes that it does not: they go
// by on its clock, and the next connection is tried over QUIC.
func (w *world) opensUDP(n *closedNetwork, p *person) {
	w.t.Helper()
	clock, err := warp.Take(p.AgentPid())
	testenv.Can(w.t, "a clock of a process's own", err)
	if err := clock.Set(11 * time.Minute); err != nil {
		w.t.Fatal(err)
	}
	n.udp.Set(wan.Weather{})
	n.drop()
	p.comesBy("quic")
}

// renewsThroughTheGateway starts a device's agent when most of its certificate's life is
// over.
func (w *world) renewsThroughTheGateway(n *closedNetwork, p *person) {
	w.t.Helper()
	authority, err := url.Parse(w.authority.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	reachable := func() error {
		c, err := net.Dial("tcp", authority.Host)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	if inside, outside := n.Do(reachable), reachable(); inside == nil || outside != nil {
		w.t.Fatalf("the authority from inside: %v, from outside: %v", inside, outside)
	}
	before := p.chain()
	p.mu.Lock()
	p.receiver.Stop() // it would start the agent again
	p.mu.Unlock()
	p.must("agent", "--stop")
	w.until("the agent to end", func() (bool, error) { return !p.AgentRuns(), nil })
	p.must("status")
	clock, err := warp.Take(p.AgentPid())
	testenv.Can(w.t, "a clock of a process's own", err)
	if err := clock.Set(5 * 24 * time.Hour); err != nil {
		w.t.Fatal(err)
	}
	if err := p.Unlock(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	w.until("another certificate", func() (bool, error) {
		now := p.chain()
		return len(now) > 0 && !bytes.Equal(now[0], before[0]), nil
	})
	st, err := p.status(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	audit, err := os.ReadFile(w.gateway.Audit)
	if err != nil {
		w.t.Fatal(err)
	}
	tunnels := 0
	for line := range strings.Lines(string(audit)) {
		if strings.Contains(line, `"tunnel_opened"`) && strings.Contains(line, st.Device) {
			tunnels++
		}
	}
	if tunnels == 0 || tunnels > 3 {
		w.t.Errorf("the renewal took %d tunnels", tunnels)
	}
}

// chain reads the certificates that a device shows.
func (p *person) chain() [][]byte {
	p.w.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.Home, "profile.json"))
	var profile struct{ Chain [][]byte }
	if err == nil {
		err = json.Unmarshal(data, &profile)
	}
	if err != nil {
		p.w.t.Fatal(fmt.Errorf("%s: %w", p.Name, err))
	}
	return profile.Chain
}
