// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"valise/transport"
	"valise/wire"
)

// ErrNoTunnel says that the gateway carries nothing to the authority.
var ErrNoTunnel = errors.New("the gateway does not carry connections to the authority")

// DialAuthority connects to the authority at an address, directly or, where it does
// not answer, through the gateway, which sees only that connection's ciphertext
// (spec/wire.md, Section 13). It fits Enrollment.Dial. The gateway decides where the
// tunnel ends: what answers there proves itself in TLS, as always.
func (e *Engine) DialAuthority(ctx context.Context, network, address string) (net.Conn, error) {
	direct, cancel := context.WithTimeout(ctx, directPatience)
	conn, err := (&net.Dialer{}).DialContext(direct, network, address)
	cancel()
	if err == nil || ctx.Err() != nil {
		return conn, err
	}
	tunnel, tunnelErr := e.tunnel(ctx)
	if tunnelErr != nil {
		return nil, errors.Join(err, fmt.Errorf("through the gateway: %w", tunnelErr))
	}
	e.cfg.Log.Info("the authority is reached through the gateway", "authority", address)
	return tunnel, nil
}

// tunnel opens one over a connection of its own, which may do nothing else: a device
// whose certificate has just expired has no other one.
func (e *Engine) tunnel(ctx context.Context) (net.Conn, error) {
	l, err := e.reach(ctx, wire.RenewProtocol)
	if err != nil {
		return nil, err
	}
	s, err := openTunnel(ctx, l)
	e.answered(l.way, err)
	if err != nil {
		l.hangUp()
		return nil, closeReason(err)
	}
	return &tunnelConn{s, l}, nil
}

func openTunnel(ctx context.Context, l *line) (transport.Stream, error) {
	s, err := l.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	_ = s.SetDeadline(time.Now().Add(answerTimeout))
	if _, err := s.Write([]byte{byte(wire.StreamTunnel)}); err != nil {
		return nil, err
	}
	f, err := wire.Read(s)
	if err != nil {
		return nil, err
	}
	switch r, ok := f.(*wire.Result); {
	case !ok:
		return nil, wire.ErrMalformed
	case r.Code == wire.NotFound:
		return nil, ErrNoTunnel
	case r.Code != wire.OK:
		return nil, r.Code
	}
	return s, s.SetDeadline(time.Time{})
}

// tunnelConn is a tunnel as package net has connections.
type tunnelConn struct {
	transport.Stream
	line *line
}

// Close ends the tunnel and its connection.
func (c *tunnelConn) Close() error {
	c.line.hangUp()
	return nil
}

func (c *tunnelConn) LocalAddr() net.Addr  { return tunnelAddr{} }
func (c *tunnelConn) RemoteAddr() net.Addr { return c.line.RemoteAddr() }

type tunnelAddr struct{}

func (tunnelAddr) Network() string { return "tunnel" }
func (tunnelAddr) String() string  { return "tunnel" }

// forProtocol is the device's side of a handshake under another ALPN name.
func forProtocol(config *tls.Config, protocol string) *tls.Config {
	config.NextProtos = []string{protocol}
	return config
}
