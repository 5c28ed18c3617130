// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/quic-go/quic-go"

	"valise/gateway/mailbox"
	"valise/internal/store/relay"
	"valise/mls"
	"valise/wire"
)

// A stopwatch is a software key that takes its own time apart: the card's is
// measured by itself.
type stopwatch struct {
	crypto.Signer
	spent time.Duration
}

func (s *stopwatch) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	start := time.Now()
	defer func() { s.spent += time.Since(start) }()
	return s.Signer.Sign(r, digest, opts)
}

// anybody approves every credential: nobody's identity matters here.
type anybody struct{}

func (anybody) Authenticate(mls.Credential, []byte) error { return nil }

func newIdentity(name string) (mls.Identity, *stopwatch, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	s := &stopwatch{Signer: key}
	return mls.Identity{Credential: mls.BasicCredential([]byte(name)), Signer: s}, s, err
}

// ratchet seals a text of 100 bytes and opens it, in a group of two on the default
// suite. Opening includes the check of the signature.
func ratchet(context.Context) error {
	now := time.Now()
	cfg := mls.Config{Authenticator: anybody{}}
	alice, watch, err1 := newIdentity("alice")
	bob, _, err2 := newIdentity("bob")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	sender, err := mls.Create(cfg, alice, mls.CreateParams{At: now})
	if err != nil {
		return err
	}
	kp, secrets, err := mls.NewKeyPackage(bob, mls.KeyPackageParams{Lifetime: mls.NewLifetime(now.Add(-time.Hour), now.Add(time.Hour))})
	if err != nil {
		return err
	}
	p, err := sender.PrepareCommit(mls.CommitParams{Proposals: []mls.Proposal{mls.AddProposal(kp)}, At: now})
	if err != nil {
		return err
	}
	if err := sender.Apply(p.Staged); err != nil {
		return err
	}
	receiver, err := mls.Join(cfg, bob, p.Welcome, kp, secrets, mls.JoinParams{Tree: p.Tree, At: now})
	if err != nil {
		return err
	}
	opened := make([]time.Duration, 0, warmUp+rounds)
	err = repeat("ratchet_seal", func(int) (time.Duration, error) {
		watch.spent = 0
		var sealed []byte
		d, err := timed(func() error {
			s, err := sender.Encrypt(make([]byte, 100), nil)
			if err == nil {
				sealed = s.Message
			}
			return err
		})
		if err != nil {
			return 0, err
		}
		o, err := timed(func() error {
			_, err := receiver.Receive(sealed, now)
			return err
		})
		opened = append(opened, o)
		return d - watch.spent, err
	})
	if err != nil {
		return err
	}
	return repeat("ratchet_open", func(i int) (time.Duration, error) { return opened[i], nil })
}

// network sends a Ping on a kept connection and waits for its answer.
func (o *office) network(ctx context.Context) error {
	chain, err := o.chain()
	if err != nil {
		return err
	}
	data, err := os.ReadFile(o.root)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return fmt.Errorf("%s holds no certificate", o.root)
	}
	conn, err := quic.DialAddr(ctx, o.gateway.Address, &tls.Config{
		RootCAs: pool, NextProtos: []string{wire.Protocol}, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.SecP384r1MLKEM1024},
		Certificates:     []tls.Certificate{{Certificate: chain, PrivateKey: o.key}},
	}, &quic.Config{HandshakeIdleTimeout: 30 * time.Second})
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
	ask := func(f wire.Frame) (wire.Frame, error) {
		if err := wire.Write(stream, f); err != nil {
			return nil, err
		}
		return wire.Read(stream)
	}
	hello := &wire.Hello{Version: wire.Version, Begin: true, Agent: "bench"}
	if _, err := rand.Read(hello.Incarnation[:]); err != nil {
		return err
	}
	answer, err := ask(hello)
	if _, ok := answer.(*wire.Welcome); err != nil || !ok {
		return fmt.Errorf("no welcome: %T, %w", answer, err)
	}
	return repeat("network_round_trip", func(i int) (time.Duration, error) {
		ping := &wire.Ping{}
		ping.SetRequestID(uint32(i + 1))
		return timed(func() error { _, err := ask(ping); return err })
	})
}

// fsync puts one message of 1 KiB, for one recipient, into the gateway's store.
func fsync(ctx context.Context, dir string) (err error) {
	store, err := relay.OpenJournaled(ctx, relay.Config{Path: filepath.Join(dir, "fsync.db")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	from, to := mailbox.Device{1}, mailbox.Device{2}
	incarnation := [16]byte{1}
	for _, d := range []mailbox.Device{from, to} {
		if _, err := store.Arrive(ctx, mailbox.Arrival{Device: d, Address: "a@x.example", Chain: [][]byte{{1}}, Incarnation: incarnation, Begin: true, Time: time.Now()}); err != nil {
			return err
		}
	}
	apply := func(s *mailbox.Submission) error {
		s.Device, s.Incarnation, s.Time = from, incarnation, time.Now()
		s.Hash = sha256.Sum256(binary.BigEndian.AppendUint64(nil, s.Counter))
		outcomes, err := store.Apply(ctx, []*mailbox.Submission{s}, nil)
		if err == nil && outcomes[0].Verdict != mailbox.Done {
			err = fmt.Errorf("not done: %+v", outcomes[0])
		}
		return err
	}
	if err := apply(&mailbox.Submission{Counter: 1, Step: &mailbox.Step{Group: []byte("g"), Create: true, Info: []byte("i")}}); err != nil {
		return err
	}
	payload := make([]byte, 1024)
	if _, err := rand.Read(payload); err != nil {
		return err
	}
	return repeat("store_fsync", func(i int) (time.Duration, error) {
		s := &mailbox.Submission{Counter: uint64(i + 2), Messages: []mailbox.Message{
			{Kind: mailbox.Content, Group: []byte("g"), Payload: payload, To: []mailbox.Device{to}},
		}}
		return timed(func() error { return apply(s) })
	})
}
