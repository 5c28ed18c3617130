// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"crypto/tls"
	"runtime"
	"testing"
	"time"
	"weak"

	"valise/transport"
	"valise/wire"
)

// What a further connection leaves at the first one goes with it: a connection that
// stays for days sees many of them.
func TestAttachedConnectionIsForgotten(t *testing.T) {
	gw := startGateway(t, gatewayOptions{network: overTCP})
	d := newDevice(t, gw, "alice")
	d.connect(true, 0)
	conn, err := dialRaw(t, gw.address, d.tlsConfig())
	if err != nil {
		t.Fatal(err)
	}
	token := binding(t, d.link.conn.ConnectionState(), conn.ConnectionState())
	stream, err := (&link{conn: conn}).open(wire.StreamAttach, &wire.Attach{Token: token})
	if err == nil {
		_, err = wire.Read(stream)
	}
	if err != nil {
		t.Fatal(err)
	}
	kept := gw.attached()
	if runtime.GC(); kept.Value() == nil {
		t.Fatal("a connection in use is gone")
	}
	_ = conn.CloseWithError(0, "")
	until(t, "the connection is forgotten", func() bool {
		runtime.GC()
		return kept.Value() == nil
	})
	if code := d.code(&wire.Ping{}); code != wire.OK {
		t.Errorf("ping over the first: %v", code)
	}
}

// A further connection that comes while the session of the first goes on from writing its
// Welcome waits for that, and for no longer than both connections last.
func TestAttachedAtOnce(t *testing.T) {
	gw := startGateway(t, gatewayOptions{network: overTCP})
	d := newDevice(t, gw, "alice")
	d.connect(true, 0)
	first := &session{conn: d.link.conn, ready: make(chan struct{})}
	further := func() *session {
		conn, err := dialRaw(t, gw.address, d.tlsConfig())
		if err != nil {
			t.Fatal(err)
		}
		return &session{conn: conn}
	}
	ended := further()
	_ = ended.conn.CloseWithError(0, "")
	if first.bound(ended, [32]byte{}) {
		t.Error("a connection that has ended is attached")
	}
	other := further()
	time.AfterFunc(10*time.Millisecond, func() { close(first.ready) })
	if !first.bound(other, binding(t, first.conn.ConnectionState(), other.conn.ConnectionState())) {
		t.Error("refused, because the first connection's session was not there yet")
	}
	if first.bound(other, [32]byte{}) {
		t.Error("attached without the token")
	}
}

// attached finds the one further connection.
func (g *testGateway) attached() weak.Pointer[session] {
	g.Gateway.mu.Lock()
	defer g.Gateway.mu.Unlock()
	for s := range g.served {
		if s.attached {
			return weak.Make(s)
		}
	}
	return weak.Pointer[session]{}
}

func binding(t testing.TB, first, second tls.ConnectionState) [32]byte {
	t.Helper()
	token, err := transport.Binding(first, second)
	if err != nil {
		t.Fatal(err)
	}
	return token
}
