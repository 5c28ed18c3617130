// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"valise/wire"
)

const patience = 20 * time.Second

// pairOf makes two ends of a real TCP connection with TLS 1.3.
func pairOf(t testing.TB) (device, gateway *Mux) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := tcpPair(t)
	server := tls.Server(b, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	client := tls.Client(a, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	device, gateway = OverTLS(client, Device, patience), OverTLS(server, Gateway, patience)
	t.Cleanup(func() {
		_, _ = device.CloseWithError(0, ""), gateway.CloseWithError(0, "")
		device.Wait()
		gateway.Wait()
	})
	return device, gateway
}

func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err == nil {
		b, err = ln.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func open(t testing.TB, m *Mux, first string) Stream {
	t.Helper()
	s, err := m.OpenStream(t.Context())
	if err == nil {
		_, err = s.Write([]byte(first))
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func accept(t testing.TB, m *Mux) Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := m.AcceptStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func expect(t testing.TB, s Stream, want string) {
	t.Helper()
	got := make([]byte, len(want))
	_ = s.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(s, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

// Megabytes go both ways on several streams at one time, whole and in order.
func TestMuxCarriesStreams(t *testing.T) {
	device, gateway := pairOf(t)
	data := make([]byte, 3*Window+12345)
	_, _ = rand.Read(data)
	var work sync.WaitGroup
	for range 4 {
		s := open(t, device, "k")
		work.Go(func() {
			_, _ = s.Write(data)
			_ = s.Close()
		})
		work.Go(func() {
			if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, data) {
				t.Errorf("the device read %d bytes, %v", len(got), err)
			}
		})
		other := accept(t, gateway)
		work.Go(func() {
			expect(t, other, "k")
			if got, err := io.ReadAll(other); err != nil || !bytes.Equal(got, data) {
				t.Errorf("the gateway read %d bytes, %v", len(got), err)
			}
			_, _ = other.Write(data)
			_ = other.Close()
		})
	}
	work.Wait()
}

// A stream that nobody reads takes its window and no more; another one goes on.
func TestMuxStalledStreamHoldsUpNoOther(t *testing.T) {
	device, gateway := pairOf(t)
	requests, deliveries := open(t, device, "c"), open(t, device, "d")
	up, down := accept(t, gateway), accept(t, gateway)
	expect(t, up, "c")
	expect(t, down, "d")
	_ = down.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	n, err := down.Write(make([]byte, 4*Window))
	if n != Window || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes were taken, %v; want %d", n, err, Window)
	}
	for range 100 {
		if _, err := requests.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		expect(t, up, "ping")
		_, _ = up.Write([]byte("pong"))
		expect(t, requests, "pong")
	}
	// The control: read on, and it flows again.
	_ = down.SetWriteDeadline(time.Now().Add(patience))
	go func() { _, _ = io.CopyN(io.Discard, deliveries, 3*Window) }()
	if n, err := down.Write(make([]byte, 2*Window)); err != nil || n != 2*Window {
		t.Errorf("after reading: %d, %v", n, err)
	}
}

// Giving up one direction reaches the other side, and makes room for a new stream.
func TestMuxGivesUpStreams(t *testing.T) {
	device, gateway := pairOf(t)
	for range 3 * MaxStreams {
		s := open(t, device, "x")
		other := accept(t, gateway)
		expect(t, other, "x")
		s.CancelWrite(7)
		_, err := other.Read(make([]byte, 1))
		var given *StreamError
		if !errors.As(err, &given) || given.Code != 7 || !given.Remote {
			t.Fatalf("reading a stream that was given up: %v", err)
		}
		s.CancelRead(8)
		_ = other.SetWriteDeadline(time.Now().Add(patience))
		for err = nil; err == nil; {
			_, err = other.Write(make([]byte, 1000))
		}
		if !errors.As(err, &given) || given.Code != 8 || !given.Remote {
			t.Fatalf("writing to a stream that was given up: %v", err)
		}
		_ = other.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range MaxStreams { // all slots came back
		if _, err := device.OpenStream(ctx); err != nil {
			t.Fatal(err)
		}
	}
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := device.OpenStream(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one stream too many: %v", err)
	}
}

// A device that stops and resets its streams has no more of them open than others:
// each counts until whoever serves it lets go, and not one record longer.
func TestMuxServedStreamsCount(t *testing.T) {
	a, b := tcpPair(t)
	m := newMux(b, Gateway, patience)
	defer m.CloseWithError(0, "")
	abandoned := func(stream uint32) []byte {
		raw := append(header{kindData, stream, 1}.append(nil), 'x')
		return appendNumber(appendNumber(raw, kindStop, stream, 7), kindReset, stream, 7)
	}
	for id := range uint32(MaxStreams) {
		_, _ = a.Write(abandoned(id + 1))
	}
	var served []Stream
	for range MaxStreams {
		served = append(served, accept(t, m))
	}
	last := served[MaxStreams-1]
	_ = last.SetDeadline(time.Now().Add(patience))
	var given *StreamError
	for err := error(nil); !errors.As(err, &given); {
		if _, err = last.Write([]byte("x")); err != nil && !errors.As(err, &given) {
			t.Fatalf("writing to a stream that is not wanted: %v", err)
		}
	}
	// The control: who lets go of one makes room for one.
	_ = last.Close()
	_ = a.SetReadDeadline(time.Now().Add(patience))
	for answer := [headerLen]byte{}; kind(answer[0]) != kindReset; {
		if _, err := io.ReadFull(a, answer[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, a, int64(binary.BigEndian.Uint16(answer[5:]))); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = a.Write(abandoned(MaxStreams + 1))
	accept(t, m)
	if m.Context().Err() != nil {
		t.Fatalf("ended by %v", context.Cause(m.Context()))
	}
	_, _ = a.Write(abandoned(MaxStreams + 2))
	select {
	case <-m.Context().Done():
	case <-time.After(patience):
		t.Fatal("one stream more than may be open is served")
	}
	if err := context.Cause(m.Context()); !errors.Is(err, ErrFraming) {
		t.Errorf("ended by %v", err)
	}
}

// Nobody accepts, and the peer opens and abandons streams all the same: the reader
// never waits for room, so that the connection can always be closed.
func TestMuxNobodyAccepts(t *testing.T) {
	a, b := tcpPair(t)
	m := newMux(b, Gateway, patience)
	for id := range uint32(3 * MaxStreams) {
		raw := append(header{kindData, id + 1, 1}.append(nil), 'x')
		_, _ = a.Write(appendNumber(appendNumber(raw, kindStop, id+1, 7), kindReset, id+1, 7))
	}
	closed := make(chan struct{})
	go func() {
		<-m.Context().Done()
		m.Wait()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("the connection does not end")
	}
}

// The reason for the end arrives although the other side was writing.
func TestMuxCloseArrives(t *testing.T) {
	device, gateway := pairOf(t)
	s := open(t, device, "x")
	go func() {
		for {
			if _, err := s.Write(make([]byte, 10_000)); err != nil {
				return
			}
		}
	}()
	expect(t, accept(t, gateway), "x")
	_ = gateway.CloseWithError(wire.CloseNotAdmitted, "suspended")
	select {
	case <-device.Context().Done():
	case <-time.After(patience):
		t.Fatal("the device was not told")
	}
	end := ClosedBy(context.Cause(device.Context()))
	if end == nil || end.Code != wire.CloseNotAdmitted || end.Reason != "suspended" || !end.Remote {
		t.Errorf("the device heard %v", context.Cause(device.Context()))
	}
	if own := ClosedBy(context.Cause(gateway.Context())); own == nil || own.Remote {
		t.Errorf("the gateway believes %v", own)
	}
	if _, err := device.OpenStream(t.Context()); ClosedBy(err) == nil {
		t.Errorf("a stream on a closed connection: %v", err)
	}
}

// What breaks the rules ends the connection; each attack differs in one thing
// from the honest records before it.
func TestMuxRefusals(t *testing.T) {
	data := func(stream uint32, body string) []byte {
		return append(header{kindData, stream, len(body)}.append(nil), body...)
	}
	tests := map[string][]byte{
		"unknown kind":                   header{9, 1, 0}.append(nil),
		"a number left out":              data(3, "x"),
		"a stream of number 0":           data(0, "x"),
		"empty data":                     data(2, ""),
		"a record above its size":        header{kindData, 2, maxData + 1}.append(nil),
		"the end of an unknown stream":   header{kindEnd, 2, 0}.append(nil),
		"an end with a body":             append(header{kindEnd, 1, 1}.append(nil), 0),
		"credit for an unknown stream":   appendNumber(nil, kindCredit, 2, 1),
		"credit of nothing":              appendNumber(nil, kindCredit, 1, 0),
		"credit beyond the window":       appendNumber(nil, kindCredit, 1, Window+1),
		"a short reset":                  append(header{kindReset, 1, 2}.append(nil), 0, 0),
		"a reason that is not printable": appendClose(nil, 0, "\x1b[2J"),
		"data after the end":             append(header{kindEnd, 1, 0}.append(nil), data(1, "x")...),
		"two ends":                       append(header{kindEnd, 1, 0}.append(nil), appendNumber(nil, kindReset, 1, 0)...),
		"more than the window":           bytes.Repeat(data(1, string(make([]byte, 16<<10-7))), Window>>14+1),
		"a stream too many": func() (out []byte) {
			for id := range uint32(MaxStreams) {
				out = append(out, data(id+2, "x")...)
			}
			return out
		}(),
	}
	for name, attack := range tests {
		t.Run(name, func(t *testing.T) {
			a, b := tcpPair(t)
			m := newMux(b, Gateway, patience)
			defer m.CloseWithError(0, "")
			if _, err := a.Write(data(1, "honest")); err != nil {
				t.Fatal(err)
			}
			expect(t, accept(t, m), "honest")
			if m.Context().Err() != nil {
				t.Fatal("an honest record ended the connection")
			}
			_, _ = a.Write(attack)
			select {
			case <-m.Context().Done():
			case <-time.After(patience):
				t.Fatal("the connection goes on")
			}
			if err := context.Cause(m.Context()); !errors.Is(err, ErrFraming) {
				t.Fatalf("ended by %v", err)
			}
			_ = a.SetReadDeadline(time.Now().Add(patience))
			var head [headerLen + 4]byte
			if _, err := io.ReadFull(a, head[:]); err != nil || kind(head[0]) != kindClose || binary.BigEndian.Uint32(head[headerLen:]) != uint32(wire.CloseProtocol) {
				t.Errorf("the peer was told %x, %v", head, err)
			}
		})
	}
}

// A record that drips in, byte for byte, ends with the idle time of one record; a
// peer that takes nothing ends after writeStall, and one that sends whole records
// stays.
func TestMuxSlowDrip(t *testing.T) {
	const idle = time.Second
	drip := func(t *testing.T, pieces [][]byte) time.Duration {
		a, b := tcpPair(t)
		m := newMux(b, Gateway, idle)
		defer m.CloseWithError(0, "")
		began := time.Now()
		tick := time.NewTicker(idle / 4)
		defer tick.Stop()
		for _, p := range pieces {
			_, _ = a.Write(p)
			select {
			case <-m.Context().Done():
				return time.Since(began)
			case <-tick.C:
			}
		}
		return 0
	}
	whole := append(header{kindData, 1, 16}.append(nil), make([]byte, 16)...)
	var bytewise, records [][]byte
	for i := range whole {
		bytewise = append(bytewise, whole[i:i+1])
	}
	for range 6 {
		records = append(records, append(header{kindData, 1, 1}.append(nil), 0))
	}
	if took := drip(t, bytewise); took == 0 {
		t.Error("a record that drips in held the connection to its end")
	}
	if took := drip(t, records); took != 0 {
		t.Errorf("whole records ended the connection after %v", took)
	}
}

// Whatever arrives, the reader neither panics nor keeps more than the windows.
func FuzzMux(f *testing.F) {
	f.Add(append(header{kindData, 1, 1}.append(nil), 1))
	f.Add(appendNumber(append(header{kindData, 1, 1}.append(nil), 1), kindCredit, 1, 1))
	f.Add(appendClose(nil, 4, "back=3"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := &Mux{role: Gateway, arrivals: make(chan *muxStream, MaxStreams), streams: make(map[uint32]*muxStream), flushing: true}
		m.ctx, m.cancel = context.WithCancelCause(t.Context())
		for len(raw) >= headerLen {
			h, err := parseHeader((*[headerLen]byte)(raw))
			if err != nil {
				return
			}
			if again := h.append(nil); !bytes.Equal(again, raw[:headerLen]) {
				t.Fatalf("%x is written as %x", raw[:headerLen], again)
			}
			if raw = raw[headerLen:]; len(raw) < h.length {
				return
			}
			if m.take(h, raw[:h.length]) != nil {
				return
			}
			raw = raw[h.length:]
			if len(m.streams) > MaxStreams {
				t.Fatalf("%d streams", len(m.streams))
			}
			for _, s := range m.streams {
				if s.unread.Len() > Window || s.credit > Window || s.room < 0 {
					t.Fatalf("%d bytes unread, credit %d, room %d", s.unread.Len(), s.credit, s.room)
				}
			}
		}
	})
}
