// SPDX-License-Identifier: Apache-2.0

package gateway

import "sync"

// A sequence follows one session's submissions: which counter is the next, and
// what is on its way to the store. The store decides; this keeps the session
// from asking it about every message.
type sequence struct {
	mu       sync.Mutex
	cond     *sync.Cond
	mark     uint64 // guarded by mu; the last counter known to be done
	enqueued uint64 // guarded by mu; the last counter handed to the store
	flying   int    // guarded by mu; submissions without an outcome yet
}

func newSequence(mark uint64) *sequence {
	q := &sequence{mark: mark, enqueued: mark}
	q.cond = sync.NewCond(&q.mu)
	return q
}

// next says whether counter follows directly on what was handed over.
func (q *sequence) next(counter uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return counter == q.enqueued+1
}

// settle waits until everything that was handed over has its outcome, and
// returns the mark.
func (q *sequence) settle() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.flying > 0 {
		q.cond.Wait()
	}
	q.enqueued = q.mark
	return q.mark
}

// launch notes that a submission was handed over.
func (q *sequence) launch(counter uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.enqueued = counter
	q.flying++
}

// land notes a submission's outcome.
func (q *sequence) land(counter uint64, done bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.flying--
	if done {
		q.mark = max(q.mark, counter)
	}
	q.cond.Broadcast()
}
