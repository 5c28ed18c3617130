// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// A pair is a sender and its receiver. A message is under way until both its
// acknowledgement and the message itself have arrived.
type pair struct {
	s sender
	r receiver

	mu     sync.Mutex
	cond   *sync.Cond
	sent   int   // guarded by mu
	acked  int   // guarded by mu
	got    int   // guarded by mu
	failed error // guarded by mu
	closed bool  // guarded by mu
}

func newPair(s sender, r receiver) *pair {
	p := &pair{s: s, r: r}
	p.cond = sync.NewCond(&p.mu)
	go p.follow(s.acked, &p.acked)
	go p.follow(r.received, &p.got)
	return p
}

// follow adds up what one of the two directions reports.
func (p *pair) follow(next func() (int, error), sum *int) {
	for {
		n, err := next()
		p.mu.Lock()
		*sum += n
		if err != nil && p.failed == nil {
			p.failed = err
		}
		closed := p.closed
		p.mu.Unlock()
		p.cond.Signal()
		if err != nil || closed {
			return
		}
	}
}

// done counts the messages whose way is over. The caller holds p.mu.
func (p *pair) done() int { return min(p.acked, p.got) }

func (p *pair) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done()
}

func (p *pair) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.s.Close()
	_ = p.r.Close()
}

// run keeps k messages under way until end, and then waits for the last of them.
func (p *pair) run(k int, end time.Time) error {
	var b []byte
	for time.Now().Before(end) {
		from, n, err := p.claim(k)
		if err != nil {
			return err
		}
		b = b[:0]
		for i := range n {
			b = p.s.add(b, from+i)
		}
		if err := p.s.write(b); err != nil {
			return err
		}
	}
	late := time.AfterFunc(patience, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.failed == nil && p.done() < p.sent {
			p.failed = fmt.Errorf("%d messages were sent, %d acknowledged, %d received", p.sent, p.acked, p.got)
		}
		p.cond.Signal()
	})
	defer late.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.done() < p.sent && p.failed == nil {
		p.cond.Wait()
	}
	if p.failed == nil && (p.acked != p.sent || p.got != p.sent) {
		return fmt.Errorf("%d messages were sent, %d acknowledged, %d received", p.sent, p.acked, p.got)
	}
	return p.failed
}

// claim waits for room and takes all of it.
func (p *pair) claim(k int) (from, n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.sent-p.done() >= k && p.failed == nil {
		p.cond.Wait()
	}
	from, n = p.sent, k-(p.sent-p.done())
	p.sent += n
	return from, n, p.failed
}

// makePairs makes this process's share of n pairs.
func (ld *loader) makePairs(n int) error {
	own := ld.mine(n)
	ld.pairs = make([]*pair, len(own))
	return each(own, 4, func(i int) error {
		if err := ld.service.mailbox(i); err != nil {
			return fmt.Errorf("mailbox %d: %w", i, err)
		}
		r, err := ld.service.receiver(i)
		if err != nil {
			return fmt.Errorf("receiver %d: %w", i, err)
		}
		if err := r.open(); err != nil {
			return fmt.Errorf("receiver %d: %w", i, err)
		}
		s, err := ld.service.sender(i, []int{i})
		if err != nil {
			return fmt.Errorf("sender %d: %w", i, err)
		}
		ld.pairs[i/ld.of] = newPair(s, r)
		return nil
	})
}

// run loads the server with the first pairs and counts what is done within the
// time. What was under way at its ends does not matter: as much begins as ends.
func (ld *loader) run(t *task) (answer, error) {
	pairs := ld.pairs[:len(ld.mine(t.Count))]
	count := func() (n int) {
		for _, p := range pairs {
			n += p.count()
		}
		return n
	}
	before := count()
	begin := time.Now()
	end := begin.Add(t.Warm + t.Length)
	failed := make(chan error, len(pairs))
	for _, p := range pairs {
		go func() { failed <- p.run(t.InFlight, end) }()
	}
	time.Sleep(t.Warm)
	first, from := count(), time.Now()
	time.Sleep(t.Length)
	last, seconds := count(), time.Since(from).Seconds()
	var all error
	for range pairs {
		all = errors.Join(all, <-failed)
	}
	return answer{Count: last - first, Total: count() - before, Seconds: seconds}, all
}
