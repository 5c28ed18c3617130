// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limiter bounds the rate of each caller: an address, or an officer.
type limiter struct {
	perSecond rate.Limit
	burst     int

	mu      sync.Mutex
	callers map[string]*caller // guarded by mu
}

type caller struct {
	rate *rate.Limiter
	told time.Time // when a refusal was last reported
}

func newLimiter(perSecond float64, burst int) *limiter {
	return &limiter{perSecond: rate.Limit(perSecond), burst: burst, callers: make(map[string]*caller)}
}

// allow decides, and says whether a refusal is to be reported: one a minute for
// each caller, so that a flood of requests is no flood of audit lines.
func (l *limiter) allow(key string, now time.Time) (ok, report bool) {
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

// addressKey names who calls; IPv6 callers count by /64, which is what one of
// them is given. All that have no address share one.
func addressKey(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return "nowhere"
	}
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits)
	return prefix.String()
}
