// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// each calls f for 0 to n-1, on as many goroutines as Go may run at once
// (GOMAXPROCS), and returns when all of them have ended. It returns the lowest
// index at which f fails, with its error, or n and nil: the same result in
// whatever order the calls ran. Calls above a failure may be left out.
//
// f must not touch what another call touches, and must not call into code of
// the caller of this package: signers and Authenticators need not be safe for
// concurrent use.
func each(n int, f func(i int) error) (int, error) {
	workers := min(n, runtime.GOMAXPROCS(0))
	if workers < 2 {
		for i := range n {
			if err := f(i); err != nil {
				return i, err
			}
		}
		return n, nil
	}
	b := batch{n: n, f: f, first: n}
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(b.work)
	}
	b.work()
	wg.Wait()
	if b.panicked != "" {
		panic(b.panicked)
	}
	return b.first, b.err
}

// A batch is the work of one call of each.
type batch struct {
	n    int
	f    func(i int) error
	next atomic.Int64 // index to be taken next; all below are taken

	mu       sync.Mutex // owns what follows
	first    int        // lowest index that failed, or n
	err      error
	panicked string
}

// work takes one index after another. Indices are taken in order, so that all
// below a failure are done by somebody, whatever is left out above it.
func (b *batch) work() {
	i := 0
	defer func() {
		if v := recover(); v != nil { // it goes on in the caller's goroutine
			b.fail(i, nil, fmt.Sprintf("%v\n\n%s", v, debug.Stack()))
		}
	}()
	for {
		if i = int(b.next.Add(1)) - 1; i >= b.n || b.over(i) {
			return
		}
		if err := b.f(i); err != nil {
			b.fail(i, err, "")
			return
		}
	}
}

func (b *batch) over(i int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return i > b.first
}

func (b *batch) fail(i int, err error, panicked string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i < b.first {
		b.first, b.err, b.panicked = i, err, panicked
	}
}
