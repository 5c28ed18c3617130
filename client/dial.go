// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"valise/transport"
	"valise/wire"
)

// The ways to a gateway, as State names them.
const (
	wayQUIC = "quic"
	wayTCP  = "tcp"
)

// A line is a connection, and what has to be given back after it.
type line struct {
	transport.Conn
	way     string
	node    node
	at      string // over TCP: where further connections go, to the same node
	hangUp  func()
	further func(context.Context) (*line, error) // opens one for files; nil: they go over this one
}

// ways remembers how the gateway was reached.
type ways struct {
	mu       sync.Mutex
	tcpUntil time.Time     // guarded by mu; UDP is believed closed until then
	wait     time.Duration // guarded by mu; for how long it was believed last
	least    time.Duration // for how long it is believed first; 0: quicAgain
}

// first is the way to try first.
func (w *ways) first(now time.Time) (first, second string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if left := w.tcpUntil.Sub(now); left > 0 && left <= quicSeldom { // more: the clock was set
		return wayTCP, wayQUIC
	}
	return wayQUIC, wayTCP
}

// closed notes that UDP does not pass; each time it is believed for longer.
func (w *ways) closed(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	least := w.least
	if least == 0 {
		least = quicAgain
	}
	w.wait = min(max(2*w.wait, least), quicSeldom)
	// By the wall clock: the other one stands still while a computer sleeps, and it
	// wakes in another network.
	w.tcpUntil = now.Add(w.wait).Round(0)
}

// passes notes that UDP does: a gateway has answered over it as it should.
func (w *ways) passes() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tcpUntil, w.wait = time.Time{}, 0
}

// retry lets UDP be tried once more. What is known of it stays until that has come to
// something: a network may pass a first packet and no more.
func (w *ways) retry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tcpUntil = time.Time{}
}

func (w *ways) until() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tcpUntil
}

// reached draws the conclusion for the next time: when TCP won although QUIC was
// tried first, UDP is closed.
func (e *Engine) reached(way, first string) {
	if way == wayTCP && first == wayQUIC {
		e.ways.closed(e.now())
		e.cfg.Log.Info("UDP does not pass: connected over TCP", "again", e.ways.until().Format(time.RFC3339))
	}
}

// answered draws it from what became of the connection: QUIC is believed once the
// gateway has answered, and a handshake after which nothing more came is as good as
// none.
func (e *Engine) answered(way string, err error) {
	var late net.Error
	switch {
	case way != wayQUIC:
	case err == nil:
		e.ways.passes()
	case errors.As(err, &late) && late.Timeout():
		e.ways.closed(e.now())
		e.cfg.Log.Info("UDP passes no more than a handshake: TCP is tried first", "until", e.ways.until().Format(time.RFC3339))
	}
}

// refusedAtOnce says that a gateway is there and too busy: another way leads to the
// same gateway.
func refusedAtOnce(err error) bool {
	var t *quic.TransportError
	return errors.As(err, &t) && t.Remote && t.ErrorCode == quic.ConnectionRefused
}

func (e *Engine) dialBy(ctx context.Context, n node, way string, config *tls.Config) (*line, error) {
	dial := e.dialQUIC
	if way == wayTCP {
		dial = e.dialTCP
	}
	l, err := dial(ctx, n, config)
	if err != nil {
		return nil, err
	}
	l.node = n
	return l, nil
}

// dialQUIC dials from a socket of its own. Its connection ids have a length, because
// quic-go notices a stateless reset, with which a restarted gateway answers packets of
// a connection that it does not know, only then. The socket is bound to no address, so
// that the connection outlives a change of this device's.
func (e *Engine) dialQUIC(ctx context.Context, n node, config *tls.Config) (*line, error) {
	to, err := net.ResolveUDPAddr("udp", n.udp)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	tr := &quic.Transport{Conn: transport.Socket(socket, 1), ConnectionIDLength: 8}
	conn, err := tr.Dial(ctx, to, config, &quic.Config{
		HandshakeIdleTimeout: handshakeTimeout,
		MaxIdleTimeout:       idleTimeout,
		KeepAlivePeriod:      keepAlive,
	})
	if err != nil {
		return nil, errors.Join(err, tr.Close(), socket.Close())
	}
	hangUp := func() {
		_ = conn.CloseWithError(quic.ApplicationErrorCode(wire.CloseNormal), "")
		_ = tr.Close()
		_ = socket.Close()
	}
	return &line{Conn: transport.QUIC(conn), way: wayQUIC, hangUp: hangUp}, nil
}

// dialTCP connects over TCP; files go over further connections.
func (e *Engine) dialTCP(ctx context.Context, n node, config *tls.Config) (*line, error) {
	l, err := e.dialTLS(ctx, n.tcp, config)
	if err != nil {
		return nil, err
	}
	l.further = func(ctx context.Context) (*line, error) { return e.attach(ctx, l) }
	return l, nil
}

func (e *Engine) dialTLS(ctx context.Context, address string, config *tls.Config) (*line, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	mux := transport.OverTLS(conn.(*tls.Conn), transport.Device, silence)
	hangUp := func() {
		_ = mux.CloseWithError(wire.CloseNormal, "")
		mux.Wait()
	}
	return &line{Conn: mux, way: wayTCP, at: conn.RemoteAddr().String(), hangUp: hangUp}, nil
}

// attach opens a further connection, bound to the first one by what both ends
// derived from it (spec/wire.md, Section 12.3), and is over with that one.
func (e *Engine) attach(ctx context.Context, first *line) (*line, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(first.Context(), cancel)()
	l, err := e.dialTLS(ctx, first.at, e.tlsConfig(first.node.name))
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = l.CloseWithError(wire.CloseNormal, "") })()
	if err := sayAttach(ctx, first, l); err != nil {
		l.hangUp()
		return nil, closeReason(err)
	}
	return l, nil
}

func sayAttach(ctx context.Context, first, l *line) error {
	token, err := transport.Binding(first.ConnectionState(), l.ConnectionState())
	if err != nil {
		return err
	}
	s, err := l.OpenStream(ctx)
	if err != nil {
		return err
	}
	_ = s.SetDeadline(time.Now().Add(answerTimeout))
	if err := sayFirst(s, wire.StreamAttach, &wire.Attach{Token: token}); err != nil {
		return err
	}
	f, err := wire.Read(s)
	if err != nil {
		return err
	}
	if r, ok := f.(*wire.Result); !ok || r.Code != wire.OK {
		return wire.ErrMalformed
	}
	return s.Close()
}

// sayFirst writes a stream's kind and its first frame in one piece.
func sayFirst(s transport.Stream, kind wire.StreamKind, f wire.Frame) error {
	frame, err := wire.Marshal(f)
	if err != nil {
		return err
	}
	_, err = s.Write(append([]byte{byte(kind)}, frame...))
	return err
}
