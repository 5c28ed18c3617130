// SPDX-License-Identifier: Apache-2.0

package mailbox

import (
	"context"
	"sync"
)

// A Reporter is told what became of a submission, by the committer: it must not
// block.
type Reporter interface {
	// Report is called once.
	Report(Outcome, error)
	// Flush is called after the whole batch of a submission was reported: whatever
	// follows from a report and wakes somebody is done once then, and not for each.
	Flush()
}

// A reportFunc is a Reporter with nothing to put off.
type reportFunc func(Outcome, error)

func (f reportFunc) Report(o Outcome, err error) { f(o, err) }
func (reportFunc) Flush()                        {}

type item struct {
	submission *Submission
	reporter   Reporter
}

// A queue holds what waits for the committer. Its length is bounded; who comes
// while it is full waits.
type queue struct {
	mu     sync.Mutex
	items  []item        // guarded by mu
	closed bool          // guarded by mu
	full   chan struct{} // guarded by mu; closed when there is room again; nil: there is
	more   chan struct{} // receives when items came
}

func newQueue() *queue { return &queue{more: make(chan struct{}, 1)} }

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// put appends an item; it waits while the queue is full.
func (q *queue) put(ctx context.Context, it item) error {
	for {
		full, err := q.tryPut(it)
		if full == nil {
			return err
		}
		select {
		case <-full:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tryPut appends an item, or returns what to wait for.
func (q *queue) tryPut(it item) (full <-chan struct{}, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, ErrClosed
	}
	if len(q.items) >= queueLength {
		if q.full == nil {
			q.full = make(chan struct{})
		}
		return q.full, nil
	}
	q.items = append(q.items, it)
	if len(q.items) == 1 {
		q.signal()
	}
	return nil, nil
}

func (q *queue) signal() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// take moves the first items into batch: at most count, and no further ones when
// their payloads have so many bytes.
func (q *queue) take(batch []item, count, bytes int) []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < len(q.items) && n < count && size < bytes {
		size += q.items[n].submission.size()
		n++
	}
	batch = append(batch, q.items[:n]...)
	rest := copy(q.items, q.items[n:])
	clear(q.items[rest:])
	q.items = q.items[:rest]
	if rest > 0 {
		q.signal()
	}
	q.makeRoom()
	return batch
}

// makeRoom wakes those who wait. The caller holds q.mu.
func (q *queue) makeRoom() {
	if q.full != nil && (q.closed || len(q.items) < queueLength) {
		close(q.full)
		q.full = nil
	}
}

// close refuses what comes from now on.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.makeRoom()
}
