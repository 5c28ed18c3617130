// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"valise/transport"
	"valise/wire"
)

// A link is one connection to the gateway, after Welcome.
type link struct {
	line     *line
	control  transport.Stream
	delivery transport.Stream
	welcome  *wire.Welcome

	wmu  sync.Mutex // one writer at a time on control
	said wire.Last  // guarded by wmu; the last message written

	fmu   sync.Mutex
	files *line // guarded by fmu; a further connection, over TCP
	gone  bool  // guarded by fmu; no further one is made

	used atomic.Int64 // when something other than a sign of life was last asked or delivered

	mu      sync.Mutex
	next    uint32
	waiting map[uint32]chan wire.Answer
	err     error // why the link is dead

	pacer *transport.Pacer // of files that are sent

	dead chan struct{}
}

// tlsConfig presents the device's certificate, and accepts nobody but a gateway of
// the authority under the name that it was dialled by. Key agreement is hybrid;
// nothing else is offered. Sessions are not resumed: the card signs each time.
func (e *Engine) tlsConfig(name string) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{wire.Protocol},
		ServerName:   name,
		Certificates: []tls.Certificate{{Certificate: e.chain(), PrivateKey: e.cfg.Signer}},
		CurvePreferences: []tls.CurveID{
			tls.SecP384r1MLKEM1024, tls.SecP256r1MLKEM768, tls.X25519MLKEM768,
		},
		SessionTicketsDisabled: true,
		// The chain is judged by identity.Trust, against the pinned root alone.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			chain := make([][]byte, len(state.PeerCertificates))
			for i, c := range state.PeerCertificates {
				chain[i] = c.Raw
			}
			_, err := e.cfg.Trust.For(e.cfg.Address.Domain()).Gateway(chain, name, e.now())
			return err
		},
	}
}

// dial connects, says Hello and waits for Welcome: before that nothing is believed,
// because a QUIC dial can succeed although the gateway never accepts.
func (e *Engine) dial(ctx context.Context, hello *wire.Hello) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout+10*time.Second)
	defer cancel()
	line, err := e.reach(ctx, wire.Protocol)
	if err != nil {
		return nil, fmt.Errorf("connect to the gateway %s: %w", e.cfg.Gateway, closeReason(err))
	}
	return e.meet(ctx, line, hello)
}

// meet says Hello over a connection and waits for Welcome.
func (e *Engine) meet(ctx context.Context, line *line, hello *wire.Hello) (*link, error) {
	l := &link{line: line, pacer: transport.Over(line), waiting: make(map[uint32]chan wire.Answer), dead: make(chan struct{})}
	err := l.greet(ctx, hello, e.resume(hello))
	e.answered(line.way, err)
	if err != nil {
		l.close()
		err = closeReason(err)
		e.left(line.node, err)
		return nil, fmt.Errorf("greet the gateway %s: %w", line.node.udp, err)
	}
	e.places.reached(line.node)
	go l.answers()
	return l, nil
}

// close ends the connection and gives its socket back. A further one that is being
// made gives up when the first has ended.
func (l *link) close() {
	l.line.hangUp()
	l.fmu.Lock()
	further := l.files
	l.files, l.gone = nil, true
	l.fmu.Unlock()
	if further != nil {
		further.hangUp()
	}
}

// forFiles is the connection that files go over: over TCP a further one, made when
// it is needed first.
func (l *link) forFiles(ctx context.Context) (transport.Conn, error) {
	if l.line.further == nil {
		return l.line, nil
	}
	l.fmu.Lock()
	defer l.fmu.Unlock()
	switch {
	case l.gone:
		return nil, net.ErrClosed
	case l.files != nil && l.files.Context().Err() == nil:
		return l.files, nil
	}
	further, err := l.line.further(ctx)
	if err != nil {
		return nil, err
	}
	l.files = further
	return further, nil
}

// greet says Hello, and Resume behind it: what waits at the gateway arrives with its
// Welcome, one round trip after the handshake. A device that is behind reads none of
// it.
func (l *link) greet(ctx context.Context, hello *wire.Hello, resume *wire.Resume) error {
	var err error
	if l.control, err = l.line.OpenStream(ctx); err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	_ = l.control.SetDeadline(deadline)
	if err := sayFirst(l.control, wire.StreamControl, hello); err != nil {
		return err
	}
	if l.delivery, err = l.line.OpenStream(ctx); err != nil {
		return err
	}
	if err := sayFirst(l.delivery, wire.StreamDelivery, resume); err != nil {
		return err
	}
	f, err := wire.Read(l.control)
	if err != nil {
		return err
	}
	switch f := f.(type) {
	case *wire.Welcome:
		l.welcome = f
		return l.control.SetDeadline(time.Time{})
	case *wire.Result:
		return f.Code
	}
	return fmt.Errorf("%w: a frame of type %#02x instead of a welcome", wire.ErrMalformed, uint8(f.Type()))
}

// answers hands each answer to the call that waits for it.
func (l *link) answers() {
	for {
		f, err := wire.Read(l.control)
		if err != nil {
			l.fail(err)
			return
		}
		a, ok := f.(wire.Answer)
		if !ok {
			l.fail(wire.ErrMalformed)
			return
		}
		l.mu.Lock()
		ch := l.waiting[a.AnswerTo()]
		delete(l.waiting, a.AnswerTo())
		l.mu.Unlock()
		if ch != nil {
			ch <- a
		}
	}
}

// use notes that the link is in use.
func (l *link) use() { l.used.Store(time.Now().UnixNano()) }

// inUse says whether it was, in the last minute.
func (l *link) inUse() bool { return time.Since(time.Unix(0, l.used.Load())) < usedFor }

// call sends a request and waits for its answer. An error means that the link is
// of no further use.
func (l *link) call(ctx context.Context, r wire.Request) (wire.Answer, error) {
	l.use()
	return l.ask(ctx, r, 1, answerTimeout)
}

// ping fills a packet that is longer than the 42 bytes of a stateless reset: only to
// such a one does a gateway answer that does not know the connection.
func (l *link) ping(ctx context.Context) error {
	_, err := l.ask(ctx, &wire.Ping{}, 4, pingTimeout)
	return err
}

// ask writes a request a number of times in one packet and waits for the first answer.
func (l *link) ask(ctx context.Context, r wire.Request, times int, limit time.Duration) (wire.Answer, error) {
	ch := make(chan wire.Answer, times)
	l.mu.Lock()
	l.next++
	id := l.next
	l.waiting[id] = ch
	l.mu.Unlock()
	r.SetRequestID(id)
	frame, err := wire.Marshal(r)
	if err == nil {
		l.wmu.Lock()
		_, err = l.control.Write(bytes.Repeat(l.said.Shorten(frame, 0), times))
		l.wmu.Unlock()
	}
	if err != nil {
		return nil, l.fail(err)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case a := <-ch:
		return a, nil
	case <-l.dead:
		return nil, l.cause()
	case <-timer.C:
		return nil, l.fail(errors.New("the gateway does not answer"))
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// fail ends the link; the first reason stays.
func (l *link) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = closeReason(err)
		close(l.dead)
		code := wire.CloseNormal
		if errors.Is(err, wire.ErrMalformed) {
			code = wire.CloseProtocol
		}
		go l.line.CloseWithError(code, "")
	}
	return l.err
}

func (l *link) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// What a closed connection means to a person.
var (
	errReplaced    = errors.New("this device connected to the gateway from somewhere else")
	errNotAdmitted = errors.New("the gateway does not admit this device")
	errExpired     = errors.New("the device's certificate has expired")
)

// A shutdownError says that the gateway is being stopped, or cannot serve now, and
// when to come back, if it said so.
type shutdownError struct{ back time.Duration }

func (*shutdownError) Error() string { return "the gateway is being stopped" }

func closeReason(err error) error {
	if closed := transport.ClosedBy(err); closed != nil && closed.Remote {
		switch closed.Code {
		case wire.CloseReplaced:
			return errReplaced
		case wire.CloseNotAdmitted:
			return errNotAdmitted
		case wire.CloseExpired:
			return errExpired
		case wire.CloseShutdown:
			back, _ := wire.ParseBack(closed.Reason)
			return &shutdownError{back}
		}
	}
	return err
}
