// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestPercentOfGarbage(t *testing.T) {
	for live, want := range map[uint64]int{0: 1600, 4 << 20: 1600, 16 << 20: 400, 64 << 20: 100, 1 << 30: 50} {
		if got := percentOf(live); got != want {
			t.Errorf("%d bytes live: %d %%, want %d", live, got, want)
		}
	}
}

// The percentage follows what lives.
func TestSteadyHeap(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	setting := func() int {
		percent := debug.SetGCPercent(100)
		debug.SetGCPercent(percent)
		return percent
	}
	SteadyHeap("100")
	if setting() != 100 {
		t.Error("the operator's setting was changed")
	}
	SteadyHeap("")
	if setting() < 200 {
		t.Errorf("a small heap is collected at %d %%", setting())
	}
	large := make([]byte, 192<<20)
	deadline := time.Now().Add(10 * time.Second)
	for setting() != leastPercent && time.Now().Before(deadline) {
		runtime.GC()
		runtime.Gosched()
	}
	if setting() != leastPercent {
		t.Errorf("a large heap is collected at %d %%", setting())
	}
	runtime.KeepAlive(large)
}
