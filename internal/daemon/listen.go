// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net"
	"sync"
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
