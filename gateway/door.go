// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
)

// A door bounds handshakes: how many are open, how many of them from one source,
// and how many of one source may fail. Strangers therefore cost a bounded amount
// of memory, and one address a bounded share of the processors; devices with
// certificates that find the door shut come back after a moment, a random one.
type door struct {
	most, each int

	mu      sync.Mutex
	open    int                            // guarded by mu
	sources map[netip.Prefix]int           // guarded by mu; open ones, by source
	failing map[netip.Prefix]*rate.Limiter // guarded by mu; what a source may still fail
}

func newDoor(l Limits) *door {
	return &door{
		most: l.Handshakes, each: l.HandshakesPerSource,
		sources: make(map[netip.Prefix]int), failing: make(map[netip.Prefix]*rate.Limiter),
	}
}

// sourceOf is what counts as one source: an IPv4 address, or the 64 bits of IPv6
// that one subscriber gets.
func sourceOf(addr net.Addr) netip.Prefix {
	var ap netip.AddrPort
	switch a := addr.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	}
	ip := ap.Addr().Unmap()
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, _ := ip.WithZone("").Prefix(bits)
	return p
}

// enter lets a handshake begin, or says why not. proven tells that the address is
// not forged: a source is held responsible only then. Its share is no more than what
// is left, so that a few sources together leave room for one that comes for the first
// time.
func (d *door) enter(source netip.Prefix, proven bool) (reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch limit := d.failing[source]; {
	case d.open >= d.most:
		return "too_many_handshakes"
	case proven && d.sources[source] >= min(d.each, d.most-d.open):
		return "too_many_handshakes_of_source"
	case proven && limit != nil && limit.Tokens() < 1:
		return "too_many_failures_of_source"
	}
	d.open++
	d.sources[source]++
	return ""
}

// leave ends what enter let begin.
func (d *door) leave(source netip.Prefix, failed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	if d.sources[source]--; d.sources[source] == 0 {
		delete(d.sources, source)
	}
	if failed {
		d.failed(source)
	}
}

// failed notes a failure. Called with mu held.
func (d *door) failed(source netip.Prefix) {
	limit := d.failing[source]
	if limit == nil {
		if len(d.failing) >= maxFailing {
			clear(d.failing) // mercy for some is better than memory for all
		}
		limit = rate.NewLimiter(failureRate, failureBurst)
		d.failing[source] = limit
	}
	limit.Allow()
}

// mustProve says whether a newcomer must show that its address is its own (Retry,
// RFC 9000, Section 8.1.2) before it costs anything: while many handshakes are
// open in all or from that source, and after many failed.
func (d *door) mustProve(source netip.Prefix) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	limit := d.failing[source]
	return d.open >= d.most/2 || d.sources[source] >= min(unprovenPerSource, d.each/2) ||
		limit != nil && limit.Tokens() < failureBurst/2
}

func (d *door) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open
}
