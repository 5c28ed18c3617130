// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"sync"
	"time"
)

// turns bounds how many connections bring stored mail into memory at one time: when
// everybody comes back at once, each gets a part of its mailbox in its turn, and
// the gateway holds some of the parts instead of all mailboxes. What was just
// committed needs no turn. A turn lasts until the device has what it brought: as long
// as it is under way it is in memory.
type turns chan struct{}

// take waits for a turn; false if ctx ends before. A turn is over when it is given
// back, or after turnTime: who does not read must not keep others waiting.
func (t turns) take(ctx context.Context) (giveBack func(), ok bool) {
	select {
	case t <- struct{}{}:
	case <-ctx.Done():
		return nil, false
	}
	var once sync.Once
	give := func() { once.Do(func() { <-t }) }
	late := time.AfterFunc(turnTime, give)
	return func() {
		late.Stop()
		give()
	}, true
}
