// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"valise/internal/stage"
	"valise/internal/wan"
)

// paths are the ways from a device's network to the nodes of the gateway: to each, UDP through
// a relay, and TCP through a line, which is there only while UDP is closed: that is how the
// device finds back to UDP, of which it would think ill for ten minutes.
type paths struct {
	relays []*wan.Relay
	lines  []*wan.Line
}

// udp adds up what the relays have counted.
func (p *paths) udp() (sum wan.Stats) {
	for _, r := range p.relays {
		s := r.Stats()
		sum.Lost, sum.Duplicated, sum.Reordered, sum.Delayed, sum.Cut = sum.Lost+s.Lost, sum.Duplicated+s.Duplicated, sum.Reordered+s.Reordered, sum.Delayed+s.Delayed, sum.Cut+s.Cut
	}
	return sum
}

// tcp adds up what the lines have counted.
func (p *paths) tcp() (sum wan.LineStats) {
	for _, l := range p.lines {
		s := l.Stats()
		sum.In, sum.Out, sum.Waited, sum.Rejected = sum.In+s.In, sum.Out+s.Out, sum.Waited+s.Waited, sum.Rejected+s.Rejected
	}
	return sum
}

func (p *paths) close() (err error) {
	for _, r := range p.relays {
		err = errors.Join(err, r.Close())
	}
	for _, l := range p.lines {
		err = errors.Join(err, l.Close())
	}
	return err
}

// open opens both ways to a node in a network that has no other way out.
func (p *paths) open(network *stage.Network, to *net.UDPAddr, seed uint64) (err error) {
	var inside *net.UDPConn
	var listener net.Listener
	err = network.Do(func() (err error) {
		if inside, err = net.ListenUDP("udp", to); err == nil {
			listener, err = net.Listen("tcp", to.String())
		}
		return err
	})
	if err != nil {
		return err
	}
	relay, err := wan.New(wan.Config{Inside: inside, To: to.AddrPort(), Seed: seed})
	if err != nil {
		return err
	}
	p.relays = append(p.relays, relay)
	line, err := wan.NewLine(wan.LineConfig{
		Inside: listener, Passage: wan.Shut,
		Dial: func() (net.Conn, error) { return net.Dial("tcp", to.String()) },
	})
	if err != nil {
		return err
	}
	p.lines = append(p.lines, line)
	return nil
}

// setWeather changes a part of this person's weather.
func (p *person) setWeather(f func(*wan.Weather)) {
	p.weatherMu.Lock()
	defer p.weatherMu.Unlock()
	f(&p.weather)
	p.expose()
}

// cut cuts this person's device off, or ends that.
func (p *person) cut(on bool) {
	p.weatherMu.Lock()
	defer p.weatherMu.Unlock()
	p.isolated = on
	p.expose()
}

// closeUDP closes UDP for this person's device and opens TCP, or the reverse.
func (p *person) closeUDP(on bool) {
	p.weatherMu.Lock()
	defer p.weatherMu.Unlock()
	p.closed = on
	p.expose()
}

// expose lets both ways know. The mutex is held.
func (p *person) expose() {
	weather, passage := p.weather, wan.Shut
	weather.Cut = p.isolated || p.closed
	switch {
	case p.closed && p.isolated:
		passage = wan.Frozen
	case p.closed:
		passage = wan.Open
	}
	for _, r := range p.relays {
		r.Set(weather)
	}
	for _, l := range p.lines {
		l.Set(passage)
	}
}

// overTCP closes UDP for one device until it has got a message through over TCP. Half of
// them come up in such a network, as all do in a short run; the others have to notice,
// which takes a device that is in use half a minute.
func (w *world) overTCP(ctx context.Context, rng *rand.Rand, p *person) (string, bool, error) {
	before, how := p.tcp(), "noticed"
	p.closeUDP(true)
	defer p.closeUDP(false)
	if w.opts.length < 2*time.Minute || rng.IntN(2) == 0 {
		how = "came up there"
		if _, _, err := w.killAgent(ctx, rng, p); err != nil {
			return "", false, err
		}
	}
	limit, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	sent, met := int64(-1), false
	for !met && limit.Err() == nil {
		rest(limit, 50*time.Millisecond)
		s := p.tcp()
		if sent < 0 && s.In > before.In && s.Out > before.Out {
			sent = p.sent.Load()
		}
		met = sent >= 0 && p.sent.Load() > sent
	}
	if met {
		w.during(ctx, rng, time.Second, 8*time.Second)
	}
	s := p.tcp()
	return fmt.Sprintf("%s %s: %d bytes over TCP", p.Name, how, s.Out+s.In-before.Out-before.In), met, nil
}
