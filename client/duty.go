// SPDX-License-Identifier: Apache-2.0

package client

import (
	"time"

	"valise/wire"
)

// leased notes that the gateway asks this device to remove somebody from a group.
func (e *Engine) leased(l *wire.Lease) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ours := e.byGroup[string(l.Group)]; !ours {
		return
	}
	e.leases[string(l.Group)] = e.now().Add(time.Duration(l.Milliseconds) * time.Millisecond)
	e.bell.ring()
}
