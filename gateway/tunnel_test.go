// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"valise/bulletin"
	"valise/identity"
	"valise/transport"
	"valise/wire"
)

// secure is an authority that speaks TLS and says back what it hears.
func secure(t *testing.T, gw *authority) string {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*gw.gateway(t, "127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	return saysBack(t, ln)
}

// plain says back whatever it hears, without TLS: it is bytes that are counted.
func plain(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return saysBack(t, ln)
}

func saysBack(t *testing.T, ln net.Listener) string {
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return ln.Addr().String()
}

// tunnel opens one under an ALPN name.
func (d *testDevice) tunnel(protocol string) (transport.Conn, transport.Stream, wire.Code, error) {
	d.t.Helper()
	config := d.tlsConfig()
	config.NextProtos = []string{protocol}
	conn, err := dialRaw(d.t, d.gw.address, config)
	if err != nil {
		return nil, nil, 0, err
	}
	d.t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	stream, code, err := askTunnel(conn)
	return conn, stream, code, err
}

func askTunnel(conn transport.Conn) (transport.Stream, wire.Code, error) {
	stream, err := (&link{conn: conn}).openKind(wire.StreamTunnel)
	if err != nil {
		return nil, 0, err
	}
	_ = stream.SetDeadline(time.Now().Add(patience))
	frame, err := wire.Read(stream)
	if err != nil {
		return nil, 0, err
	}
	result, ok := frame.(*wire.Result)
	if !ok {
		return nil, 0, errors.New("no Result")
	}
	return stream, result.Code, nil
}

func (l *link) openKind(kind wire.StreamKind) (transport.Stream, error) {
	stream, err := l.conn.OpenStream(l.conn.Context())
	if err != nil {
		return nil, err
	}
	_, err = stream.Write([]byte{byte(kind)})
	return stream, err
}

// A device talks TLS with the authority through the gateway, also after its
// certificate has expired, and with nobody else; each refusal differs in one thing.
func TestTunnel(t *testing.T) { overBoth(t, testTunnel) }

func testTunnel(t *testing.T, by network) {
	a := newAuthority(t, "interieur.example")
	const day = 24 * time.Hour
	const ahead = 35 * day // of the gateway's clock
	gw := startGateway(t, gatewayOptions{
		network: by, authority: a, tunnel: secure(t, a), clock: func() time.Time { return time.Now().Add(ahead) },
	})
	good := newDeviceOf(t, gw, a, "good", newKey(t), 0, ahead+day)
	late := newDeviceOf(t, gw, a, "late", newKey(t), 0, ahead-29*day)
	tooLate := newDeviceOf(t, gw, a, "toolate", newKey(t), 0, ahead-31*day)
	lost := newDeviceOf(t, gw, a, "lost", newKey(t), 0, ahead-29*day)
	gw.SetDenied(map[identity.DeviceID]bool{lost.id: true})

	for _, d := range []*testDevice{good, late} {
		conn, stream, code, err := d.tunnel(wire.RenewProtocol)
		if err != nil || code != wire.OK {
			t.Fatalf("%s: %v, %v", d.local, code, err)
		}
		echo(t, d, stream)
		if _, code, err := askTunnel(conn); err != nil || code != wire.RateLimited {
			t.Errorf("%s: a second tunnel: %v, %v", d.local, code, err)
		}
		// The end may come before all of it is written.
		_, _ = (&link{conn: conn}).open(wire.StreamControl, &wire.Hello{Version: wire.Version, Begin: true})
		if code := (&link{conn: conn}).closed(t); code != wire.CloseProtocol {
			t.Errorf("%s: Hello on a connection for renewal: closed with %d", d.local, code)
		}
	}
	gw.audit.want(t, eventClosedConnection, "unexpected_stream")
	gw.audit.want(t, eventRefusedTunnel, "too_many_tunnels")
	gw.audit.want(t, eventTunnel, "")
	for d, reason := range map[*testDevice]string{tooLate: "expired", lost: "denied"} {
		if _, _, _, err := d.tunnel(wire.RenewProtocol); err == nil {
			t.Errorf("%s: a tunnel was opened", d.local)
		}
		gw.audit.want(t, eventRefusedConnection, reason)
	}
	if _, err := late.tryConnect(true, 0); err == nil {
		t.Error("an expired device was welcomed")
	}
	good.connect(true, 0)
	if code := good.code(&wire.Ping{}); code != wire.OK {
		t.Errorf("ping: %v", code)
	}
}

// echo speaks TLS with the authority through a tunnel.
func echo(t *testing.T, d *testDevice, stream transport.Stream) {
	t.Helper()
	config := d.tlsConfig()
	config.Certificates, config.NextProtos = nil, nil
	inner := tls.Client(streamConn{stream}, config)
	secret := bytes.Repeat([]byte("order a certificate "), 1000)
	go func() { _, _ = inner.Write(secret) }()
	got := make([]byte, len(secret))
	if _, err := io.ReadFull(inner, got); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("%s: through the tunnel came %d bytes, %v", d.local, len(got), err)
	}
}

type streamConn struct{ transport.Stream }

func (streamConn) LocalAddr() net.Addr  { return nil }
func (streamConn) RemoteAddr() net.Addr { return nil }

// A tunnel ends after so many bytes, with the device's standing, and where no
// authority is configured there is none.
func TestTunnelBounds(t *testing.T) {
	a := newAuthority(t, "interieur.example")
	gw := startGateway(t, gatewayOptions{authority: a, tunnel: plain(t)})
	d := newDevice(t, gw, "alice")
	_, stream, code, err := d.tunnel(wire.RenewProtocol)
	if err != nil || code != wire.OK {
		t.Fatalf("%v, %v", code, err)
	}
	_ = stream.SetDeadline(time.Now().Add(patience))
	go func() { _, _ = stream.Write(make([]byte, 4*tunnelBytes)) }()
	if n, _ := io.Copy(io.Discard, stream); n != tunnelBytes {
		t.Errorf("%d bytes came back, want %d", n, tunnelBytes)
	}
	until(t, "the tunnel is given back", func() bool {
		gw.Gateway.mu.Lock()
		defer gw.Gateway.mu.Unlock()
		return len(gw.tunnels) == 0
	})
	conn, _, code, err := d.tunnel(wire.RenewProtocol)
	if err != nil || code != wire.OK {
		t.Fatalf("%v, %v", code, err)
	}
	gw.SetDenied(map[identity.DeviceID]bool{d.id: true})
	if code := (&link{conn: conn}).closed(t); code != wire.CloseNotAdmitted {
		t.Errorf("closed with %d", code)
	}
	gw.SetDenied(nil)
	gw.SetStandings(bulletin.NewSet())
	none := startGateway(t, gatewayOptions{authority: a})
	other := newDevice(t, none, "bob")
	if _, _, code, err := other.tunnel(wire.RenewProtocol); err != nil || code != wire.NotFound {
		t.Errorf("without an authority: %v, %v", code, err)
	}
	none.audit.want(t, eventRefusedTunnel, "no_authority")
}

// A device opens a few tunnels at once and then one now and then, and all together have
// a bounded number of them; another device, and the same one later, is not kept out.
func TestTunnelsAreLimited(t *testing.T) {
	a := newAuthority(t, "interieur.example")
	var ahead atomic.Int64
	gw := startGateway(t, gatewayOptions{authority: a, tunnel: plain(t), clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	alice, bob := newDevice(t, gw, "alice"), newDevice(t, gw, "bob")
	open := func(d *testDevice) wire.Code {
		t.Helper()
		conn, _, code, err := d.tunnel(wire.RenewProtocol)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.CloseWithError(0, "")
		until(t, "the tunnel is given back", func() bool {
			gw.Gateway.mu.Lock()
			defer gw.Gateway.mu.Unlock()
			return !gw.tunnels[d.id]
		})
		return code
	}
	for i := range tunnelBurst {
		if code := open(alice); code != wire.OK {
			t.Fatalf("tunnel %d: %v", i, code)
		}
	}
	if code := open(alice); code != wire.RateLimited {
		t.Errorf("one tunnel more: %v", code)
	}
	gw.audit.want(t, eventRefusedTunnel, "tunnel_limited")
	gw.audit.wantNo(t, eventRefusedTunnel, "too_many_tunnels")
	ahead.Store(int64(tunnelPause))
	if code := open(alice); code != wire.OK {
		t.Errorf("after a pause: %v", code)
	}
	others := func(change func(id identity.DeviceID)) {
		gw.Gateway.mu.Lock()
		defer gw.Gateway.mu.Unlock()
		for i := range maxTunnels {
			change(identity.DeviceID{1, byte(i)})
		}
	}
	others(func(id identity.DeviceID) { gw.tunnels[id] = true })
	if code := open(bob); code != wire.RateLimited {
		t.Errorf("while all are taken: %v", code)
	}
	gw.audit.want(t, eventRefusedTunnel, "too_many_tunnels")
	others(func(id identity.DeviceID) { delete(gw.tunnels, id) })
	if code := open(bob); code != wire.OK {
		t.Errorf("another device: %v", code)
	}
}
