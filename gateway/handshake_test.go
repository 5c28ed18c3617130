// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"valise/identity"
	"valise/wire"
)

// Each intruder differs from an honest device in one property; the audit stream
// names it, and the honest device gets in afterwards.
func TestHandshakeRefusals(t *testing.T) { overBoth(t, testHandshakeRefusals) }

func testHandshakeRefusals(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	stranger := newAuthority(t, gw.authority.domain)
	tests := []struct {
		reason string
		config func(t *testing.T) *tls.Config
	}{
		{"self_signed", func(t *testing.T) *tls.Config {
			d := newDevice(t, gw, "mallory")
			c := d.tlsConfig()
			leaf, err := x509.ParseCertificate(d.chain[0])
			if err != nil {
				t.Fatal(err)
			}
			leaf.SerialNumber = big.NewInt(7)
			c.Certificates[0].Certificate = [][]byte{sign(t, leaf, leaf, d.key.Public(), d.key).Raw}
			return c
		}},
		{"unknown_authority", func(t *testing.T) *tls.Config {
			return newDeviceOf(t, gw, stranger, "mallory", newKey(t), -time.Hour, time.Hour).tlsConfig()
		}},
		{"expired", func(t *testing.T) *tls.Config {
			return newDeviceOf(t, gw, gw.authority, "mallory", newKey(t), -2*time.Hour, -time.Hour).tlsConfig()
		}},
		{"not_yet_valid", func(t *testing.T) *tls.Config {
			return newDeviceOf(t, gw, gw.authority, "mallory", newKey(t), time.Hour, 2*time.Hour).tlsConfig()
		}},
		{"wrong_usage", func(t *testing.T) *tls.Config { // another gateway's certificate
			c := newDevice(t, gw, "mallory").tlsConfig()
			c.Certificates[0] = *gw.authority.gateway(t, "127.0.0.2")
			return c
		}},
		{"possession_failed", func(t *testing.T) *tls.Config { // a copied certificate, without its key
			d := newDevice(t, gw, "victim")
			c := d.tlsConfig()
			c.Certificates[0].PrivateKey = newKey(t)
			return c
		}},
		{"no_certificate", func(t *testing.T) *tls.Config {
			c := newDevice(t, gw, "mallory").tlsConfig()
			c.Certificates = nil
			return c
		}},
		{"no_common_parameters", func(t *testing.T) *tls.Config { // no post-quantum part
			c := newDevice(t, gw, "mallory").tlsConfig()
			c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}
			return c
		}},
		{"wrong_protocol", func(t *testing.T) *tls.Config {
			c := newDevice(t, gw, "mallory").tlsConfig()
			c.NextProtos = []string{"h3"}
			return c
		}},
	}
	for _, test := range tests {
		t.Run(test.reason, func(t *testing.T) {
			config := test.config(t)
			if conn, err := dialRaw(t, gw.address, config); err == nil {
				// A dial may succeed before the gateway has judged the client's
				// last flight; the connection must then end by itself.
				select {
				case <-conn.Context().Done():
				case <-time.After(patience):
					t.Fatal("the connection stands")
				}
			}
			line := gw.audit.want(t, eventRefusedConnection, test.reason)
			if line.attrs["remote"] == "" {
				t.Error("the audit line does not say from where")
			}
			newDevice(t, gw, "honest").connect(true, 0)
		})
	}
}

// A copied certificate without its key: the audit line names whose it is,
// whatever kind of key the thief has.
func TestPossessionFailureNamesTheVictim(t *testing.T) {
	overBoth(t, testPossessionFailureNamesTheVictim)
}

func testPossessionFailureNamesTheVictim(t *testing.T, by network) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		t.Run(curve.Params().Name, func(t *testing.T) {
			gw := startGateway(t, gatewayOptions{network: by})
			victim := newDevice(t, gw, "victim")
			thief, err := ecdsa.GenerateKey(curve, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			config := victim.tlsConfig()
			config.Certificates[0].PrivateKey = pretender{thief, victim.key.Public()}
			_, _ = dialRaw(t, gw.address, config)
			line := gw.audit.want(t, eventRefusedConnection, "possession_failed")
			if line.attrs["device"] != victim.id.String() || line.attrs["address"] != "victim@interieur.example" {
				t.Errorf("the line says %v", line.attrs)
			}
			config.Certificates[0].PrivateKey = thief
			_, _ = dialRaw(t, gw.address, config)
			victim.connect(true, 0)
		})
	}
}

// pretender signs with one key and says that it holds another.
type pretender struct {
	*ecdsa.PrivateKey
	public crypto.PublicKey
}

func (p pretender) Public() crypto.PublicKey { return p.public }

// A signature of another kind than the certificate's key is no possession.
func TestFailureReasons(t *testing.T) {
	device := deviceFor(t, "alice")
	gw := startGateway(t, gatewayOptions{})
	for _, test := range []struct {
		known  *identity.Device
		alert  quic.TransportErrorCode
		remote bool
		want   string
	}{
		{device, 0x100 + 51, false, "possession_failed"},
		{device, 0x100 + 47, false, "possession_failed"},
		{nil, 0x100 + 47, false, "illegal_parameter"},
		{nil, 0x100 + 80, false, "handshake_failed"},
		{device, 0x100 + 51, true, "given_up_by_peer"},
	} {
		a := &attempt{remote: &net.UDPAddr{Port: 1}}
		a.device.Store(test.known)
		before := gw.audit.count(eventRefusedConnection, test.want)
		gw.handshakeFailed(a, &quic.TransportError{ErrorCode: test.alert, Remote: test.remote})
		if gw.audit.count(eventRefusedConnection, test.want) != before+1 {
			t.Errorf("%+v: no line %s", test, test.want)
		}
	}
}

// A device on the deny list is refused at the handshake; put on it later, its
// connection ends at once.
func TestDenied(t *testing.T) { overBoth(t, testDenied) }

func testDenied(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	eve, honest := newDevice(t, gw, "eve"), newDevice(t, gw, "honest")
	eve.connect(true, 0)
	honest.connect(true, 0)
	gw.SetDenied(map[identity.DeviceID]bool{eve.id: true})
	if code := eve.link.closed(t); code != wire.CloseNotAdmitted {
		t.Errorf("closed with %d", code)
	}
	if _, err := eve.tryConnect(false, 0); err == nil {
		t.Error("a denied device got in")
	}
	gw.audit.want(t, eventRefusedConnection, "denied")
	if code := honest.code(&wire.Ping{}); code != wire.OK {
		t.Errorf("ping: %v", code)
	}
	gw.SetDenied(nil)
	eve.connect(false, 0)
}

// A connection ends with the certificate that opened it.
func TestConnectionEndsWithTheCertificate(t *testing.T) {
	overBoth(t, testConnectionEndsWithTheCertificate)
}

func testConnectionEndsWithTheCertificate(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	soon := newDeviceOf(t, gw, gw.authority, "soon", newKey(t), -time.Hour, 3*time.Second)
	later := newDevice(t, gw, "later")
	soon.connect(true, 0)
	later.connect(true, 0)
	if code := soon.link.closed(t); code != wire.CloseExpired {
		t.Errorf("closed with %d", code)
	}
	gw.audit.want(t, eventClosedConnection, "expired")
	if code := later.code(&wire.Ping{}); code != wire.OK {
		t.Errorf("ping: %v", code)
	}
}

// No session is resumed, so that every connection proves possession of the key.
func TestNoResumption(t *testing.T) { overBoth(t, testNoResumption) }

func testNoResumption(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	d := newDevice(t, gw, "alice")
	config := d.tlsConfig()
	tickets := &countingCache{}
	config.ClientSessionCache = tickets
	for range 2 {
		conn, err := dialRaw(t, gw.address, config)
		if err != nil {
			t.Fatal(err)
		}
		if conn.ConnectionState().DidResume {
			t.Error("a session was resumed")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, _ = conn.AcceptStream(ctx) // time for a ticket to arrive
		cancel()
		_ = conn.CloseWithError(0, "")
	}
	if tickets.puts != 0 {
		t.Errorf("the gateway gave out %d session tickets", tickets.puts)
	}
}

type countingCache struct{ puts int }

func (c *countingCache) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (c *countingCache) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		c.puts++
	}
}

// Transport keys survive a restart, and are nobody else's to read.
func TestTransportKeysPersist(t *testing.T) {
	dir := t.TempDir()
	first, err := loadTransportKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := loadTransportKeys(dir)
	if err != nil || first != second {
		t.Fatalf("keys changed over a restart (%v)", err)
	}
	if first.reset == [32]byte{} || first.token == [32]byte{} {
		t.Error("a key is all zero")
	}
	path := filepath.Join(dir, "token.key")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := loadTransportKeys(dir); err == nil {
		t.Error("a key that others can read was taken")
	}
	_ = os.Chmod(path, 0o600)
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadTransportKeys(dir); err == nil {
		t.Error("a damaged key was taken")
	}
}

// What is no Hello, comes twice, or is not in canonical form ends the connection.
func TestMalformedFramesCloseTheConnection(t *testing.T) {
	overBoth(t, testMalformedFramesCloseTheConnection)
}

func testMalformedFramesCloseTheConnection(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	garbage := make([]byte, 64)
	_, _ = rand.Read(garbage)
	garbage[0] = 0xff
	tests := map[string]struct {
		reason string
		attack func(d *testDevice)
	}{
		"unknown frame": {"malformed_frame", func(d *testDevice) { _, _ = d.link.control.Write(garbage) }},
		"trailing byte": {"malformed_frame", func(d *testDevice) {
			_, _ = d.link.control.Write([]byte{byte(wire.TypePing), 0, 0, 5, 0, 0, 0, 1, 0})
		}},
		"too long": {"malformed_frame", func(d *testDevice) {
			_, _ = d.link.control.Write([]byte{byte(wire.TypeSend), 0xff, 0xff, 0xff})
		}},
		"counter zero": {"malformed_frame", func(d *testDevice) {
			_, _ = d.link.control.Write([]byte{byte(wire.TypeSend), 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0})
		}},
		"gateway's own frame": {"unexpected_frame", func(d *testDevice) {
			_ = wire.Write(d.link.control, wire.NewResult(1, wire.OK))
		}},
		"second Hello": {"unexpected_frame", func(d *testDevice) {
			_ = wire.Write(d.link.control, &wire.Hello{Version: wire.Version})
		}},
		"second control stream": {"second_control_stream", func(d *testDevice) {
			_, _ = d.link.open(wire.StreamControl, &wire.Hello{Version: wire.Version})
		}},
		"unknown stream": {"unknown_stream_kind", func(d *testDevice) { _, _ = d.link.open(99, &wire.Resume{}) }},
		"delivery without Resume": {"no_resume", func(d *testDevice) {
			_, _ = d.link.open(wire.StreamDelivery, &wire.Ack{Number: 1})
		}},
		"cursor ahead": {"cursor_ahead", func(d *testDevice) {
			_, _ = d.link.open(wire.StreamDelivery, &wire.Resume{Cursor: 1})
		}},
		"acknowledging what was never sent": {"ack_of_undelivered", func(d *testDevice) {
			d.listen(0)
			d.ack(1)
		}},
		"garbage instead of a blob request": {"malformed_frame", func(d *testDevice) {
			stream, err := d.link.open(wire.StreamBlobPut, &wire.BlobGet{})
			if err == nil {
				_, _ = stream.Write(garbage)
			}
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if name == "garbage instead of a blob request" {
				test.reason = "unexpected_frame"
			}
			before := gw.audit.count(eventClosedConnection, test.reason)
			honest, d := newDevice(t, gw, "honest"), newDevice(t, gw, "mallory")
			honest.connect(true, 0)
			d.connect(true, 0)
			if code := d.code(&wire.Ping{}); code != wire.OK { // the control
				t.Fatalf("ping: %v", code)
			}
			test.attack(d)
			if code := d.link.closed(t); code != wire.CloseProtocol {
				t.Errorf("closed with %d", code)
			}
			gw.audit.want(t, eventClosedConnection, test.reason)
			if gw.audit.count(eventClosedConnection, test.reason) != before+1 {
				t.Errorf("not exactly one new line %s", test.reason)
			}
			if code := honest.code(&wire.Ping{}); code != wire.OK {
				t.Errorf("ping: %v", code)
			}
		})
	}
}
