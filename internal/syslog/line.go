// SPDX-License-Identifier: Apache-2.0

package syslog

import (
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"time"
)

// A line is a connection to the collector. Writes are those of one goroutine.
type line struct {
	conn      net.Conn
	raw       net.Conn  // below TLS
	counted   *counting // of TLS; nil: what is written is what goes out
	datagrams bool
	written   uint64 // bytes of a stream without TLS

	flight []flown // written, and not known to have arrived; in order
	bytes  int     // of them
}

// A flown is a message on its way, with how far the connection had come behind it.
type flown struct {
	entry entry
	until uint64
}

// counting counts what goes into a connection.
type counting struct {
	net.Conn
	out atomic.Uint64
}

// Write implements io.Writer.
func (c *counting) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.out.Add(uint64(n))
	return n, err
}

// send writes one message, in the framing of the transport: a datagram, or octet counting
// (RFC 6587, Section 3.4.1; RFC 5425, Section 4.3).
func (l *line) send(e entry) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return err
	}
	if l.datagrams {
		_, err := l.conn.Write(e.text)
		return err
	}
	frame := append(strconv.AppendInt(make([]byte, 0, len(e.text)+8), int64(len(e.text)), 10), ' ')
	n, err := l.conn.Write(append(frame, e.text...))
	if err != nil {
		return err
	}
	l.written += uint64(n)
	l.flight = append(l.flight, flown{e, l.sent()})
	l.bytes += len(e.text)
	return nil
}

// sent is how many bytes went into the socket.
func (l *line) sent() uint64 {
	if l.counted != nil {
		return l.counted.out.Load()
	}
	return l.written
}

// settle forgets what has arrived at the collector's kernel.
func (l *line) settle() (left int) {
	if len(l.flight) == 0 {
		return 0
	}
	queued, err := unacknowledged(l.raw)
	if err != nil {
		return len(l.flight)
	}
	arrived := l.sent() - uint64(queued)
	n := 0
	for n < len(l.flight) && l.flight[n].until <= arrived {
		l.bytes -= len(l.flight[n].entry.text)
		n++
	}
	l.flight = append(l.flight[:0], l.flight[n:]...)
	return len(l.flight)
}

// watch returns a channel that is closed when the collector ends the connection. A
// datagram socket has no end.
func (l *line) watch() <-chan struct{} {
	ended := make(chan struct{})
	if l.datagrams {
		return ended
	}
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, l.conn) // collectors say nothing (RFC 5425, Section 4.3)
	}()
	return ended
}

func (l *line) close() error { return l.conn.Close() }
