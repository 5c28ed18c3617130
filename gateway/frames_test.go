// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"testing"
	"time"

	"valise/transport"
	"valise/wire"
)

// drip writes a frame's head and then a byte of its body now and then, until the
// connection ends.
func drip(l *link, stream transport.Stream, head ...byte) {
	_, _ = stream.Write(head)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for l.conn.Context().Err() == nil {
		if _, err := stream.Write([]byte{0}); err != nil {
			return
		}
		<-tick.C
	}
}

// A frame that drips in ends its connection when its time is over, on the stream for
// requests and on that for acknowledgements; a device that says nothing for longer, and
// then a whole frame, stays.
func TestSlowFrames(t *testing.T) { overBoth(t, testSlowFrames) }

func testSlowFrames(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by, limits: Limits{FrameTime: 500 * time.Millisecond}})
	quiet := newDevice(t, gw, "quiet")
	quiet.connect(true, 0)
	quiet.listen(0)
	for i, slow := range []func(d *testDevice){
		func(d *testDevice) { go drip(d.link, d.link.control, byte(wire.TypeSend), 0x10, 0, 0) },
		func(d *testDevice) { go drip(d.link, d.link.down, byte(wire.TypeAck), 0, 2, 0) },
	} {
		d := newDevice(t, gw, string(rune('a'+i)))
		d.connect(true, 0)
		d.listen(0)
		slow(d)
		if code := d.link.closed(t); code != wire.CloseProtocol {
			t.Errorf("device %d: closed with %d", i, code)
		}
	}
	gw.audit.wantCount(t, eventClosedConnection, "slow_frame", 2)
	quiet.ack(0)
	for range 2 {
		if code := quiet.code(&wire.Ping{}); code != wire.OK {
			t.Errorf("ping: %v", code)
		}
	}
	if err := quiet.link.conn.Context().Err(); err != nil {
		t.Error(err)
	}
}

// A frame that says what a stream is for is small: a larger one is refused before a
// byte of its body has come.
func TestLargeFirstFrames(t *testing.T) { overBoth(t, testLargeFirstFrames) }

func testLargeFirstFrames(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	for name, c := range map[string]struct {
		kind  wire.StreamKind
		frame wire.Type
		hello bool
	}{
		"hello":  {wire.StreamControl, wire.TypeHello, false},
		"attach": {wire.StreamAttach, wire.TypeAttach, false},
		"resume": {wire.StreamDelivery, wire.TypeResume, true},
		"put":    {wire.StreamBlobPut, wire.TypeBlobPut, true},
		"get":    {wire.StreamBlobGet, wire.TypeBlobGet, true},
	} {
		t.Run(name, func(t *testing.T) {
			before := gw.audit.count(eventClosedConnection, "malformed_frame")
			d := newDevice(t, gw, name)
			l := new(link)
			if c.hello {
				d.connect(true, 0)
				l = d.link
			} else if conn, err := dialRaw(t, gw.address, d.tlsConfig()); err == nil {
				l.conn = conn
			} else {
				t.Fatal(err)
			}
			stream, err := l.conn.OpenStream(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Write([]byte{byte(c.kind), byte(c.frame), 0, 2, 1}); err != nil {
				t.Fatal(err)
			}
			if code := l.closed(t); code != wire.CloseProtocol {
				t.Errorf("closed with %d", code)
			}
			gw.audit.wantCount(t, eventClosedConnection, "malformed_frame", before+1)
		})
	}
	// The control: what is as large as it may be passes.
	alice, _, ga, _ := pair(t, gw)
	data, id := randomFile(100)
	if code := alice.put(ga.ID(), id, data); code != wire.OK {
		t.Errorf("upload: %v", code)
	}
}

// Streams that a device has ended and stopped count while the gateway still serves them:
// here they wait for Welcome. When it has let go of them there is room for as many more.
func TestAbandonedStreamsCount(t *testing.T) { overBoth(t, testAbandonedStreamsCount) }

func testAbandonedStreamsCount(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	d := newDevice(t, gw, "alice")
	conn, err := dialRaw(t, gw.address, d.tlsConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0, "")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	abandon := func() {
		t.Helper()
		stream, err := conn.OpenStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = stream.Write([]byte{byte(wire.StreamBlobGet)})
		_ = stream.Close()
		stream.CancelRead(0)
	}
	for range maxStreams - 1 {
		abandon()
	}
	control, err := conn.OpenStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := conn.OpenStream(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("one stream more than may be served: %v", err)
	}
	if _, err := control.Write([]byte{byte(wire.StreamControl)}); err != nil {
		t.Fatal(err)
	}
	if err := wire.Write(control, &wire.Hello{Version: wire.Version, Incarnation: d.incarnation, Begin: true}); err != nil {
		t.Fatal(err)
	}
	if f, err := wire.Read(control); err != nil || f.Type() != wire.TypeWelcome {
		t.Fatalf("%+v, %v", f, err)
	}
	for range 2 * maxStreams {
		abandon()
	}
}
