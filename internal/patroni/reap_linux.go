// SPDX-License-Identifier: Apache-2.0

package patroni

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// reap takes leave of servers that have ended, until stop is closed. Patroni lets its server go, so
// that this goes to the first process of the namespace: if that is this one, nobody else
// waits for it, and to Patroni it has not ended until somebody has.
func reap(stop <-chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		files, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, f := range files {
			if pid := orphan(f); pid > 0 {
				_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
			}
		}
	}
}

// orphan is the number of a server that has ended as a child of this process, 0 if it is none.
func orphan(stat string) int {
	data, err := os.ReadFile(stat)
	if err != nil {
		return 0
	}
	_, rest, ok := bytes.Cut(data, []byte(" (postgres) "))
	var state string
	var parent int
	if _, err := fmt.Sscan(string(rest), &state, &parent); !ok || err != nil || state != "Z" || parent != os.Getpid() {
		return 0
	}
	pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
	return pid
}
