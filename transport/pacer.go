// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"io"
	"sync"
	"time"
)

// A Pacer makes the files of one connection give way to its messages: what it lets through
// keeps the queue on the way short, so that a message never waits behind much. It watches
// how much longer a packet takes than the fastest one did, as LEDBAT (RFC 6817) does, and
// lets so many bytes go in a round trip as do not raise that above paceTarget. Over a
// connection that does not tell (TCP, where files have one of their own) everything goes.
//
// Use one for each connection and way.
type Pacer struct {
	mu     sync.Mutex
	conn   Conn
	window int           // bytes that may go in one round trip; guarded by mu, as all below
	sent   int           // in this one
	began  time.Time     // this one
	queue  time.Duration // the longest in this one
	full   bool          // the queue was too long once: from then on the window grows slowly
}

// Over returns a pacer for a connection.
func Over(c Conn) *Pacer { return &Pacer{conn: c, window: paceFirst} }

// Writer returns a writer that waits for its turns. All writers of a pacer share them.
func (p *Pacer) Writer(ctx context.Context, w io.Writer) io.Writer { return &paced{p, ctx, w} }

type paced struct {
	p   *Pacer
	ctx context.Context
	w   io.Writer
}

// Write implements io.Writer, in pieces.
func (w *paced) Write(data []byte) (n int, err error) {
	for n < len(data) && err == nil {
		part := data[n:min(len(data), n+w.p.piece())]
		if err = w.p.wait(w.ctx, len(part)); err == nil {
			var k int
			k, err = w.w.Write(part)
			n += k
		}
	}
	return n, err
}

// piece is how much goes at once: little where little may go in a round trip.
func (p *Pacer) piece() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return min(max(p.window/4, pacePiece), paceLargest)
}

// wait returns when so many bytes may go.
func (p *Pacer) wait(ctx context.Context, n int) error {
	for {
		pause := p.take(n, time.Now())
		if pause <= 0 {
			return context.Cause(ctx)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// take counts bytes in, or says how long to wait for the next round trip.
func (p *Pacer) take(n int, now time.Time) time.Duration {
	least, latest := p.conn.RoundTrip()
	if least <= 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	round := max(latest, paceRound)
	if since := now.Sub(p.began); since >= round {
		p.full = p.full || p.queue > paceTarget
		p.window = paceNext(p.window, p.sent, p.queue, p.full)
		p.began, p.sent, p.queue = now, 0, 0
	}
	p.queue = max(p.queue, latest-least)
	if p.sent > 0 && p.sent+n > p.window {
		return round - now.Sub(p.began)
	}
	p.sent += n
	return 0
}

// paceNext is the window of the next round trip: more while the queue is short and the
// window was used (twice as much until it was too long once), less, by how much it is too long, when it is not.
func paceNext(window, sent int, queue time.Duration, slowly bool) int {
	switch {
	case queue > paceTarget:
		window = max(pacePiece, int(float64(window)*max(0.5, float64(paceTarget)/float64(queue))))
	case queue < paceTarget/2 && sent+pacePiece > window:
		more := window
		if slowly {
			more = window/4 + pacePiece/4
		}
		window = min(paceMost, window+more)
	}
	return window
}
