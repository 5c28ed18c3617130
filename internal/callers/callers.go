// SPDX-License-Identifier: Apache-2.0

// Package callers tells callers of a server apart and bounds how often each may
// ask. The authority's fronts count requests with a Limiter, for each Origin and,
// once they know it, for each officer; listeners count open connections for each
// Origin. What is remembered about callers is bounded, whoever they claim to be.
package callers

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxCallers bounds the callers that a Limiter remembers, about 100 octets
	// each. When it is full it starts anew, which grants every caller one more
	// burst.
	maxCallers = 10_000

	// reportEvery is how often one caller's refusals are worth a report.
	reportEvery = time.Minute
)

// Limiter bounds the rate of each caller: an origin, or somebody who proved who
// they are. Its methods may be called concurrently.
type Limiter struct {
	perSecond rate.Limit
	burst     int

	mu      sync.Mutex
	callers map[string]*caller // guarded by mu
}

type caller struct {
	rate *rate.Limiter
	told time.Time // when a refusal was last reported
}

// NewLimiter returns a limiter that grants each caller a burst of requests and then
// perSecond of them a second.
func NewLimiter(perSecond float64, burst int) *Limiter {
	return &Limiter{perSecond: rate.Limit(perSecond), burst: burst, callers: make(map[string]*caller)}
}

// Allow counts a request of a caller at a time. It says whether the request is
// within the bounds, and if not, whether that is to be reported: one refusal a
// minute of each caller is, so that a flood of requests is no flood of audit lines.
func (l *Limiter) Allow(key string, now time.Time) (ok, report bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.callers[key]
	if c == nil {
		if len(l.callers) >= maxCallers {
			clear(l.callers)
		}
		c = &caller{rate: rate.NewLimiter(l.perSecond, l.burst)}
		l.callers[key] = c
	}
	if c.rate.AllowN(now, 1) {
		return true, false
	}
	if now.Sub(c.told) < reportEvery {
		return false, false
	}
	c.told = now
	return false, true
}

// Origin is the network that counts as one caller, from a remote address with or
// without a port: an IPv4 address, or the /64 of an IPv6 address, which is what one
// customer gets (RFC 6177). What is no IP address has the zero origin, all together.
func Origin(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	ip = ip.Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(ip, bits).Masked()
}
