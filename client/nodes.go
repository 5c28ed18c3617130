// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A gateway may have several nodes: each serves every device, and what one of them has
// acknowledged all of them know. A device stays at the node where it is, and goes to
// another one when that ends, stops or does not answer. Where nodes are is no secret and
// needs no trust: whoever answers there proves itself by its certificate.

// An Endpoint is where a gateway, or one of its nodes, is reached. A name that stands for
// several addresses stands for several nodes.
type Endpoint struct {
	Gateway    string `json:"gateway"`               // host:port, UDP; and over TCP unless GatewayTCP says otherwise
	GatewayTCP string `json:"gateway_tcp,omitempty"` // host:port over TCP, where UDP is closed
}

// A node is one address to try.
type node struct {
	udp  string // IP:port
	tcp  string // host:port
	name string // that its certificate must have
}

// places remembers where the gateway was reached, and where it was not.
type places struct {
	mu    sync.Mutex
	last  string               // guarded by mu; where the last Welcome came from
	avoid map[string]time.Time // guarded by mu; nodes that others are preferred to, until when
	count int                  // guarded by mu; how many there were at the last look
}

// reached notes that a node has welcomed this device.
func (p *places) reached(n node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = n.udp
	delete(p.avoid, n.udp)
}

// failed notes that a node is of no use for a while: others come first.
func (p *places) failed(n node, now time.Time, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.avoid == nil {
		p.avoid = make(map[string]time.Time)
	}
	// By the wall clock: the other one stands still while a computer sleeps.
	p.avoid[n.udp] = now.Add(wait).Round(0)
	if p.last == n.udp {
		p.last = ""
	}
}

// order puts nodes into the order in which they are tried: where this device was, then the
// others as drawn, so that those of a node that has ended spread over all that are left;
// what was of no use a moment ago comes last.
func (p *places) order(nodes []node, now time.Time) []node {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count = len(nodes)
	rank := func(n node) time.Duration {
		left := p.avoid[n.udp].Sub(now)
		switch {
		case left > 0 && left <= nodeAvoidMost: // more: the clock was set
			return left
		case n.udp == p.last:
			return -1
		}
		return 0
	}
	out := slices.Clone(nodes)
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	slices.SortStableFunc(out, func(a, b node) int { return cmp.Compare(rank(a), rank(b)) })
	for udp, until := range p.avoid {
		if until.Before(now) {
			delete(p.avoid, udp)
		}
	}
	return out
}

// others says whether there is a node left that has not failed a moment ago.
func (p *places) others(clock func() time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count < 2 {
		return false
	}
	now, avoided := clock(), 0
	for _, until := range p.avoid {
		if left := until.Sub(now); left > 0 && left <= nodeAvoidMost {
			avoided++
		}
	}
	return p.count > avoided
}

// endpoints are all that the configuration names.
func (c *Config) endpoints() []Endpoint {
	return append([]Endpoint{{c.Gateway, c.GatewayTCP}}, c.Nodes...)
}

// nodes finds the addresses of all nodes. What cannot be looked up is left out, as long as
// something is left.
func (e *Engine) nodes(ctx context.Context) ([]node, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	type found struct {
		nodes []node
		err   error
	}
	all := e.cfg.endpoints()
	each := make([]chan found, len(all))
	for i, at := range all {
		each[i] = make(chan found, 1)
		go func() {
			nodes, err := lookup(ctx, at, e.cfg.GatewayName)
			each[i] <- found{nodes, err}
		}()
	}
	var nodes []node
	var errs []error
	for _, ch := range each {
		f := <-ch
		nodes = append(nodes, f.nodes...)
		errs = append(errs, f.err)
	}
	if len(nodes) == 0 {
		return nil, errors.Join(errs...)
	}
	slices.SortFunc(nodes, func(a, b node) int { return cmp.Compare(a.udp, b.udp) })
	nodes = slices.CompactFunc(nodes, func(a, b node) bool { return a.udp == b.udp })
	nodes = e.places.order(nodes, e.now())
	return nodes[:min(len(nodes), maxNodes)], nil
}

// lookup finds the addresses behind one endpoint. Where a name has addresses of both
// kinds, those of IPv4 are taken, as they are without further nodes.
func lookup(ctx context.Context, at Endpoint, name string) ([]node, error) {
	host, port, err := net.SplitHostPort(at.Gateway)
	if err != nil {
		return nil, err
	}
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if host == "" || len(addresses) == 0 {
		return nil, fmt.Errorf("%s: no address", at.Gateway)
	}
	numbers, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return nil, err
	}
	for i, a := range addresses {
		addresses[i] = a.Unmap()
	}
	if slices.ContainsFunc(addresses, netip.Addr.Is4) {
		addresses = slices.DeleteFunc(addresses, netip.Addr.Is6)
	}
	nodes := make([]node, len(addresses))
	for i, a := range addresses {
		n := node{udp: netip.AddrPortFrom(a, uint16(numbers)).String(), name: cmp.Or(name, host)}
		n.tcp = n.udp
		if at.GatewayTCP != "" {
			n.tcp = at.GatewayTCP
			// The same host over another port is the same node.
			if h, p, err := net.SplitHostPort(at.GatewayTCP); err == nil && h == host {
				n.tcp = net.JoinHostPort(a.String(), p)
			}
		}
		nodes[i] = n
	}
	return nodes, nil
}
