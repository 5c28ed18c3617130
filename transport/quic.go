// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/quic-go/quic-go"

	"valise/wire"
)

// QUIC makes a Conn of a QUIC connection. Nothing is copied on the way: a Stream
// of it is a *quic.Stream with our codes.
func QUIC(c *quic.Conn) Conn { return quicConn{c} }

// quicConn is a pointer and nothing else, so that it costs no memory as a Conn.
type quicConn struct{ *quic.Conn }

func (c quicConn) OpenStream(ctx context.Context) (Stream, error) {
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	return quicStream{s}, nil
}

func (c quicConn) AcceptStream(ctx context.Context) (Stream, error) {
	s, err := c.Conn.AcceptStream(ctx)
	if err != nil {
		return nil, err
	}
	return quicStream{s}, nil
}

func (c quicConn) CloseWithError(code wire.CloseCode, reason string) error {
	return c.Conn.CloseWithError(quic.ApplicationErrorCode(code), reason)
}

func (c quicConn) ConnectionState() tls.ConnectionState { return c.Conn.ConnectionState().TLS }

func (c quicConn) RoundTrip() (least, now time.Duration) {
	s := c.ConnectionStats()
	return s.MinRTT, s.SmoothedRTT
}

type quicStream struct{ *quic.Stream }

func (s quicStream) CancelRead(code wire.CloseCode) {
	s.Stream.CancelRead(quic.StreamErrorCode(code))
}

func (s quicStream) CancelWrite(code wire.CloseCode) {
	s.Stream.CancelWrite(quic.StreamErrorCode(code))
}
