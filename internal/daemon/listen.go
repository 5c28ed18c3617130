// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net"
	"net/netip"
	"sync"

	"valise/internal/callers"
)

// Limit bounds how many connections a listener has open; more wait in the kernel's
// queue until one is closed. Without it, strangers take all file descriptors.
func Limit(ln net.Listener, most int) net.Listener {
	return &limited{Listener: ln, places: make(chan struct{}, most), done: make(chan struct{})}
}

type limited struct {
	net.Listener
	places chan struct{}
	done   chan struct{}
	once   sync.Once
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &placed{Conn: conn, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type placed struct {
	net.Conn
	leave func()
}

func (p *placed) Close() error {
	err := p.Conn.Close()
	p.leave()
	return err
}

// LimitEach bounds how many connections one address has open: a further one is
// closed at once. Without it, a single stranger takes all places of Limit. Addresses
// of IPv6 count by their /64, which is what one customer gets (RFC 6177).
func LimitEach(ln net.Listener, most int) net.Listener {
	return &limitedEach{Listener: ln, most: most, open: make(map[netip.Prefix]int)}
}

type limitedEach struct {
	net.Listener
	most int

	mu   sync.Mutex // guards open
	open map[netip.Prefix]int
}

func (l *limitedEach) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := callers.Origin(conn.RemoteAddr().String())
		if l.enter(from) {
			return &placed{Conn: conn, leave: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		_ = conn.Close()
	}
}

func (l *limitedEach) enter(from netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[from] >= l.most {
		return false
	}
	l.open[from]++
	return true
}

func (l *limitedEach) leave(from netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[from]--; l.open[from] <= 0 {
		delete(l.open, from)
	}
}

// Network is what net.Listen has to be called with for one of several addresses that
// are listened at together. Go listens at 0.0.0.0 for both families where it can, and
// then [::] of the same port is taken; next to each other each gets its own.
func Network(network, address string, all []string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return network
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsUnspecified() {
		return network
	}
	if ip.Is4() {
		return network + "4"
	}
	for _, other := range all {
		if h, p, err := net.SplitHostPort(other); err == nil && p == port && h == "0.0.0.0" {
			return network + "6"
		}
	}
	return network
}
