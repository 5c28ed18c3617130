// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"time"
)

// errUDPPasses ends a connection over TCP when QUIC is possible again.
var errUDPPasses = errors.New("UDP passes again")

// lookOut ends a connection over TCP when UDP passes again.
func (e *Engine) lookOut(ctx context.Context, l *link) error {
	if l.line.way != wayTCP {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	for {
		if !sleep(ctx, min(e.ways.until().Sub(e.now()), quicSeldom)) {
			return context.Cause(ctx)
		}
		if udpPasses(ctx, l.line.node.udp, probeTries) == answered {
			e.ways.retry()
			return errUDPPasses
		}
		e.ways.closed(e.now())
	}
}

// unknownVersion is one that nobody will ever speak (RFC 9000, Section 15): a server
// answers it with the versions that it does speak, and keeps nothing.
var unknownVersion = []byte{0x1a, 0x2a, 0x3a, 0x4a}

// What became of a question whether a QUIC server is there.
type echo int

const (
	silent   echo = iota
	answered      // by something that speaks QUIC
	refused       // by a host on which nothing listens
)

// udpPasses asks whether a QUIC server answers at all. An answer proves nothing about
// who gave it; that is for the handshake.
func udpPasses(ctx context.Context, address string, tries int) echo {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", address)
	if err != nil {
		return silent
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	question, answer := versionProbe()
	refusals := 0
	for range tries {
		_, err := conn.Write(question)
		n, buf := 0, make([]byte, 1500)
		if err == nil {
			_ = conn.SetReadDeadline(time.Now().Add(probeWait))
			n, err = conn.Read(buf)
		}
		switch {
		case err == nil && bytes.HasPrefix(buf[1:max(n, 1)], answer):
			return answered
		case ctx.Err() != nil:
			return silent
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			if refusals++; refusals >= 2 || tries == 1 {
				return refused
			}
			if !sleep(ctx, probeWait/10) {
				return silent
			}
		}
	}
	return silent
}

// versionProbe makes a packet with a long header (RFC 9000, Section 17.2) and what
// comes after the first byte of its answer (Section 17.2.1): version 0, and our two
// connection ids exchanged.
func versionProbe() (question, answer []byte) {
	const length = 8
	ids := make([]byte, 2*length)
	rand.Read(ids)
	question = append([]byte{0xc0}, unknownVersion...)
	answer = make([]byte, 4)
	for i := range 2 {
		question = append(append(question, length), ids[i*length:][:length]...)
		answer = append(append(answer, length), ids[(1-i)*length:][:length]...)
	}
	return append(question, make([]byte, 1200-len(question))...), answer
}
