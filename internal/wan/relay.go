// SPDX-License-Identifier: Apache-2.0

package wan

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxPacket is the longest packet that is carried: a UDP datagram has no more.
	maxPacket = 64 << 10

	// maxSenders bounds how many addresses have a socket on the other side.
	maxSenders = 4096

	// overtake is how long a packet that is to be overtaken waits for another one.
	overtake = 50 * time.Millisecond
)

// A Config says between what a relay stands.
type Config struct {
	Inside *net.UDPConn   // where clients send to; the relay closes it
	To     netip.AddrPort // where their packets go
	Seed   uint64         // of what happens to which packet
}

// Weather is what happens to packets, each way. The zero Weather is fair.
type Weather struct {
	Loss, Duplicate, Reorder float64 // shares of all packets, 0 to 1
	Delay, Jitter            time.Duration
	Cut                      bool // nothing gets through
	Rate                     int  // bytes a second in each direction; 0: any number
	Queue                    int  // bytes that wait for that; what is more is lost
}

// Stats count packets, both ways together.
type Stats struct{ Carried, Lost, Duplicated, Reordered, Delayed, Cut int64 }

// A Relay carries packets until it is closed.
type Relay struct {
	cfg Config

	mu      sync.Mutex
	rng     *rand.Rand                 // guarded by mu, as all below
	weather Weather                    //
	stats   Stats                      //
	senders map[netip.AddrPort]*sender //
	closed  bool                       //
}

// A sender is one client's address, and the ways to and from it.
type sender struct {
	outside *net.UDPConn
	out, in *lane
}

// A lane is one way. At most one packet waits in it to be overtaken.
type lane struct {
	deliver func(packet []byte)
	held    []byte    // guarded by the relay's mutex, as what follows
	free    time.Time // when everything that waits for the Rate has gone
}

// New starts a relay in fair weather.
func New(cfg Config) (*Relay, error) {
	if cfg.Inside == nil || !cfg.To.IsValid() {
		return nil, errors.New("wan: a relay needs a socket and somewhere to send to")
	}
	r := &Relay{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x77616e)), senders: map[netip.AddrPort]*sender{}}
	go r.fromInside()
	return r, nil
}

// Set changes the weather.
func (r *Relay) Set(w Weather) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.weather = w
}

// Stats tells what has happened so far.
func (r *Relay) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Close ends the relay.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	all := []error{r.cfg.Inside.Close()}
	for _, s := range r.senders {
		all = append(all, s.outside.Close())
	}
	r.mu.Unlock()
	return errors.Join(all...)
}

func (r *Relay) fromInside() {
	buf := make([]byte, maxPacket)
	for {
		n, from, err := r.cfg.Inside.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // what the kernel says about an earlier packet
		}
		if s := r.sender(from); s != nil {
			r.carry(s.out, append([]byte(nil), buf[:n]...))
		}
	}
}

// sender finds or makes the socket for a client's address.
func (r *Relay) sender(from netip.AddrPort) *sender {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.senders[from]; s != nil || r.closed || len(r.senders) >= maxSenders {
		return s
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(r.cfg.To))
	if err != nil {
		return nil // as a router without a port to give: the packet is lost
	}
	s := &sender{outside: conn}
	s.out = &lane{deliver: func(p []byte) { _, _ = conn.Write(p) }}
	s.in = &lane{deliver: func(p []byte) { _, _ = r.cfg.Inside.WriteToUDPAddrPort(p, from) }}
	r.senders[from] = s
	go r.fromOutside(s)
	return s
}

func (r *Relay) fromOutside(s *sender) {
	buf := make([]byte, maxPacket)
	for {
		n, err := s.outside.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // connection refused: nobody listens there now
		}
		r.carry(s.in, append([]byte(nil), buf[:n]...))
	}
}

// carry lets the weather decide about one packet.
func (r *Relay) carry(l *lane, packet []byte) {
	r.mu.Lock()
	w := r.weather
	chance := func(share float64) bool { return share > 0 && r.rng.Float64() < share }
	switch {
	case w.Cut:
		r.stats.Cut++
		r.mu.Unlock()
		return
	case chance(w.Loss):
		r.stats.Lost++
		r.mu.Unlock()
		return
	}
	delay, ok := l.queue(w, len(packet))
	if !ok {
		r.stats.Lost++
		r.mu.Unlock()
		return
	}
	packets := [][]byte{packet}
	if chance(w.Duplicate) {
		r.stats.Duplicated++
		packets = append(packets, packet)
	}
	switch {
	case l.held != nil: // it overtakes
		packets = append(packets, l.held)
		l.held = nil
		r.stats.Reordered++
	case chance(w.Reorder):
		l.held = packets[0]
		packets = packets[1:]
		time.AfterFunc(overtake, func() { r.release(l, packet) })
	}
	r.stats.Carried += int64(len(packets))
	delay += w.Delay
	if w.Jitter > 0 {
		delay += time.Duration(r.rng.Int64N(int64(w.Jitter)))
	}
	if delay > 0 {
		r.stats.Delayed += int64(len(packets))
	}
	r.mu.Unlock()
	send := func() {
		for _, p := range packets {
			l.deliver(p)
		}
	}
	if delay > 0 {
		time.AfterFunc(delay, send)
		return
	}
	send()
}

// queue puts a packet behind those that wait for the rate, and says how long that takes; or
// that the queue is full. The relay's mutex is held.
func (l *lane) queue(w Weather, size int) (time.Duration, bool) {
	if w.Rate == 0 {
		return 0, true
	}
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	wait := l.free.Sub(now)
	if waiting := int(wait.Seconds() * float64(w.Rate)); waiting+size > w.Queue {
		return 0, false
	}
	l.free = l.free.Add(time.Duration(size) * time.Second / time.Duration(w.Rate))
	return l.free.Sub(now), true
}

// release lets a packet go that nothing has overtaken.
func (r *Relay) release(l *lane, packet []byte) {
	r.mu.Lock()
	waits := len(l.held) > 0 && &l.held[0] == &packet[0]
	if waits {
		l.held = nil
		r.stats.Carried++
	}
	r.mu.Unlock()
	if waits {
		l.deliver(packet)
	}
}

// String is for logs.
func (s Stats) String() string {
	return fmt.Sprintf("%d carried, %d lost, %d duplicated, %d reordered, %d delayed, %d cut off", s.Carried, s.Lost, s.Duplicated, s.Reordered, s.Delayed, s.Cut)
}
