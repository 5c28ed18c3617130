// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"valise/gateway/mailbox"
	"valise/identity"
	"valise/transport"
	"valise/wire"
)

// A session is one connection of one device.
type session struct {
	g      *Gateway
	conn   transport.Conn
	device *identity.Device
	remote string
	audit  *auditor

	allowance *allowance

	ready    chan struct{}    // closed after Welcome
	finished chan struct{}    // closed when nothing of this session runs any more
	standing mailbox.Standing // set before ready
	seq      *sequence        // set before ready
	turn     atomic.Uint64    // which arrival of the device this is; 0: not known yet, or of no use
	current  bool             // set before ready: the Hello's incarnation is the one on record
	down     atomic.Pointer[delivery]
	renewal  bool        // may do nothing but open tunnels
	attached bool        // set before ready: a further connection, for files alone
	control  atomic.Bool // the control stream is taken
	notices  chan wire.NoticeCode
	pacer    *transport.Pacer // of files that are sent
	leases   chan *wire.Lease
	changed  chan struct{} // another policy bundle is in force

	transfers [2]chan struct{} // one slot for each running upload and download
	streams   sync.WaitGroup
}

// serve runs a connection from its acceptance to its end.
func (g *Gateway) serve(conn transport.Conn, a *attempt) {
	g.settle(a, false)
	device := a.device.Load()
	if device == nil {
		_ = conn.CloseWithError(wire.CloseNotAdmitted, "")
		return
	}
	s := &session{
		g: g, conn: conn, device: device, remote: a.remote.String(),
		ready: make(chan struct{}), finished: make(chan struct{}), pacer: transport.Over(conn), notices: make(chan wire.NoticeCode, 4), leases: make(chan *wire.Lease, maxLeases), changed: make(chan struct{}, 1),
		transfers: [2]chan struct{}{make(chan struct{}, maxTransfers), make(chan struct{}, maxTransfers)},
	}
	s.allowance = g.allowances.of(device.ID, g.now())
	s.audit = s.allowance.audit
	if s.allowance.isHeld(g.now()) {
		s.refuse(eventRefusedConnection, "held")
		_ = conn.CloseWithError(wire.CloseNotAdmitted, "held")
		return
	}
	if !g.count(s) {
		s.refuse(eventRefusedConnection, "too_many_connections")
		_ = conn.CloseWithError(wire.CloseShutdown, "too_many_connections")
		return
	}
	defer g.uncount(s)
	if s.renewal = renewing(conn.ConnectionState()); s.renewal {
		s.serveRenewal()
		return
	}
	expiry := g.closeWhenExpired(s)
	late := time.AfterFunc(helloTimeout, func() {
		select {
		case <-s.ready:
		default:
			s.close(wire.CloseProtocol, "no_hello")
		}
	})
	s.acceptStreams()
	if errors.Is(context.Cause(conn.Context()), transport.ErrFraming) {
		s.refuse(eventClosedConnection, "malformed_record")
	}
	expiry.Stop()
	late.Stop()
	s.streams.Wait()
	g.leave(s)
	close(s.finished)
}

// acceptStreams hands out the streams that the device opens until the
// connection ends.
func (s *session) acceptStreams() {
	for {
		stream, err := s.conn.AcceptStream(s.conn.Context())
		if err != nil {
			return
		}
		s.streams.Go(func() { s.serveStream(stream) })
	}
}

// serveStream reads the byte that says what a stream is for. See
// spec/wire.md, Section 2.
func (s *session) serveStream(stream transport.Stream) {
	var kind [1]byte
	_ = stream.SetReadDeadline(time.Now().Add(helloTimeout))
	if _, err := io.ReadFull(stream, kind[:]); err != nil {
		cancelStream(stream)
		return
	}
	_ = stream.SetReadDeadline(time.Time{})
	if k := wire.StreamKind(kind[0]); !s.renewal && (k == wire.StreamControl || k == wire.StreamAttach) {
		if !s.control.CompareAndSwap(false, true) {
			s.close(wire.CloseProtocol, "second_control_stream")
			return
		}
		if k == wire.StreamAttach {
			s.serveAttach(stream)
			return
		}
		s.serveControl(stream)
		return
	}
	select {
	case <-s.ready:
	case <-s.conn.Context().Done():
		return
	}
	switch k := wire.StreamKind(kind[0]); {
	case k == wire.StreamTunnel:
		s.serveTunnel(stream)
	case s.renewal:
		s.close(wire.CloseProtocol, "unexpected_stream")
	case s.attached && k == wire.StreamDelivery:
		s.close(wire.CloseProtocol, "unexpected_stream")
	case k == wire.StreamDelivery:
		s.serveDelivery(stream)
	case k == wire.StreamBlobPut:
		s.serveBlobPut(stream)
	case k == wire.StreamBlobGet:
		s.serveBlobGet(stream)
	default:
		s.close(wire.CloseProtocol, "unknown_stream_kind")
	}
}

func cancelStream(stream transport.Stream) {
	stream.CancelRead(wire.CloseProtocol)
	stream.CancelWrite(wire.CloseProtocol)
}

// serveControl runs the control stream: Hello, Welcome, then requests.
func (s *session) serveControl(stream transport.Stream) {
	_ = stream.SetReadDeadline(time.Now().Add(helloTimeout))
	frame, err := wire.ReadSmall(stream)
	if err != nil {
		s.broken(err)
		return
	}
	_ = stream.SetReadDeadline(time.Time{})
	hello, ok := frame.(*wire.Hello)
	if !ok || hello.Version != wire.Version {
		s.close(wire.CloseProtocol, "no_hello")
		return
	}
	if err := s.welcome(stream, hello); err != nil {
		s.unavailable("a device could not be welcomed", err)
		return
	}
	out := newOutbox(stream, s.conn.Context())
	close(s.ready)
	// Not by this goroutine: its stack has grown in the store, and would stay so large
	// for as long as the connection is idle.
	s.streams.Go(func() {
		defer out.close()
		s.requests(s.framesOf(stream), out)
		s.seq.settle()
	})
}

func (s *session) framesOf(stream transport.Stream) *frames {
	return &frames{stream: stream, limit: s.g.limits.FrameTime}
}

// welcome makes this the device's one connection, records its arrival and
// answers Hello.
func (s *session) welcome(stream io.Writer, hello *wire.Hello) error {
	if !s.g.replace(s) {
		return errors.New("gateway: the older connection of this device does not end")
	}
	if kept, err := s.g.holds.admit(s.conn.Context(), s.device); err != nil {
		return err
	} else if !kept {
		s.close(wire.CloseNotAdmitted, "device_revoked")
		return errors.New("gateway: the device was revoked, and what it had is deleted")
	}
	now := s.g.now()
	standing, err := s.g.cfg.Store.Arrive(s.conn.Context(), mailbox.Arrival{
		Device: s.device.ID, Address: s.device.Address.String(), Chain: s.device.Chain,
		Incarnation: hello.Incarnation, Begin: hello.Begin, Time: now,
	})
	if err != nil {
		return err
	}
	s.standing = standing
	s.turn.Store(standing.Turn)
	s.current = hello.Incarnation == standing.Incarnation && hello.Incarnation != [16]byte{}
	s.seq = newSequence(standing.Counter)
	if standing.Began {
		s.audit.event(eventBegan, "", about(s.device, s.remote)...)
	}
	welcome := &wire.Welcome{
		Version: wire.Version, Time: uint64(now.UnixMilli()), Device: s.device.ID, Incarnation: standing.Incarnation,
		Counter: standing.Counter, Acknowledged: standing.Acknowledged, KeyPackages: uint32(standing.KeyPackages),
	}
	if welcome.Behind(hello) {
		s.audit.event(eventBehind, "older_state", append(about(s.device, s.remote),
			slog.Uint64("counter", hello.Counter), slog.Uint64("cursor", hello.Cursor))...)
	}
	return wire.Write(stream, welcome)
}

// replace makes s the device's connection and waits until the one before it
// has wound up: its last submissions are either on disk or gone.
func (g *Gateway) replace(s *session) bool {
	g.mu.Lock()
	if g.draining {
		g.mu.Unlock()
		s.close(wire.CloseShutdown, "")
		return false
	}
	old := g.sessions[s.device.ID]
	g.sessions[s.device.ID] = s
	g.mu.Unlock()
	if g.deniedNow()[s.device.ID] { // listed between handshake and now
		s.close(wire.CloseNotAdmitted, "denied")
		return false
	}
	if reason := outOf(g.Standings(), s.device); reason != "" { // suspended meanwhile
		s.close(wire.CloseNotAdmitted, reason)
		return false
	}
	if old == nil {
		return true
	}
	old.close(wire.CloseReplaced, "")
	timeout := time.NewTimer(replaceTimeout)
	defer timeout.Stop()
	select {
	case <-old.finished:
		return true
	case <-s.conn.Context().Done():
	case <-timeout.C:
		s.close(wire.CloseShutdown, "replacement_timeout")
	}
	<-old.finished // who replaces s waits for s, and so for old too
	return false
}

// count notes one more connection of a device; false if it has too many, most
// of which have not said Hello, or all together have.
func (g *Gateway) count(s *session) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := s.device.ID
	if g.draining || g.counts[d] >= maxDeviceConnections || len(g.served) >= g.limits.Connections {
		return false
	}
	g.counts[d]++
	g.served[s] = struct{}{}
	g.open.Add(1)
	return true
}

func (g *Gateway) uncount(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := s.device.ID
	delete(g.served, s)
	g.open.Add(-1)
	if g.counts[d]--; g.counts[d] == 0 {
		delete(g.counts, d)
	}
}

func (g *Gateway) leave(s *session) {
	defer g.duties.nudge() // its leases are another's
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sessions[s.device.ID] == s {
		delete(g.sessions, s.device.ID)
	}
}

// session returns the device's connection, nil if there is none.
func (g *Gateway) session(d identity.DeviceID) *session {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sessions[d]
}

// close ends the connection. A reason is for the audit stream and for the
// peer's log.
func (s *session) close(code wire.CloseCode, reason string) {
	if s.conn.Context().Err() != nil {
		return
	}
	if reason != "" {
		s.g.metrics.refused(eventClosedConnection, reason)
		s.audit.event(eventClosedConnection, reason, about(s.device, s.remote)...)
	}
	_ = s.conn.CloseWithError(code, reason)
}

// unavailable ends the connection because of the gateway's own trouble: the
// device comes back later.
func (s *session) unavailable(what string, err error) {
	if s.conn.Context().Err() == nil {
		s.g.log.Error(what, "device", s.device.ID.String(), "error", err)
		s.close(wire.CloseShutdown, "store_unavailable")
	}
}

// broken deals with the end of a stream that should have gone on.
func (s *session) broken(err error) {
	switch {
	case errors.Is(err, wire.ErrMalformed):
		s.close(wire.CloseProtocol, "malformed_frame")
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.close(wire.CloseProtocol, "slow_frame")
	default:
		s.close(wire.CloseNormal, "")
	}
}

// refuse writes a refusal to the audit stream.
func (s *session) refuse(event, reason string, attrs ...slog.Attr) {
	s.g.metrics.refused(event, reason)
	s.audit.event(event, reason, append(about(s.device, s.remote), attrs...)...)
	s.consider(reason)
}
