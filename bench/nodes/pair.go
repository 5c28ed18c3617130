// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"sync"
	"time"

	"valise/bench/lean"
)

// A pair is a sender and its receiver. A message is under way until both its
// acknowledgement and the message itself have arrived; the clients' connections refuse
// numbers that have gaps.
type pair struct {
	s, r   *lean.Conn
	frames [][]byte

	mu     sync.Mutex
	cond   *sync.Cond
	sent   int       // guarded by mu
	acked  int       // guarded by mu
	got    int       // guarded by mu
	at     time.Time // guarded by mu; when something was received last
	failed error     // guarded by mu
}

func newPair(s, r *lean.Conn) *pair {
	p := &pair{s: s, r: r}
	p.cond = sync.NewCond(&p.mu)
	go p.follow(s.Answers, func(n int) { p.acked += n })
	go p.follow(r.Receive, func(n int) {
		p.got += n
		p.at = time.Now()
	})
	return p
}

// follow notes what one of the two directions reports.
func (p *pair) follow(next func() (int, error), note func(int)) {
	for {
		n, err := next()
		p.mu.Lock()
		if n > 0 {
			note(n)
		}
		if err != nil && p.failed == nil {
			p.failed = err
		}
		p.mu.Unlock()
		p.cond.Broadcast()
		if err != nil {
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
			b = p.s.AppendSealed(b, p.frames[(from+i)%len(p.frames)])
		}
		if err := p.s.Write(b); err != nil {
			return err
		}
	}
	return p.settle()
}

// settle waits until nothing is under way.
func (p *pair) settle() error {
	late := time.AfterFunc(patience, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.failed == nil {
			p.failed = fmt.Errorf("%d messages were sent, %d acknowledged, %d received", p.sent, p.acked, p.got)
		}
		p.cond.Broadcast()
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

// one sends a message while nothing else is under way, and returns how many milliseconds
// later its receiver had it.
func (p *pair) one() (float64, error) {
	p.mu.Lock()
	n := p.sent
	p.sent++
	p.mu.Unlock()
	b := p.s.AppendSealed(nil, p.frames[n%len(p.frames)])
	from := time.Now()
	if err := p.s.Write(b); err != nil {
		return 0, err
	}
	if err := p.settle(); err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return float64(p.at.Sub(from).Microseconds()) / 1000, nil
}
