// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"valise/identity"
	"valise/wire"
)

// hybridGroups are all key exchanges that the gateway takes part in: each joins
// ML-KEM (FIPS 203) with an elliptic curve. What is recorded today stays closed
// when one of the two falls.
var hybridGroups = []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024}

// An attempt follows one handshake from the first packet to its end.
type attempt struct {
	remote  net.Addr
	source  netip.Prefix
	hello   atomic.Pointer[tls.ClientHelloInfo]
	device  atomic.Pointer[identity.Device] // whose chain was verified; possession is proven only after acceptance
	reason  atomic.Pointer[string]          // why VerifyConnection refused
	settled atomic.Bool                     // the handshake is complete, or has failed
	began   time.Time

	concluded atomic.Bool // the connection has ended too
}

type attemptKey struct{}

// tlsConfig builds the server's configuration. A certificate check that needs
// to know the connection gets it from the ClientHello's context.
func (g *Gateway) tlsConfig() *tls.Config {
	base := &tls.Config{
		MinVersion:       tls.VersionTLS13,
		NextProtos:       []string{wire.Protocol, wire.RenewProtocol},
		CurvePreferences: hybridGroups,
		ClientAuth:       tls.RequireAnyClientCert,
		Time:             g.now,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return g.certificate.Load(), nil
		},
		// Every connection proves possession of the device's key anew: a
		// resumed session would work without the card.
		SessionTicketsDisabled: true,
		// Replaced for each connection below; alone it refuses.
		VerifyConnection: func(tls.ConnectionState) error { return errors.New("gateway: connection without context") },
	}
	config := base.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		a, ok := hello.Context().Value(attemptKey{}).(*attempt)
		if !ok {
			return nil, errors.New("gateway: handshake without context")
		}
		a.hello.Store(hello)
		if c, ok := hello.Conn.(*boundedConn); ok { // a person may take longer, see ServeTCP
			_ = c.SetReadDeadline(time.Time{})
		}
		if len(hello.SupportedProtos) == 0 { // over TCP crypto/tls would let that pass
			a.reason.Store(&reasonProtocol)
			return nil, errors.New("gateway: no protocol is named")
		}
		own := base.Clone()
		own.VerifyConnection = func(state tls.ConnectionState) error { return g.verify(a, state) }
		return own, nil
	}
	return config
}

// verify checks the device's chain. It is VerifyConnection and not
// VerifyPeerCertificate, because only the former is asked on every handshake.
// It runs before the client's CertificateVerify (RFC 8446, Section 4.4.3) has
// been checked: what it finds is a claim until the handshake is complete.
func (g *Gateway) verify(a *attempt, state tls.ConnectionState) error {
	// As crypto/tls has parsed them and keeps them: a connection has them once.
	device, err := g.cfg.Trust.DeviceOf(state.PeerCertificates, g.judgedAt(state))
	if err != nil {
		reason := string(identity.ReasonOf(err))
		a.reason.Store(&reason)
		return err
	}
	a.device.Store(device)
	if g.deniedNow()[device.ID] {
		reason := "denied"
		a.reason.Store(&reason)
		return errors.New("gateway: device is on the deny list")
	}
	if reason := outOf(g.Standings(), device); reason != "" {
		a.reason.Store(&reason)
		return errors.New("gateway: device or person is not in good standing")
	}
	return nil
}

// connContext begins to follow a handshake.
func (g *Gateway) connContext(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	a, reason := g.begin(info.RemoteAddr, info.AddrVerified)
	if reason != "" {
		return nil, errors.New("gateway: " + reason)
	}
	context.AfterFunc(ctx, func() { g.conclude(a, context.Cause(ctx)) })
	return context.WithValue(ctx, attemptKey{}, a), nil
}

// begin lets a handshake begin, or refuses it before it costs anything. What
// began must be concluded.
func (g *Gateway) begin(remote net.Addr, proven bool) (a *attempt, reason string) {
	a = &attempt{remote: remote, source: sourceOf(remote), began: time.Now()}
	if g.open.Load() >= int64(g.limits.Connections) {
		reason = "too_many_connections"
	} else {
		reason = g.door.enter(a.source, proven)
	}
	if reason != "" {
		a.settled.Store(true)
		a.concluded.Store(true)
		g.metrics.refused(eventRefusedConnection, reason)
		g.strangers.event(eventRefusedConnection, reason, about(nil, remote.String())...)
	}
	return a, reason
}

// settle ends the counting of a handshake as an open one; true for who is first.
func (g *Gateway) settle(a *attempt, failed bool) bool {
	if !a.settled.CompareAndSwap(false, true) {
		return false
	}
	if !failed {
		g.metrics.handshake.Observe(time.Since(a.began).Seconds())
		a.hello.Store(nil) // a connection has no use for it
	}
	g.door.leave(a.source, failed)
	g.storm.Add(1)
	g.keepDense()
	return true
}

// conclude ends what began. It may be called again.
func (g *Gateway) conclude(a *attempt, cause error) {
	if !a.concluded.CompareAndSwap(false, true) {
		return
	}
	var closed *quic.ApplicationError
	complete := errors.As(cause, &closed) || errors.Is(cause, errShut) // and closed before it was looked at
	if g.settle(a, !complete) && !complete {
		g.handshakeFailed(a, cause)
	}
}

// mustProveAddress asks strangers for a round trip: a forged source address then
// costs the gateway neither memory nor certificate checks.
func (g *Gateway) mustProveAddress(addr net.Addr) bool { return g.door.mustProve(sourceOf(addr)) }

// handshakeFailed puts a connection that never came about into the audit stream.
func (g *Gateway) handshakeFailed(a *attempt, cause error) {
	reason := a.failureReason(cause)
	switch r := a.reason.Load(); {
	case r != nil:
		reason = *r
	case reason == reasonIllegal && a.device.Load() != nil:
		// What is left to be wrong after the chain is CertificateVerify: it was
		// made by a key of another kind.
		reason = reasonPossession
	}
	g.metrics.refused(eventRefusedConnection, reason)
	g.strangers.event(eventRefusedConnection, reason, about(a.device.Load(), a.remote.String())...)
}

const (
	reasonPossession = "possession_failed"
	reasonIllegal    = "illegal_parameter"
)

// TLS alerts (RFC 8446, Section 6); QUIC carries them as 0x100 plus the alert
// (RFC 9001, Section 4.8).
var alertReasons = map[quic.TransportErrorCode]string{
	0x100 + 40:  "no_common_parameters", // handshake_failure: no hybrid group in common
	0x100 + 42:  "malformed_certificate",
	0x100 + 47:  reasonIllegal,    // illegal_parameter
	0x100 + 51:  reasonPossession, // decrypt_error: CertificateVerify does not fit the certificate
	0x100 + 70:  "tls_version",
	0x100 + 116: "no_certificate",
	0x100 + 120: reasonProtocol, // ALPN
}

var reasonProtocol = "wrong_protocol"

func (a *attempt) failureReason(cause error) string {
	if _, tcp := a.remote.(*net.TCPAddr); tcp {
		return a.tcpFailure(cause)
	}
	var transport *quic.TransportError
	var idle *quic.IdleTimeoutError
	var late *quic.HandshakeTimeoutError
	switch {
	case errors.As(cause, &transport) && transport.Remote:
		return "given_up_by_peer"
	case errors.As(cause, &transport):
		if reason, ok := alertReasons[transport.ErrorCode]; ok {
			return reason
		}
	case errors.As(cause, &idle), errors.As(cause, &late):
		return "handshake_timeout"
	}
	return "handshake_failed"
}

func (l Limits) quicConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           l.HandshakeTime / 2, // quic-go allows one twice this in all
		MaxIdleTimeout:                 idleTimeout,
		KeepAlivePeriod:                keepAlive,
		MaxIncomingStreams:             maxStreams,
		MaxIncomingUniStreams:          -1,
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         maxStreamWindow,
		InitialConnectionReceiveWindow: connectionWindow,
		MaxConnectionReceiveWindow:     connectionWindow,
		Allow0RTT:                      false,
	}
}

// closeWhenExpired ends a connection with the certificate that opened it.
func (g *Gateway) closeWhenExpired(s *session) *time.Timer {
	return time.AfterFunc(s.device.Leaf.NotAfter.Sub(g.now()), func() {
		s.close(wire.CloseExpired, string(identity.ReasonExpired))
	})
}
