// SPDX-License-Identifier: Apache-2.0

package store

import (
	"net"
	"sync/atomic"
	"time"
)

// A link is the network connection below one of ours. It knows since when an answer is
// awaited, and can be ended by [servers] while somebody waits for that.
type link struct {
	net.Conn
	servers  *servers
	server   string       // whose it is
	timeline uint32       // guarded by servers.mu; 0: not known yet
	ended    atomic.Bool  // by servers, and its owner may not know
	asked    atomic.Int64 // when the first thing was sent that nothing came after, in ns since the epoch; 0: nothing is awaited
}

func (l *link) Write(b []byte) (int, error) {
	l.asked.CompareAndSwap(0, time.Now().UnixNano())
	return l.Conn.Write(b)
}

func (l *link) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.asked.Store(0)
	}
	return n, err
}

func (l *link) Close() error {
	l.servers.forget(l)
	return l.Conn.Close()
}

// end ends the link under whoever uses it.
func (l *link) end() {
	l.ended.Store(true)
	_ = l.Conn.Close() // it is forgotten when its owner finds out
}

// waits reports whether an answer has been awaited since before a time.
func (l *link) waits(since time.Time) bool {
	asked := l.asked.Load()
	return asked != 0 && asked < since.UnixNano()
}
