// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"valise/identity"
)

// attempts bounds how often a device may try to commit in one group: a commit costs the
// gateway signatures and every member a step, and one that loses may be tried again. It
// also bounds how often a device may open a tunnel, without a group.
type attempts struct {
	limit rate.Limit
	burst int

	mu  sync.Mutex
	all map[identity.DeviceID]map[string]*rate.Limiter // guarded by mu; by device and group id
}

// allow counts an attempt.
func (a *attempts) allow(d identity.DeviceID, group []byte, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	own := a.all[d]
	if own == nil {
		if len(a.all) >= maxAttempters {
			clear(a.all)
		}
		own = make(map[string]*rate.Limiter)
		a.all[d] = own
	}
	bucket := own[string(group)]
	if bucket == nil {
		if len(own) >= maxAttempted {
			clear(own) // its rate of requests still bounds it
		}
		bucket = rate.NewLimiter(a.limit, a.burst)
		own[string(group)] = bucket
	}
	return bucket.AllowN(now, 1)
}
