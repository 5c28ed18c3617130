// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
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

// errLost ends the handshake that came second.
var errLost = errors.New("the other way was faster")

// dialled is how one attempt ended.
type dialled struct {
	way  string
	line *line
	err  error
}

// reach connects to the gateway: by QUIC, and when no gateway answers there for
// fallbackAfter, by TCP as well (spec/wire.md, Section 12.4). The first one on
// which the gateway has proven itself asks the card to sign; the other one gives
// up, so that nobody is asked twice.
func (e *Engine) reach(ctx context.Context, protocol string) (*line, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var winner atomic.Pointer[string]
	ended := make(chan dialled, 2)
	running, rounds := 0, 0
	start := func(way string) {
		running++
		config := forProtocol(e.tlsConfig(), protocol)
		certificate := config.Certificates[0]
		config.Certificates = nil
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if !winner.CompareAndSwap(nil, &way) {
				return nil, errLost
			}
			return &certificate, nil
		}
		go func() {
			l, err := e.dialBy(ctx, way, config)
			ended <- dialled{way, l, err}
		}()
	}
	first, second := e.ways.first(e.now())
	start(first)
	late := time.NewTimer(fallbackAfter)
	defer late.Stop()
	heard := make(chan bool, 1)
	var all []error
	for running > 0 {
		select {
		case <-late.C:
			if winner.Load() == nil && second != "" {
				go func() { heard <- first == wayQUIC && udpPasses(ctx, e.cfg.Gateway, 1) }()
			}
		case passes := <-heard:
			// A gateway that has just come up is not a network without UDP: what QUIC
			// sends again will arrive. But not for ever.
			if rounds++; passes && rounds < fallbackRounds {
				late.Reset(fallbackAfter)
			} else if winner.Load() == nil && second != "" {
				start(second)
				second = ""
			}
		case d := <-ended:
			running--
			if d.err == nil {
				e.reached(d.way, first, second == "")
				go hangUpLate(ended, running)
				return d.line, nil
			}
			all = append(all, fmt.Errorf("%s: %w", d.way, d.err))
			if by := winner.Load(); refusedAtOnce(d.err) || by != nil && *by == d.way {
				go hangUpLate(ended, running)
				return nil, errors.Join(all...)
			}
			if second != "" {
				start(second)
				second = ""
			}
		}
	}
	return nil, errors.Join(all...)
}

// hangUpLate gives back what the slower attempts still bring.
func hangUpLate(ended chan dialled, running int) {
	for range running {
		if d := <-ended; d.line != nil {
			d.line.hangUp()
		}
	}
}

// reached draws the conclusion for the next time: when TCP won although QUIC was
// tried, UDP is closed.
func (e *Engine) reached(way, first string, both bool) {
	if way == wayTCP && first == wayQUIC && both {
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

func (e *Engine) dialBy(ctx context.Context, way string, config *tls.Config) (*line, error) {
	if way == wayTCP {
		return e.dialTCP(ctx, config)
	}
	return e.dialQUIC(ctx, config)
}

// dialQUIC dials from a socket of its own. Its connection ids have a length, because
// quic-go notices a stateless reset, with which a restarted gateway answers packets of
// a connection that it does not know, only then. The socket is bound to no address, so
// that the connection outlives a change of this device's.
func (e *Engine) dialQUIC(ctx context.Context, config *tls.Config) (*line, error) {
	to, err := net.ResolveUDPAddr("udp", e.cfg.Gateway)
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
func (e *Engine) dialTCP(ctx context.Context, config *tls.Config) (*line, error) {
	l, err := e.dialTLS(ctx, config)
	if err != nil {
		return nil, err
	}
	l.further = func(ctx context.Context) (*line, error) { return e.attach(ctx, l) }
	return l, nil
}

func (e *Engine) dialTLS(ctx context.Context, config *tls.Config) (*line, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	address := e.cfg.GatewayTCP
	if address == "" {
		address = e.cfg.Gateway
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	mux := transport.OverTLS(conn.(*tls.Conn), transport.Device, silence)
	hangUp := func() {
		_ = mux.CloseWithError(wire.CloseNormal, "")
		mux.Wait()
	}
	return &line{Conn: mux, way: wayTCP, hangUp: hangUp}, nil
}

// attach opens a further connection, bound to the first one by what both ends
// derived from it (spec/wire.md, Section 12.3), and is over with that one.
func (e *Engine) attach(ctx context.Context, first *line) (*line, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(first.Context(), cancel)()
	l, err := e.dialTLS(ctx, e.tlsConfig())
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
