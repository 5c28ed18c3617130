// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"valise/wire"
)

// A Conn is one connection between a device and its gateway, after the TLS
// handshake. Its methods may be called by any goroutine.
type Conn interface {
	// Context ends with the connection; ClosedBy reads its cause.
	Context() context.Context
	// OpenStream waits until the peer allows one more stream. The peer learns of
	// it with the first byte.
	OpenStream(context.Context) (Stream, error)
	AcceptStream(context.Context) (Stream, error)
	// CloseWithError ends the connection and tells the peer why.
	CloseWithError(code wire.CloseCode, reason string) error
	RemoteAddr() net.Addr
	ConnectionState() tls.ConnectionState
	// RoundTrip is how long the fastest packet took there and back, and how long they
	// take now; 0 where there is no telling.
	RoundTrip() (least, now time.Duration)
}

// A Stream is a pair of byte streams with flow control of its own: one that is
// not read holds up no other. It has one reader and one writer.
type Stream interface {
	io.Reader
	io.Writer
	Close() error // ends what is sent; reading goes on
	CancelRead(wire.CloseCode)
	CancelWrite(wire.CloseCode)
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// A CloseError says that one side closed the connection.
type CloseError struct {
	Code   wire.CloseCode
	Reason string
	Remote bool // it was the peer
}

func (e *CloseError) Error() string {
	who := "this side"
	if e.Remote {
		who = "the other side"
	}
	return fmt.Sprintf("transport: closed by %s with code %d %.100q", who, e.Code, e.Reason)
}

// ClosedBy finds in an error, on either transport, that a side closed the
// connection; nil if it ended in another way.
func ClosedBy(err error) *CloseError {
	var closed *CloseError
	if errors.As(err, &closed) {
		return closed
	}
	var app *quic.ApplicationError
	if errors.As(err, &app) {
		return &CloseError{Code: wire.CloseCode(app.ErrorCode), Reason: app.ErrorMessage, Remote: app.Remote}
	}
	return nil
}
