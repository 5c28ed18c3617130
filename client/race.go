// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// errLost ends the handshakes that came second.
var errLost = errors.New("another one was faster")

// dialled is how one attempt ended.
type dialled struct {
	*track
	line *line
	err  error
}

// A track is an attempt to reach one node in one way.
type track struct {
	lane int // index of the node
	way  string
}

// A race reaches the gateway on whichever track proves itself first.
type race struct {
	e             *Engine
	protocol      string
	nodes         []node
	first, second string // ways

	winner  atomic.Pointer[track]
	ended   chan dialled
	running []int  // tracks that run, by node
	tried   []bool // both ways were taken, or are of no use, by node
	begun   int    // nodes that are tried
	rounds  int    // that the last of them was silent although UDP passes to it
	errs    []error
}

// reach connects to the gateway: by QUIC to the node where this device was, and when no
// gateway answers there for fallbackAfter, by TCP as well and to the next node
// (spec/wire.md, Sections 12.4 and 15). The first one on which the gateway has proven
// itself asks the card to sign; the others give up, so that nobody is asked twice.
func (e *Engine) reach(ctx context.Context, protocol string) (*line, error) {
	nodes, err := e.nodes(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &race{
		e: e, protocol: protocol, nodes: nodes,
		ended: make(chan dialled, 2*len(nodes)), running: make([]int, len(nodes)), tried: make([]bool, len(nodes)),
	}
	r.first, r.second = e.ways.first(e.now())
	return r.run(ctx)
}

func (r *race) run(ctx context.Context) (*line, error) {
	late := time.NewTimer(fallbackAfter)
	defer late.Stop()
	heard := make(chan echo, 1)
	listening := false // for an answer to a probe
	r.next(ctx)
	for r.left() > 0 {
		select {
		case <-late.C:
			if r.winner.Load() == nil && r.more() && !listening {
				listening = true
				at := r.nodes[r.begun-1].udp
				go func() { heard <- r.probe(ctx, at) }()
			}
		case what := <-heard:
			// A gateway that has just come up is not a network without UDP: what QUIC
			// sends again will arrive. But not for ever.
			listening = false
			if r.rounds++; what != answered || r.rounds >= fallbackRounds {
				r.advance(ctx, r.begun-1)
			}
			late.Reset(fallbackAfter)
		case d := <-r.ended:
			r.running[d.lane]--
			if d.err == nil {
				return r.won(d), nil
			}
			begun := r.begun
			if done := r.lost(ctx, d); done {
				go r.hangUpLate()
				return nil, r.failed()
			}
			if r.begun > begun {
				late.Reset(fallbackAfter)
			}
		}
	}
	return nil, r.failed()
}

// probe asks whether UDP passes, where that is in question.
func (r *race) probe(ctx context.Context, at string) echo {
	if r.first != wayQUIC {
		return silent
	}
	return udpPasses(ctx, at, 1)
}

// more says whether there is a track left.
func (r *race) more() bool {
	for _, tried := range r.tried[:r.begun] {
		if !tried {
			return true
		}
	}
	return r.begun < len(r.nodes)
}

// left is how many tracks run.
func (r *race) left() int {
	n := 0
	for _, tracks := range r.running {
		n += tracks
	}
	return n
}

// next tries another node, if there is one and nobody has won.
func (r *race) next(ctx context.Context) {
	if r.begun == len(r.nodes) || r.winner.Load() != nil {
		return
	}
	r.begun++
	r.rounds = 0
	r.start(ctx, r.begun-1, r.first)
}

// other tries a node in the other way, once.
func (r *race) other(ctx context.Context, lane int) {
	if r.tried[lane] || r.winner.Load() != nil {
		return
	}
	r.tried[lane] = true
	r.start(ctx, lane, r.second)
}

// advance gives a node that does not answer company.
func (r *race) advance(ctx context.Context, lane int) {
	r.other(ctx, lane)
	if lane == r.begun-1 {
		r.next(ctx)
	}
}

func (r *race) start(ctx context.Context, lane int, way string) {
	r.running[lane]++
	t := &track{lane, way}
	n := r.nodes[lane]
	config := forProtocol(r.e.tlsConfig(n.name), r.protocol)
	certificate := config.Certificates[0]
	config.Certificates = nil
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if !r.winner.CompareAndSwap(nil, t) {
			return nil, errLost
		}
		return &certificate, nil
	}
	go func() {
		l, err := r.e.dialBy(ctx, n, way, config)
		r.ended <- dialled{t, l, err}
	}()
}

// won notes what was learnt, and returns the connection.
func (r *race) won(d dialled) *line {
	if r.tried[d.lane] {
		r.e.reached(d.way, r.first)
	}
	for lane, n := range r.nodes[:r.begun] {
		if lane != d.lane {
			r.e.places.failed(n, r.e.now(), nodeAvoid)
		}
	}
	go r.hangUpLate()
	return d.line
}

// lost deals with a track that has come to nothing, and says whether that is the end: the
// gateway has answered, or nobody else can be asked.
func (r *race) lost(ctx context.Context, d dialled) bool {
	r.errs = append(r.errs, fmt.Errorf("%s %s: %w", d.way, r.nodes[d.lane].udp, d.err))
	if r.winner.Load() == d.track {
		return true
	}
	if refusedAtOnce(d.err) {
		r.tried[d.lane] = true // another way leads to the same busy node
		r.next(ctx)
		return r.left() == r.running[d.lane]
	}
	r.advance(ctx, d.lane)
	return false
}

// failed is why no node was reached. None of them is better than another.
func (r *race) failed() error {
	for _, n := range r.nodes[:r.begun] {
		r.e.places.failed(n, r.e.now(), nodeAvoid)
	}
	return errors.Join(r.errs...)
}

// hangUpLate gives back what the slower tracks still bring.
func (r *race) hangUpLate() {
	for range r.left() {
		if d := <-r.ended; d.line != nil {
			d.line.hangUp()
		}
	}
}
