// SPDX-License-Identifier: Apache-2.0

package wan

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// maxLine bounds how many connections a line carries at a time.
const maxLine = 1024

// A LineConfig says between what a line stands.
type LineConfig struct {
	Inside  net.Listener             // where clients connect to; the line closes it
	Dial    func() (net.Conn, error) // to where their connections lead
	Passage Passage                  // what happens to them at first
}

// A Passage is what happens to connections, both ways.
type Passage int

const (
	Open   Passage = iota // they pass
	Frozen                // nothing passes, and nobody is told: what was sent waits, new connections too
	Shut                  // those that there are have been broken off, and new ones are at once
)

// LineStats count bytes by their way, and the rest in pieces.
type LineStats struct {
	Out, In  int64 // bytes that were carried from clients, and to them
	Waited   int64 // pieces, and new connections, that had to wait
	Broken   int64 // connections that were broken off
	Rejected int64 // connections that were not carried at all
}

// A Line carries connections, of TCP or at a unix socket, until it is closed.
type Line struct {
	cfg LineConfig

	mu      sync.Mutex
	change  *sync.Cond         // of anything below
	passage Passage            // guarded by mu, as all below
	stats   LineStats          //
	conns   map[net.Conn]*pair // both ends of each
	closed  bool               //
}

// A pair is a connection: its two ends. What waits in a frozen one never passes once it
// has been broken off.
type pair struct {
	inside, outside net.Conn // guarded by the line's mutex; outside is nil until it is there
	over            bool     // guarded by the line's mutex
}

// NewLine starts a line.
func NewLine(cfg LineConfig) (*Line, error) {
	if cfg.Inside == nil || cfg.Dial == nil {
		return nil, errors.New("wan: a line needs a listener and somewhere to lead to")
	}
	l := &Line{cfg: cfg, passage: cfg.Passage, conns: map[net.Conn]*pair{}}
	l.change = sync.NewCond(&l.mu)
	go l.accept()
	return l, nil
}

// Set changes what happens to connections.
func (l *Line) Set(p Passage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passage = p
	if p == Shut {
		l.breakOff()
	}
	l.change.Broadcast()
}

// breakOff ends all connections at once. The mutex is held.
func (l *Line) breakOff() {
	for _, p := range l.conns {
		if !p.over {
			l.stats.Broken++
		}
		p.end()
	}
}

// end is without a goodbye where there is such a thing.
func (p *pair) end() {
	p.over = true
	for _, c := range []net.Conn{p.inside, p.outside} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		if c != nil {
			_ = c.Close()
		}
	}
}

// Stats tells what has happened so far.
func (l *Line) Stats() LineStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// Close ends the line and what it carries.
func (l *Line) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.breakOff()
	l.change.Broadcast()
	return l.cfg.Inside.Close()
}

func (l *Line) accept() {
	for {
		conn, err := l.cfg.Inside.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // it went before it was accepted
		}
		if p := l.admit(conn); p != nil {
			go l.carry(p)
		}
	}
}

// admit notes a new connection, or ends it.
func (l *Line) admit(conn net.Conn) *pair {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &pair{inside: conn}
	if l.closed || l.passage == Shut || len(l.conns) >= maxLine {
		l.stats.Rejected++
		p.end()
		return nil
	}
	l.conns[conn] = p
	return p
}

// carry leads a connection to the other side, and carries both ways until both have ended.
func (l *Line) carry(p *pair) {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		p.end()
		delete(l.conns, p.inside)
		l.change.Broadcast()
	}()
	if !l.pass(p) {
		return
	}
	outside, err := l.cfg.Dial()
	if err != nil {
		l.mu.Lock()
		l.stats.Rejected++
		l.mu.Unlock()
		return
	}
	l.mu.Lock()
	p.outside = outside
	over := p.over
	l.mu.Unlock()
	if over {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.way(p, outside, p.inside, &l.stats.Out) })
	both.Go(func() { l.way(p, p.inside, outside, &l.stats.In) })
	both.Wait()
}

// way carries one way until its end, and passes that on.
func (l *Line) way(p *pair, to, from net.Conn, count *int64) {
	buf := make([]byte, maxPacket)
	for {
		n, err := from.Read(buf)
		if !l.pass(p) {
			return
		}
		if n > 0 {
			l.mu.Lock()
			*count += int64(n)
			l.mu.Unlock()
			if _, err := to.Write(buf[:n]); err != nil {
				l.abandon(p)
				return
			}
		}
		half, ok := to.(interface{ CloseWrite() error })
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && ok && half.CloseWrite() == nil:
			return
		default:
			l.abandon(p)
			return
		}
	}
}

// abandon ends a connection of which one side is gone.
func (l *Line) abandon(p *pair) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.end()
}

// pass waits while the line is frozen, and says whether the connection still is one.
func (l *Line) pass(p *pair) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.passage == Frozen && !p.over {
		l.stats.Waited++
		l.change.Broadcast()
	}
	for l.passage == Frozen && !p.over && !l.closed {
		l.change.Wait()
	}
	return !p.over && !l.closed
}

// String is for logs.
func (s LineStats) String() string {
	return fmt.Sprintf("%d bytes out, %d in, %d waited, %d broken off, %d rejected", s.Out, s.In, s.Waited, s.Broken, s.Rejected)
}
