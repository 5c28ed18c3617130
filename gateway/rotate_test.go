// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"valise/wire"
)

// shown is the key that the gateway shows to a device that connects.
func (d *testDevice) shown() crypto.PublicKey {
	d.t.Helper()
	conn, err := tls.Dial("tcp", d.gw.address, &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{wire.Protocol},
		Certificates: []tls.Certificate{{Certificate: d.chain, PrivateKey: d.key}},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].PublicKey
}

// The gateway's key is replaced while devices are connected: they stay so, new ones see
// the new key, and what is not certified changes nothing.
func TestGatewayKeyRotates(t *testing.T) {
	p, gw := newProcess(t)
	p.start()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	alice, bob := newDevice(t, gw, "alice"), newDevice(t, gw, "bob")
	if err := alice.reach(ctx, true, 0); err != nil {
		t.Fatal(err, p.log.String())
	}
	before := alice.shown().(interface{ Equal(crypto.PublicKey) bool })

	request := func() *x509.CertificateRequest {
		block, _ := pem.Decode(p.run("csr", "--next", "--algorithm", "P-256"))
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil || csr.CheckSignature() != nil || before.Equal(csr.PublicKey) {
			t.Fatalf("the request for the next key: %v", err)
		}
		return csr
	}
	csr := request()
	if again := request().PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !again.Equal(csr.PublicKey) {
		t.Error("a second successor was made before the first one was certified")
	}
	hangup := func() {
		t.Helper()
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	former, err := os.ReadFile(filepath.Join(p.dir, "gateway.pem"))
	if err != nil {
		t.Fatal(err)
	}
	p.issue(newAuthority(t, "interieur.example"), csr) // by somebody else's authority
	hangup()
	until(t, "the refusal", func() bool { return strings.Contains(p.log.String(), "the old one stays in use") })
	if !before.Equal(alice.shown()) {
		t.Fatal("a foreign certificate is shown")
	}
	if err := os.WriteFile(filepath.Join(p.dir, "gateway.pem"), former, 0o600); err != nil {
		t.Fatal(err)
	}
	p.issue(gw.authority, csr)
	hangup()
	until(t, "the new key is shown", func() bool { return !before.Equal(alice.shown()) })
	if key := csr.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !key.Equal(alice.shown()) {
		t.Error("another key is shown than the one that was certified")
	}
	if code := alice.code(&wire.Ping{}); code != wire.OK {
		t.Errorf("who was connected: %v", code)
	}
	if err := bob.reach(ctx, true, 0); err != nil {
		t.Error(err)
	}
	// After a restart too, without a change to the configuration.
	p.kill()
	p.start()
	gw.cut()
	if err := bob.reach(ctx, false, 0); err != nil {
		t.Error(err, tail(p.log.String()))
	}
}
