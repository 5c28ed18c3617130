// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"valise/wire"
)

// A Role says who opens streams: the device alone.
type Role bool

// The ends of a connection.
const (
	Device  Role = true
	Gateway Role = false
)

// errNoStreams is what a device gets that waits for a stream of the gateway's.
var errNoStreams = errors.New("transport: a gateway opens no streams")

// A Mux is a Conn over one TLS connection: it cuts streams into records, and gives
// each stream a window of its own, so that one which is not read never holds up
// another. See spec/wire.md, Section 12.
//
// One goroutine reads; who has something to write takes turns. Memory is what
// peers really sent and nobody has read yet, at most Window for each stream.
type Mux struct {
	conn net.Conn
	role Role
	idle time.Duration

	ctx      context.Context
	cancel   context.CancelCauseFunc
	turn     chan struct{} // holds one token while somebody writes
	slots    chan struct{} // a device's open streams
	arrivals chan *muxStream
	read     chan struct{} // closed when the reader has ended
	ended    chan struct{} // closed when the socket is
	once     sync.Once
	head     [headerLen]byte // the reader's

	mu       sync.Mutex
	streams  map[uint32]*muxStream // guarded by mu
	last     uint32                // guarded by mu; the newest stream's number
	due      []*muxStream          // guarded by mu; with something small to send
	flushing bool                  // guarded by mu; a goroutine sends what is due
}

// OverTLS makes a Conn of a TLS connection after its handshake. It ends when
// nothing is heard for idle.
func OverTLS(conn *tls.Conn, role Role, idle time.Duration) *Mux { return newMux(conn, role, idle) }

func newMux(conn net.Conn, role Role, idle time.Duration) *Mux {
	m := &Mux{
		conn: conn, role: role, idle: idle,
		turn: make(chan struct{}, 1), slots: make(chan struct{}, MaxStreams), arrivals: make(chan *muxStream, MaxStreams),
		read: make(chan struct{}), ended: make(chan struct{}), streams: make(map[uint32]*muxStream),
	}
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	go m.receive()
	return m
}

// Context implements Conn.
func (m *Mux) Context() context.Context { return m.ctx }

// RemoteAddr implements Conn.
func (m *Mux) RemoteAddr() net.Addr { return m.conn.RemoteAddr() }

// RoundTrip implements Conn: the system knows it, and does not tell everywhere. Files have
// a connection of their own here.
func (*Mux) RoundTrip() (least, now time.Duration) { return 0, 0 }

// ConnectionState implements Conn.
func (m *Mux) ConnectionState() tls.ConnectionState {
	if c, ok := m.conn.(*tls.Conn); ok {
		return c.ConnectionState()
	}
	return tls.ConnectionState{}
}

// Wait returns when the socket is closed, at most a moment after the connection
// ended.
func (m *Mux) Wait() { <-m.ended }

// OpenStream implements Conn. A stream gets its number with its first byte, so
// that numbers arrive in order.
func (m *Mux) OpenStream(ctx context.Context) (Stream, error) {
	if m.role != Device {
		return nil, errNoStreams
	}
	if m.ctx.Err() != nil { // though there may be a slot
		return nil, context.Cause(m.ctx)
	}
	select {
	case m.slots <- struct{}{}:
		return newMuxStream(m, 0), nil
	case <-m.ctx.Done():
		return nil, context.Cause(m.ctx)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// AcceptStream implements Conn.
func (m *Mux) AcceptStream(ctx context.Context) (Stream, error) {
	select {
	case s := <-m.arrivals:
		return s, nil
	case <-m.ctx.Done():
		return nil, context.Cause(m.ctx)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// CloseWithError implements Conn. It does not wait for the peer; Wait does.
func (m *Mux) CloseWithError(code wire.CloseCode, reason string) error {
	m.end(&CloseError{Code: code, Reason: reason})
	return nil
}

// end makes the connection unusable at once, and tells the peer if there is
// anything to tell.
func (m *Mux) end(cause error) {
	m.once.Do(func() {
		m.cancel(cause)
		go m.leave(cause)
	})
}

// leave says goodbye. The socket stays open for the peer's last bytes: closing it
// before they are read would make the system answer with a reset, which can
// overtake the goodbye.
func (m *Mux) leave(cause error) {
	defer close(m.ended)
	defer m.conn.Close()
	late := time.Now().Add(goodbye)
	_ = m.conn.SetDeadline(late)
	closed := ClosedBy(cause)
	if errors.Is(cause, ErrFraming) {
		closed = &CloseError{Code: wire.CloseProtocol, Reason: "malformed_record"}
	}
	if closed == nil || closed.Remote || !m.tell(closed, late) {
		return
	}
	if c, ok := m.conn.(*tls.Conn); ok {
		_ = c.CloseWrite()
		if tcp, ok := c.NetConn().(interface{ CloseWrite() error }); ok {
			_ = tcp.CloseWrite()
		}
	}
	select {
	case <-m.read:
	case <-time.After(time.Until(late)):
	}
}

// tell writes what is due and the last record, if its turn comes in time.
func (m *Mux) tell(why *CloseError, late time.Time) bool {
	select {
	case m.turn <- struct{}{}:
	case <-time.After(time.Until(late)):
		return false
	}
	defer func() { <-m.turn }()
	_ = m.conn.SetWriteDeadline(late)
	m.mu.Lock()
	out := m.collect(nil)
	m.mu.Unlock()
	_, err := m.conn.Write(appendClose(out, why.Code, why.Reason))
	return err == nil
}

// receive reads records until the connection ends.
func (m *Mux) receive() {
	defer close(m.read)
	for m.ctx.Err() == nil {
		if err := m.receiveOne(); err != nil {
			m.end(lost(err))
		}
	}
	// Let the goodbye reach the peer; its deadline ends this.
	_, _ = io.CopyN(io.Discard, m.conn, 2*MaxStreams*Window)
}

func lost(err error) error {
	if errors.Is(err, ErrFraming) || ClosedBy(err) != nil {
		return err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("transport: nothing was heard of the other side")
	}
	return fmt.Errorf("transport: connection lost: %w", err)
}

// receiveOne reads one record. It must be whole within the idle time, so that one
// that drips in does not keep a connection alive.
func (m *Mux) receiveOne() error {
	if err := m.conn.SetReadDeadline(time.Now().Add(m.idle)); err != nil {
		return err
	}
	if m.ctx.Err() != nil {
		return nil
	}
	if _, err := io.ReadFull(m.conn, m.head[:]); err != nil {
		return err
	}
	h, err := parseHeader(&m.head)
	if err != nil {
		return err
	}
	scratch := scratches.Get().(*scratch)
	defer scratches.Put(scratch)
	body := scratch[:h.length]
	if _, err := io.ReadFull(m.conn, body); err != nil {
		return err
	}
	return m.take(h, body)
}

// scratch holds one record on its way in or out.
type scratch [headerLen + maxData]byte

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// take gives a record to its stream.
func (m *Mux) take(h header, body []byte) error {
	if h.kind == kindClose {
		why, err := parseClose(body)
		if err != nil {
			return err
		}
		return why
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.streamOf(h)
	if err != nil || s == nil {
		return err
	}
	switch h.kind {
	case kindData:
		return s.arrived(body)
	case kindEnd:
		return s.peerEnds(nil)
	case kindReset:
		return s.peerEnds(&StreamError{Code: wire.CloseCode(binary.BigEndian.Uint32(body)), Remote: true})
	case kindStop:
		s.peerStops(wire.CloseCode(binary.BigEndian.Uint32(body)))
		return nil
	default:
		return s.credited(binary.BigEndian.Uint32(body))
	}
}

// streamOf finds a record's stream, or opens it. It returns nil for one that is
// over: stops and credits may have crossed its end. Called with mu held.
func (m *Mux) streamOf(h header) (*muxStream, error) {
	if s := m.streams[h.stream]; s != nil {
		return s, nil
	}
	switch {
	case h.stream <= m.last && (h.kind == kindStop || h.kind == kindCredit):
		return nil, nil
	case m.role == Device || h.kind != kindData || h.stream != m.last+1:
		return nil, framing("kind %d for stream %d, which is not open", h.kind, h.stream)
	case len(m.streams) >= MaxStreams:
		return nil, framing("more than %d streams", MaxStreams)
	}
	s := newMuxStream(m, h.stream)
	select { // never a wait, with mu held
	case m.arrivals <- s: // what nobody has accepted is open, so that there is room
	default:
		return nil, framing("more than %d streams", MaxStreams)
	}
	m.last = h.stream
	m.streams[h.stream] = s
	return s, nil
}
