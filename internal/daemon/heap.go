// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// garbage is how much of it gathers, in bytes, before a small heap is collected.
// Go's own rule waits for as much as there is that lives, which for a daemon with
// a few megabytes means tens of collections a second under load, a quarter of its
// processor time.
const garbage = 64 << 20

// leastPercent is for a heap that is large: it is collected seldom anyway, and
// thousands of idle connections should not cost twice what they hold.
const leastPercent = 50

// SteadyHeap keeps the garbage collector from running all the time while the heap
// is small. It is called once, by main; an operator's GOGC is left alone.
func SteadyHeap(operator string) {
	if operator == "" {
		steady(new(int))
	}
}

// steady sets the percentage that lets garbage gather, now and after each
// collection: the cleanup of a new object that nobody holds runs once after the
// next one.
func steady(current *int) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if percent := percentOf(live[0].Value.Uint64()); percent > *current*5/4 || percent < *current*4/5 {
		*current = percent
		debug.SetGCPercent(percent) // stops the world for a moment
	}
	runtime.AddCleanup(new([16]byte), steady, current)
}

// percentOf is garbage as a part of what lives, at most what a heap of four
// megabytes takes.
func percentOf(live uint64) int {
	return int(max(leastPercent, garbage*100/max(live, 4<<20)))
}
