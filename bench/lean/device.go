// SPDX-License-Identifier: Apache-2.0

package lean

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"valise/identity"
	"valise/mls"
	"valise/transport"
	"valise/wire"
)

// Suite is that of the groups: the cheapest one, because the clients share the
// processors with the gateway, which never opens a message.
const Suite = mls.SuiteP256

// A Device has a key in software and a certificate. It is used by one goroutine
// at a time.
type Device struct {
	authority   *Authority
	key         *ecdsa.PrivateKey
	chain       [][]byte
	mls         mls.Identity
	incarnation [16]byte
	counter     uint64 // of the last submission
	cursor      uint64 // of the last delivery
	known       bool   // the gateway has the incarnation on record
}

// NewDevice makes a key and certifies it for local@domain.
func (a *Authority) NewDevice(local string) (*Device, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	chain, err := a.chain(local, key.Public())
	if err != nil {
		return nil, err
	}
	d := &Device{authority: a, key: key, chain: chain, mls: mls.Identity{Credential: mls.X509Credential(chain), Signer: key}}
	_, err = rand.Read(d.incarnation[:])
	return d, err
}

// TLS is the device's side of a handshake: its certificate, and a check that the
// other side has one of the same root.
func (d *Device) TLS(protocol string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768},
		Certificates:       []tls.Certificate{{Certificate: d.chain, PrivateKey: d.key}},
		InsecureSkipVerify: true, // the check below takes its place
		VerifyConnection: func(s tls.ConnectionState) error {
			chain := make([][]byte, len(s.PeerCertificates))
			for i, c := range s.PeerCertificates {
				chain[i] = c.Raw
			}
			_, err := d.authority.Trust().Gateway(chain, "127.0.0.1", time.Now())
			return err
		},
	}
}

// QUIC are the settings of a client's connection, those of the client engine.
func QUIC() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout: 30 * time.Second, MaxIdleTimeout: 90 * time.Second, KeepAlivePeriod: 25 * time.Second,
		InitialStreamReceiveWindow: 512 << 10, MaxStreamReceiveWindow: 6 << 20,
		InitialConnectionReceiveWindow: 1 << 20, MaxConnectionReceiveWindow: 15 << 20,
	}
}

// Dial connects over a socket of its own, as the client engine does.
func (d *Device) Dial(ctx context.Context, address, protocol string) (*quic.Conn, error) {
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, err
	}
	udp, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	socket := &quic.Transport{Conn: transport.Socket(udp, 1)}
	end := func() { _ = errors.Join(socket.Close(), udp.Close()) }
	conn, err := socket.Dial(ctx, to, d.TLS(protocol), QUIC())
	if err != nil {
		end()
		return nil, err
	}
	context.AfterFunc(conn.Context(), end)
	return conn, nil
}

// authenticator is the Authentication Service of the device's groups.
type authenticator struct{ trust *identity.Trust }

func (a authenticator) Authenticate(c mls.Credential, _ []byte) error {
	at, err := identity.IssuedAt(c.Certificates)
	if err != nil {
		return err
	}
	_, err = a.trust.Device(c.Certificates, at)
	return err
}

// Offer makes a KeyPackage, to be handed to whoever founds a group.
func (d *Device) Offer() (*mls.KeyPackage, *mls.KeyPackageSecrets, error) {
	now := time.Now()
	return mls.NewKeyPackage(d.mls, mls.KeyPackageParams{
		Suite: Suite, Lifetime: mls.NewLifetime(now.Add(-time.Hour), now.Add(lifetime)),
	})
}

// Found makes a group of this device and the one that offers kp, at the gateway
// and here.
func (c *Conn) Found(ctx context.Context, kp *mls.KeyPackage) (*mls.Group, error) {
	g, requests, err := c.device.Group(kp)
	if err != nil {
		return nil, err
	}
	for _, r := range requests {
		if err := c.submit(ctx, r); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// Group makes a group of this device and the one that offers kp, and what a gateway
// would have to be told of it.
func (d *Device) Group(kp *mls.KeyPackage) (*mls.Group, []wire.Submission, error) {
	now := time.Now()
	g, err := mls.Create(mls.Config{Authenticator: authenticator{d.authority.Trust()}}, d.mls, mls.CreateParams{Suite: Suite, At: now})
	if err != nil {
		return nil, nil, err
	}
	info, err := g.GroupInfo()
	if err != nil {
		return nil, nil, err
	}
	create := &wire.CreateGroup{GroupInfo: info, Tree: g.Tree()}
	p, err := g.PrepareCommit(mls.CommitParams{Proposals: []mls.Proposal{mls.AddProposal(kp)}, TreeInWelcome: true, At: now})
	if err != nil {
		return nil, nil, err
	}
	commit := &wire.Commit{Group: g.ID(), Epoch: g.Epoch(), Commit: p.Commit, Welcome: p.Welcome, GroupInfo: p.GroupInfo}
	return g, []wire.Submission{create, commit}, g.Apply(p.Staged)
}

// Seal encrypts a text for a group. The Send lacks id and counter.
func Seal(g *mls.Group, text []byte, sequence uint64) (*wire.Send, error) {
	return seal(g, text, &wire.Header{Sequence: sequence})
}

func seal(g *mls.Group, text []byte, h *wire.Header) (*wire.Send, error) {
	header, err := h.Marshal()
	if err != nil {
		return nil, err
	}
	sealed, err := g.Encrypt(text, header)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return &wire.Send{Group: g.ID(), Epoch: g.Epoch(), Message: sealed.Message}, nil
}
