// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// vpcd is the driver's end of the connection.
type vpcd struct {
	t    *testing.T
	conn net.Conn
}

func (v vpcd) send(body ...byte) {
	v.t.Helper()
	if _, err := v.conn.Write(frame(body)); err != nil {
		v.t.Fatal(err)
	}
}

func (v vpcd) receive() []byte {
	v.t.Helper()
	var head [2]byte
	if _, err := io.ReadFull(v.conn, head[:]); err != nil {
		v.t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(v.conn, body); err != nil {
		v.t.Fatal(err)
	}
	return body
}

// startVPCD connects a card to a listener in the driver's place.
func startVPCD(t *testing.T, ctx context.Context) (vpcd, <-chan error) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	card, err := New(Config{Root: testRoot(t)})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, conn.(*net.TCPConn), card) }()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return vpcd{t, server}, done
}

func TestServe(t *testing.T) {
	v, done := startVPCD(t, t.Context())
	v.send(vpcdATR)
	if got := v.receive(); !bytes.Equal(got, atr) {
		t.Errorf("ATR %x", got)
	}
	selectPIV := append([]byte{0, insSelect, 4, 0, 5}, aidPIV[:5]...)
	v.send(selectPIV...)
	if got := v.receive(); !bytes.Equal(got, []byte{0x69, 0x85}) {
		t.Errorf("without power: %x", got)
	}
	v.send(vpcdPowerOn)
	v.send(selectPIV...)
	if got := v.receive(); !bytes.HasSuffix(got, []byte{0x90, 0x00}) {
		t.Errorf("with power: %x", got)
	}
	v.send(vpcdReset)
	v.send(0, insGetVersion, 0, 0, 0)
	if got := v.receive(); !bytes.Equal(got, []byte{0x6d, 0x00}) {
		t.Errorf("after reset nothing is selected: %x", got)
	}
	v.send()    // an empty message is no APDU
	v.receive() // and is answered with a status
	v.send(9)   // an unknown control message is passed over
	v.send(vpcdPowerOff)
	v.send(vpcdATR)
	v.receive()
	v.conn.Close()
	if err := <-done; err != nil {
		t.Errorf("reader went away: %v", err)
	}
}

// Cancelling is pulling the card: the driver sees the connection end.
func TestServePulled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	v, done := startVPCD(t, ctx)
	v.send(vpcdATR)
	v.receive()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("pulled: %v", err)
	}
	if _, err := v.conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open")
	}
}

// vpcd writes the length and the body of a message apart, with Nagle's
// algorithm on: unless the card acknowledges at once, every command waits for
// the kernel's delayed acknowledgement, 40 ms.
func TestServeAcknowledgesAtOnce(t *testing.T) {
	v, _ := startVPCD(t, t.Context())
	if err := v.conn.(*net.TCPConn).SetNoDelay(false); err != nil {
		t.Fatal(err)
	}
	const rounds = 50
	start := time.Now()
	for range rounds {
		message := frame([]byte{vpcdATR})
		for _, part := range [][]byte{message[:2], message[2:]} {
			if _, err := v.conn.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		v.receive()
	}
	if each := time.Since(start) / rounds; each > 20*time.Millisecond {
		t.Errorf("a command takes %v", each)
	}
}
