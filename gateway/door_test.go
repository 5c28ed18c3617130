// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"valise/transport"
	"valise/wire"
)

func udp(ip string) *net.UDPAddr { return &net.UDPAddr{IP: net.ParseIP(ip), Port: 4433} }

// One address fills its share of the open handshakes and no more; another one still
// gets in, until all are taken.
func TestDoorBoundsHandshakes(t *testing.T) {
	d := newDoor(Limits{Handshakes: 10, HandshakesPerSource: 5}.withDefaults())
	a, b, c := sourceOf(udp("192.0.2.1")), sourceOf(udp("2001:db8::1")), sourceOf(udp("2001:db8::ffff:2"))
	if b != c || a == b {
		t.Fatalf("sources %v, %v, %v: one subscriber's IPv6 addresses are one source", a, b, c)
	}
	for range 5 {
		if reason := d.enter(a, true); reason != "" {
			t.Fatal(reason)
		}
	}
	if reason := d.enter(a, true); reason != "too_many_handshakes_of_source" {
		t.Errorf("a sixth of one source: %q", reason)
	}
	for range 3 {
		if reason := d.enter(b, true); reason != "" {
			t.Fatal(reason)
		}
	}
	if reason := d.enter(c, true); reason != "too_many_handshakes_of_source" {
		t.Errorf("a fourth, where two are left: %q", reason)
	}
	// Two sources have taken what they could get, and there is room for a third.
	for i := range 2 {
		if reason := d.enter(sourceOf(udp(fmt.Sprintf("192.0.2.%d", 10+i))), true); reason != "" {
			t.Fatal(reason)
		}
	}
	if reason := d.enter(sourceOf(udp("192.0.2.3")), true); reason != "too_many_handshakes" {
		t.Errorf("an eleventh: %q", reason)
	}
	for range 5 {
		d.leave(a, false)
	}
	if reason := d.enter(a, true); reason != "" || d.count() != 6 || len(d.sources) != 4 {
		t.Errorf("after they ended: %q, %d open, %d sources", reason, d.count(), len(d.sources))
	}
}

// Who fails and fails has to wait; nobody is blamed for an address that was not
// proven, and nobody else pays.
func TestDoorBoundsFailures(t *testing.T) {
	d := newDoor(Limits{}.withDefaults())
	bad, good := sourceOf(udp("192.0.2.1")), sourceOf(udp("192.0.2.2"))
	for i := range failureBurst {
		for _, source := range []struct {
			failed bool
			reason string
		}{{true, d.enter(bad, true)}, {false, d.enter(good, true)}} {
			if source.reason != "" {
				t.Fatalf("attempt %d: %s", i, source.reason)
			}
		}
		d.leave(bad, true)
		d.leave(good, false)
	}
	if reason := d.enter(bad, true); reason != "too_many_failures_of_source" {
		t.Errorf("one failure more: %q", reason)
	}
	if !d.mustProve(bad) || d.mustProve(good) {
		t.Error("only who failed must prove its address")
	}
	if reason := d.enter(bad, false); reason != "" {
		t.Errorf("blamed for an address that may be forged: %q", reason)
	}
	if reason := d.enter(good, true); reason != "" {
		t.Errorf("the other address: %q", reason)
	}
	for i := range maxFailing + 10 {
		d.leave(sourceOf(&net.UDPAddr{IP: net.IPv4(10, byte(i>>16), byte(i>>8), byte(i))}), true)
	}
	if n := len(d.failing); n > maxFailing {
		t.Errorf("%d sources are remembered", n)
	}
}

// While many handshakes are open, newcomers prove their address by a Retry, and
// still get in; before that they need not.
func TestRetryUnderLoad(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	d := newDevice(t, gw, "alice")
	proven := func() bool {
		t.Helper()
		retries := &countingConn{PacketConn: listenAny(t)}
		tr := &quic.Transport{Conn: retries}
		defer tr.Close()
		to, _ := net.ResolveUDPAddr("udp", gw.address)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		conn, err := tr.Dial(ctx, to, d.tlsConfig(), &quic.Config{})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.CloseWithError(0, "")
		return retries.retries.Load() > 0
	}
	if proven() {
		t.Error("a Retry without load")
	}
	other := sourceOf(udp("192.0.2.1"))
	for range gw.limits.Handshakes / 2 {
		gw.door.enter(other, false)
	}
	if !proven() {
		t.Error("no Retry under load")
	}
	d.connect(true, 0)
	if code := d.code(&wire.Ping{}); code != wire.OK {
		t.Errorf("ping: %v", code)
	}
	for range gw.limits.Handshakes / 2 {
		gw.door.leave(other, false)
	}
	until(t, "no handshake open", func() bool { return gw.door.count() == 0 })
}

// countingConn counts the Retry packets (RFC 9000, Section 17.2.5) that arrive.
type countingConn struct {
	net.PacketConn
	retries atomic.Int64
}

func (c *countingConn) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(p)
	if n > 0 && p[0]&0xf0 == 0xf0 {
		c.retries.Add(1)
	}
	return n, from, err
}

func listenAny(t testing.TB) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// To an address that is not proven the gateway sends at most three times what came
// from there (RFC 9000, Section 8.1; quic-go lets the packet that reaches the limit
// out whole), and noise is answered by less than its own size.
func TestAmplification(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	d := newDevice(t, gw, "alice")
	d.connect(true, 0) // the control: this gateway answers
	real := listenAny(t)
	to, _ := net.ResolveUDPAddr("udp", gw.address)
	silent := &firstOnly{PacketConn: listenAny(t)}
	tr := &quic.Transport{Conn: silent}
	defer tr.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { // an answer came, and a second later there may be more of it
		for (silent.sent.Load() == 0 || silent.got.Load() < silent.sent.Load()) && ctx.Err() == nil {
			<-time.After(10 * time.Millisecond)
		}
		<-time.After(time.Second)
		cancel()
	}()
	if _, err := tr.Dial(ctx, to, d.tlsConfig(), &quic.Config{}); err == nil {
		t.Fatal("a client that never answers got a connection")
	}
	sent, got := silent.sent.Load(), silent.got.Load()
	if got < sent || got > 3*sent+1452 {
		t.Errorf("%d bytes were answered by %d", sent, got)
	}
	t.Logf("%d bytes of a first flight are answered by %d, retransmissions included", sent, got)
	for n := 1; n <= 1400; n += 37 {
		noise := make([]byte, n)
		noise[0] = 0x7f // looks like a short header
		_, _ = real.WriteTo(noise, to)
		long := make([]byte, min(n, 1199)) // too small for a first packet
		long[0] = 0xc3
		_, _ = real.WriteTo(long, to)
	}
	_ = real.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	total := 0
	for buf := make([]byte, 2000); ; {
		n, _, err := real.ReadFrom(buf)
		if err != nil {
			break
		}
		total += n
	}
	if total > 700*38 { // stateless resets are shorter than what they answer
		t.Errorf("noise was answered by %d bytes", total)
	}
}

// firstOnly sends what a client first says and nothing after that, as somebody
// would who forges a source address.
type firstOnly struct {
	net.PacketConn
	packets, sent, got atomic.Int64
}

func (f *firstOnly) WriteTo(p []byte, to net.Addr) (int, error) {
	if f.packets.Add(1) > 2 { // a hybrid key share takes two
		return len(p), nil
	}
	f.sent.Add(int64(len(p)))
	return f.PacketConn.WriteTo(p, to)
}

func (f *firstOnly) ReadFrom(p []byte) (int, net.Addr, error) {
	n, _, err := f.PacketConn.ReadFrom(p)
	f.got.Add(int64(n))
	if err != nil {
		return 0, nil, err
	}
	// The client must not react: what it reads is no packet of anybody's.
	return 0, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, nil
}

// Over TCP a handshake that is too large, is no TLS, or is broken off costs a
// bounded amount, leaves nothing behind, and has a reason in the audit stream.
func TestHostileHandshakesOverTCP(t *testing.T) {
	gw := startGateway(t, gatewayOptions{network: overTCP, limits: Limits{Handshakes: 40, HandshakesPerSource: 20}})
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", gw.address[len(overTCP):])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	ended := func(c net.Conn) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, net.ErrClosed) || isTimeout(err) {
			t.Fatalf("the gateway kept the connection: %v", err)
		}
	}
	noise := dial()
	_, _ = noise.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	ended(noise)
	gw.audit.want(t, eventRefusedConnection, "no_tls")

	// Empty handshake fragments without end: each is a valid TLS record.
	endless := dial()
	record := append([]byte{22, 3, 1, 0x40, 0}, make([]byte, 0x4000)...)
	record[5], record[6] = 1, 1 // a ClientHello of 64 KiB
	for range 8 {
		_, _ = endless.Write(record)
	}
	ended(endless)
	gw.audit.want(t, eventRefusedConnection, "handshake_too_large")

	for range 20 { // half open
		dial()
	}
	until(t, "twenty open handshakes", func() bool { return gw.door.count() == 20 })
	if c, err := net.Dial("tcp", gw.address[len(overTCP):]); err == nil { // or reset before the dial returns
		ended(c)
		_ = c.Close()
	}
	gw.audit.want(t, eventRefusedConnection, "too_many_handshakes_of_source")
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// A handshake that drips in ends when its time is over, however alive it looks; an
// honest one beside it is not disturbed.
func TestSlowHandshakeOverTCP(t *testing.T) {
	gw := startGateway(t, gatewayOptions{network: overTCP, limits: Limits{HandshakeTime: 2 * time.Second, ClientHelloTime: time.Hour}})
	socket, err := net.Dial("tcp", gw.address[len(overTCP):])
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	accepted := socket.LocalAddr()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		hello := append([]byte{22, 3, 1, 0x20, 0, 1, 0, 0x1f, 0xfc}, make([]byte, 0x1ffc)...)
		for _, b := range hello {
			if _, err := socket.Write([]byte{b}); err != nil {
				return
			}
			pause(ctx, 20*time.Millisecond)
		}
	}()
	until(t, "an open handshake", func() bool { return gw.door.count() == 1 })
	newDevice(t, gw, "alice").connect(true, 0)
	began := time.Now()
	_ = socket.SetReadDeadline(time.Now().Add(3 * gw.limits.HandshakeTime))
	if _, err := io.Copy(io.Discard, socket); isTimeout(err) {
		t.Fatalf("%v still drips after %v", accepted, time.Since(began))
	}
	line := gw.audit.want(t, eventRefusedConnection, "handshake_timeout")
	if line.attrs["remote"] != accepted.String() {
		t.Errorf("the line is about %s", line.attrs["remote"])
	}
}

// Over TCP who says nothing at all is sent away soon; behind a ClientHello somebody may
// be typing a PIN, for longer than that.
func TestSilentHandshakeOverTCP(t *testing.T) {
	gw := startGateway(t, gatewayOptions{network: overTCP, limits: Limits{ClientHelloTime: time.Second}})
	d := newDevice(t, gw, "alice")
	config := d.tlsConfig()
	certificate := config.Certificates[0]
	config.Certificates = nil
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		silent, err := net.Dial("tcp", gw.address[len(overTCP):])
		if err != nil {
			return nil, err
		}
		defer silent.Close()
		_ = silent.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, silent); isTimeout(err) {
			return nil, err
		}
		return &certificate, nil
	}
	conn, err := dialRaw(t, gw.address, config)
	if err != nil {
		t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	gw.audit.wantCount(t, eventRefusedConnection, "handshake_timeout", 1)
	until(t, "the slow one is served", func() bool { return gw.open.Load() == 1 })
}

// What has not passed the handshake is no connection: it takes nobody's place, and a
// gateway that stops does not wait for it.
func TestHandshakesAreNoConnections(t *testing.T) {
	gw := startGateway(t, gatewayOptions{
		network: overTCP, limits: Limits{Connections: 2, ClientHelloTime: time.Hour, HandshakeTime: time.Hour},
	})
	for range 5 {
		c, err := net.Dial("tcp", gw.address[len(overTCP):])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	until(t, "five open handshakes", func() bool { return gw.door.count() == 5 })
	newDevice(t, gw, "alice").connect(true, 0)
	newDevice(t, gw, "bob").connect(true, 0)
	gw.audit.wantNo(t, eventRefusedConnection, "too_many_connections")
	if _, err := newDevice(t, gw, "carol").tryConnect(true, 0); err == nil {
		t.Error("one connection more than there may be was welcomed")
	}
	gw.audit.want(t, eventRefusedConnection, "too_many_connections")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := gw.Drain(ctx); err != nil {
		t.Errorf("stopping waits for handshakes: %v", err)
	}
	if n := gw.door.count(); n != 5 {
		t.Errorf("%d open handshakes", n)
	}
}

// Over TCP a peer that names no protocol is refused, as one that names another one is.
func TestNoProtocolOverTCP(t *testing.T) {
	gw := startGateway(t, gatewayOptions{network: overTCP})
	config := newDevice(t, gw, "mallory").tlsConfig()
	config.NextProtos = nil
	if conn, err := dialRaw(t, gw.address, config); err == nil {
		(&link{conn: conn}).ended(t)
	}
	gw.audit.want(t, eventRefusedConnection, "wrong_protocol")
	if n := gw.open.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
	newDevice(t, gw, "alice").connect(true, 0)
}

// ended waits for the connection to end, in whatever way.
func (l *link) ended(t testing.TB) {
	t.Helper()
	select {
	case <-l.conn.Context().Done():
	case <-time.After(patience):
		t.Fatal("the connection stands")
	}
}

// A further connection serves files of the device whose first connection it is
// bound to: not without the token, not with that of another connection, and not
// after the first one has ended.
func TestAttachedConnection(t *testing.T) {
	gw := startGateway(t, gatewayOptions{network: overTCP})
	alice, bob, ga, _ := pair(t, gw)
	data, id := randomFile(2 << 20)
	attach := func(d *testDevice, token func(first, second tls.ConnectionState) [32]byte) (*link, error) {
		t.Helper()
		conn, err := dialRaw(t, gw.address, d.tlsConfig())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
		l := &link{conn: conn}
		stream, err := l.open(wire.StreamAttach, &wire.Attach{Token: token(d.link.conn.ConnectionState(), conn.ConnectionState())})
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.SetReadDeadline(time.Now().Add(patience))
		frame, err := wire.Read(stream)
		if err == nil {
			if r, ok := frame.(*wire.Result); !ok || r.Code != wire.OK {
				t.Fatalf("attach: %+v", frame)
			}
		}
		return l, err
	}
	if l, err := attach(alice, func(_, _ tls.ConnectionState) (none [32]byte) { return none }); err == nil {
		t.Error("attached without a token")
	} else if code := l.closed(t); code != wire.CloseProtocol {
		t.Errorf("closed with %d", code)
	}
	if _, err := attach(alice, func(_, second tls.ConnectionState) [32]byte {
		return binding(t, bob.link.conn.ConnectionState(), second)
	}); err == nil {
		t.Error("attached with the token of another device's connection")
	}
	if _, err := attach(alice, func(first, _ tls.ConnectionState) [32]byte { return binding(t, first, bob.link.conn.ConnectionState()) }); err == nil {
		t.Error("attached with the token of another further connection")
	}
	if n := gw.audit.count(eventClosedConnection, "not_attached"); n != 3 {
		t.Errorf("%d audit lines not_attached, want 3", n)
	}
	files, err := attach(alice, func(first, second tls.ConnectionState) [32]byte { return binding(t, first, second) })
	if err != nil {
		t.Fatal(err)
	}
	first := alice.link
	alice.link = files
	if code := alice.put(ga.ID(), id, data); code != wire.OK {
		t.Fatalf("upload over the further connection: %v", code)
	}
	alice.link = first
	if code := alice.code(&wire.Ping{}); code != wire.OK {
		t.Errorf("ping over the first: %v", code)
	}
	_ = first.conn.CloseWithError(0, "")
	files.closed(t)
	second, err := attach(bob, func(first, second tls.ConnectionState) [32]byte { return binding(t, first, second) })
	if err != nil {
		t.Fatal(err)
	}
	_, _ = second.open(wire.StreamDelivery, &wire.Resume{}) // it may be closed before Resume is written
	if code := second.closed(t); code != wire.CloseProtocol {
		t.Errorf("a delivery stream on a further connection: closed with %d", code)
	}
	gw.audit.want(t, eventClosedConnection, "unexpected_stream")
}

// A gateway that stops tells each device when to come back, and not all the same;
// devices that said nothing yet are told too, on both transports.
func TestShutdownSpreadsItsDevices(t *testing.T) { overBoth(t, testShutdownSpreadsItsDevices) }

func testShutdownSpreadsItsDevices(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	var links []*link
	for i := range 6 {
		d := newDevice(t, gw, fmt.Sprintf("d%d", i))
		if i > 0 {
			d.connect(true, 0)
			links = append(links, d.link)
			continue
		}
		conn, err := dialRaw(t, gw.address, d.tlsConfig())
		if err != nil {
			t.Fatal(err)
		}
		links = append(links, &link{conn: conn})
	}
	until(t, "six connections", func() bool {
		gw.Gateway.mu.Lock()
		defer gw.Gateway.mu.Unlock()
		return len(gw.served) == 6
	})
	gw.stop()
	seen := make(map[time.Duration]bool)
	for i, l := range links {
		if code := l.closed(t); code != wire.CloseShutdown {
			t.Errorf("device %d: closed with %d", i, code)
		}
		back, ok := wire.ParseBack(transport.ClosedBy(context.Cause(l.conn.Context())).Reason)
		if !ok || back < backLeast || back > 2*backLeast {
			t.Errorf("device %d is told to come back in %v, %v", i, back, ok)
		}
		seen[back] = true
	}
	if len(seen) < 3 {
		t.Errorf("six devices come back at %d different times", len(seen))
	}
	for range 100 {
		if d := (&Gateway{others: new(others)}).comeBack(30_000); d < backLeast || d > 100*time.Second+backLeast {
			t.Fatalf("one of 30,000 is told %v", d)
		}
	}
}
