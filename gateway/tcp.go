// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"valise/transport"
	"valise/wire"
)

// ServeTCP accepts connections over TCP and TLS until ctx ends, for devices whose
// network drops UDP. Certificates, key agreement and frames are those of QUIC; the
// streams are cut into records (package transport).
func (g *Gateway) ServeTCP(ctx context.Context, listener *net.TCPListener) error {
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	config := g.tlsConfig()
	var shaking sync.WaitGroup
	defer shaking.Wait()
	for {
		conn, err := listener.AcceptTCP()
		switch {
		case ctx.Err() != nil:
			if conn != nil {
				_ = conn.Close()
			}
			drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), replaceTimeout)
			defer cancel()
			return g.Drain(drain)
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // no descriptors or memory left: pass that on to nobody
			g.log.Error("a TCP connection was not accepted", "error", err)
			pause(ctx, acceptPause)
			continue
		}
		a, reason := g.begin(conn.RemoteAddr(), true)
		if reason != "" {
			_ = conn.SetLinger(0) // no memory for goodbyes
			_ = conn.Close()
			continue
		}
		// Never here: the system's queue of accepted connections is short.
		shaking.Add(1)
		go g.serveTCP(ctx, conn, config, a, &shaking)
	}
}

var errShut = errors.New("gateway: shutting down")

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// serveTCP runs one connection, from its handshake to its end. Only what has passed the
// handshake counts as a connection: nobody waits for strangers when the gateway stops.
func (g *Gateway) serveTCP(ctx context.Context, socket *net.TCPConn, config *tls.Config, a *attempt, shaking *sync.WaitGroup) {
	conn, err := g.shakeHands(ctx, socket, config, a)
	if err != nil {
		_ = socket.Close()
		g.conclude(a, err)
		shaking.Done()
		return
	}
	mux := transport.OverTLS(conn, transport.Gateway, idleTimeout)
	defer mux.Wait()
	entered := g.enter()
	shaking.Done()
	if !entered {
		g.conclude(a, errShut)
		_ = mux.CloseWithError(wire.CloseShutdown, "shutting down")
		return
	}
	defer g.active.Done()
	g.serve(mux, a)
	g.conclude(a, nil)
}

// shakeHands bounds a handshake in bytes and in time. Its first message comes from a
// machine; behind the later ones there may be a person.
func (g *Gateway) shakeHands(ctx context.Context, socket *net.TCPConn, config *tls.Config, a *attempt) (*tls.Conn, error) {
	bounded := &boundedConn{TCPConn: socket}
	bounded.left.Store(handshakeBytes)
	_ = socket.SetReadDeadline(time.Now().Add(g.limits.ClientHelloTime)) // until GetConfigForClient
	conn := tls.Server(bounded, config)
	limit, cancel := context.WithTimeout(context.WithValue(ctx, attemptKey{}, a), g.limits.HandshakeTime)
	defer cancel()
	err := conn.HandshakeContext(limit)
	bounded.left.Store(unbounded)
	return conn, err
}

// A boundedConn reads no more than left bytes: a handshake must not take in what
// nobody asked for.
type boundedConn struct {
	*net.TCPConn
	left atomic.Int64
}

const unbounded = -1

var errHandshakeSize = errors.New("gateway: the handshake is too large")

func (c *boundedConn) Read(p []byte) (int, error) {
	left := c.left.Load()
	switch {
	case left == unbounded:
		return c.TCPConn.Read(p)
	case left == 0:
		return 0, errHandshakeSize
	}
	n, err := c.TCPConn.Read(p[:min(int64(len(p)), left)])
	c.left.CompareAndSwap(left, left-int64(n))
	return n, err
}

// tcpFailure finds the reason code of a handshake that failed over TCP. crypto/tls
// has no typed errors there, so what is wrong follows from how far it came.
func (a *attempt) tcpFailure(cause error) string {
	var alert *net.OpError
	var stale tls.RecordHeaderError
	switch {
	case errors.Is(cause, errHandshakeSize):
		return "handshake_too_large"
	case errors.Is(cause, context.DeadlineExceeded), errors.Is(cause, os.ErrDeadlineExceeded):
		return "handshake_timeout"
	case errors.As(cause, &alert), errors.Is(cause, io.EOF), errors.Is(cause, io.ErrUnexpectedEOF), errors.Is(cause, context.Canceled):
		return "given_up_by_peer"
	case errors.As(cause, &stale):
		return "no_tls"
	case a.device.Load() != nil:
		return reasonPossession
	}
	switch hello := a.hello.Load(); {
	case hello == nil:
		return "handshake_failed"
	case !contains(hello.SupportedVersions, tls.VersionTLS13):
		return "tls_version"
	case !anyOf(hello.SupportedProtos, []string{wire.Protocol, wire.RenewProtocol}):
		return reasonProtocol
	case !anyOf(hello.SupportedCurves, hybridGroups):
		return "no_common_parameters"
	}
	return "no_certificate"
}

func anyOf[T comparable](list, wanted []T) bool {
	for _, w := range wanted {
		if contains(list, w) {
			return true
		}
	}
	return false
}
