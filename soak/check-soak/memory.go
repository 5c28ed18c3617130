// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime/metrics"
	"time"
)

// maxHeap bounds the memory of the judge. The search for an order of a history that has
// none keeps every state that it has seen; a soak of an hour needs a tenth of this.
const maxHeap = 3 << 30

// watchMemory calls exceeded once there is more on the heap than limit, in bytes, and
// returns when stop is closed.
func watchMemory(limit uint64, stop <-chan struct{}, exceeded func(bytes uint64)) {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		metrics.Read(sample)
		if n := sample[0].Value.Uint64(); n > limit {
			exceeded(n)
			return
		}
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}
