// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"os"
	"time"

	"github.com/quic-go/quic-go"

	"valise/identity"
	"valise/internal/stage"
	"valise/wire"
)

// A visitor knocks at the gateway as a device would, with code of its own.
type visitor struct {
	gateway *stage.Gateway
	root    string // PEM file of the authority's root
}

// knock connects with a chain and a key and waits for the gateway's Welcome.
func (v *visitor) knock(ctx context.Context, chain [][]byte, key crypto.Signer) error {
	pool, err := loadPool(v.root)
	if err != nil {
		return unprepared(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := quic.DialAddr(ctx, v.gateway.Address, &tls.Config{
		RootCAs: pool, NextProtos: []string{wire.Protocol}, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768},
		Certificates:     []tls.Certificate{{Certificate: chain, PrivateKey: key}},
	}, &quic.Config{HandshakeIdleTimeout: 15 * time.Second})
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseWithError(0, "") }()
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := stream.Write([]byte{byte(wire.StreamControl)}); err != nil {
		return err
	}
	hello := &wire.Hello{Version: wire.Version, Begin: true, Agent: "visitor"}
	if _, err := rand.Read(hello.Incarnation[:]); err != nil {
		return err
	}
	if err := wire.Write(stream, hello); err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	if err := stream.SetReadDeadline(deadline); err != nil {
		return err
	}
	answer, err := wire.Read(stream)
	if err != nil {
		return err
	}
	if _, ok := answer.(*wire.Welcome); !ok {
		return fmt.Errorf("the gateway answered with frame type %#02x", uint8(answer.Type()))
	}
	return nil
}

func loadPool(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, nil
}

// gatewayTrials are the intruders that the gateway must refuse at the door.
// honest is a device in good standing; stranger one of another authority;
// stolen is the public part of a copied client directory.
func (v *visitor) gatewayTrials(honest, stranger device, stolen [][]byte) []*trial {
	pass := func(ctx context.Context) error { return v.knock(ctx, honest.chain, honest.key) }
	trials := []*trial{
		{name: "a certificate that it made itself", reason: string(identity.ReasonSelfSigned), attack: func(ctx context.Context) error {
			fake, err := selfMade(honest.chain[0])
			if err != nil {
				return unprepared(err)
			}
			return v.knock(ctx, fake.chain, fake.key)
		}},
		{name: "a certificate of another authority", reason: string(identity.ReasonUnknownAuthority), attack: func(ctx context.Context) error {
			return v.knock(ctx, stranger.chain, stranger.key)
		}},
		{name: "a copied client directory without its card", reason: "possession_failed", attack: func(ctx context.Context) error {
			key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				return unprepared(err)
			}
			return v.knock(ctx, stolen, pretender{key, stolen[0]})
		}},
	}
	for _, t := range trials {
		t.audit, t.control = v.gateway.Audit, pass
	}
	return trials
}

// A device is a certificate chain and the key that belongs to it.
type device struct {
	chain [][]byte
	key   crypto.Signer
}

// A pretender signs with its own key and claims that it is a certificate's.
type pretender struct {
	crypto.Signer
	certificate []byte
}

// Public implements crypto.Signer with a lie.
func (p pretender) Public() crypto.PublicKey {
	cert, err := x509.ParseCertificate(p.certificate)
	if err != nil {
		return p.Signer.Public()
	}
	return cert.PublicKey
}

// selfMade copies everything that an honest certificate says, over a software
// key, and signs it with that key.
func selfMade(honest []byte) (device, error) {
	like, err := x509.ParseCertificate(honest)
	if err != nil {
		return device{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return device{}, err
	}
	id, err := identity.DeviceIDOf(key.Public())
	if err != nil {
		return device{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: like.Subject, NotBefore: like.NotBefore, NotAfter: like.NotAfter,
		KeyUsage: like.KeyUsage, ExtKeyUsage: like.ExtKeyUsage, UnknownExtKeyUsage: like.UnknownExtKeyUsage,
		EmailAddresses: like.EmailAddresses, BasicConstraintsValid: like.BasicConstraintsValid,
	}
	template.URIs = append(template.URIs, id.URL())
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return device{[][]byte{der}, key}, err
}
