// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"valise/transport"
	"valise/wire"
)

// A tunnel carries a device's TLS connection to the authority, for devices that
// reach nobody but the gateway: bytes go through unread and unchanged, and only to
// the one address that the operator configured. See spec/wire.md, Section 13.

// renewing says whether a connection is one that may do nothing but renew.
func renewing(state tls.ConnectionState) bool { return state.NegotiatedProtocol == wire.RenewProtocol }

// judgedAt is the time as of which a device's certificate is judged. One that has
// expired may come to renew itself for as long as the device keeps its mailbox; what
// else speaks against it is looked at as always.
func (g *Gateway) judgedAt(state tls.ConnectionState) time.Time {
	now := g.now()
	if !renewing(state) || len(state.PeerCertificates) == 0 {
		return now
	}
	end := state.PeerCertificates[0].NotAfter
	if now.After(end) && now.Sub(end) <= renewalGrace {
		return end
	}
	return now
}

// serveRenewal runs a connection that may open tunnels and nothing else.
func (s *session) serveRenewal() {
	close(s.ready)
	late := time.AfterFunc(tunnelTime, func() { s.close(wire.CloseShutdown, "renewal_timeout") })
	defer late.Stop()
	s.acceptStreams()
	s.streams.Wait()
}

// serveTunnel dials the authority and carries bytes both ways until either side
// ends or a bound is reached.
func (s *session) serveTunnel(stream transport.Stream) {
	defer stream.CancelRead(wire.CloseNormal)
	defer stream.Close()
	authority, r := s.openTunnel()
	if r != nil {
		s.refuse(eventRefusedTunnel, r.reason)
		_ = wire.Write(stream, wire.NewResult(0, r.code))
		return
	}
	defer s.g.endTunnel(s)
	defer authority.Close()
	s.audit.event(eventTunnel, "", append(about(s.device, s.remote), slog.String("authority", s.g.cfg.Authority))...)
	if wire.Write(stream, wire.NewResult(0, wire.OK)) != nil {
		return
	}
	// Every end ends both directions: a deadline for all, and the connection's.
	late := time.Now().Add(tunnelTime)
	_ = authority.SetDeadline(late)
	_ = stream.SetDeadline(late)
	defer context.AfterFunc(s.conn.Context(), func() { _ = authority.Close() })()
	var down sync.WaitGroup
	down.Go(func() {
		_, _ = io.CopyN(onlyWriter{stream}, authority, tunnelBytes)
		_ = stream.Close()
		stream.CancelRead(wire.CloseNormal)
	})
	_, _ = io.CopyN(onlyWriter{authority}, stream, tunnelBytes)
	if half, ok := authority.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	down.Wait()
}

// openTunnel admits and dials.
func (s *session) openTunnel() (net.Conn, *refusal) {
	if s.g.cfg.Authority == "" {
		return nil, &refusal{code: wire.NotFound, reason: "no_authority"}
	}
	admit := s.admitAsk
	if s.renewal {
		admit = s.admitRenewal
	}
	if r := admit(tunnelCost); r != nil {
		return nil, r
	}
	if !s.g.orders.allow(s.device.ID, nil, s.g.now()) {
		return nil, &refusal{code: wire.RateLimited, reason: "tunnel_limited"}
	}
	if !s.g.beginTunnel(s) {
		return nil, &refusal{code: wire.RateLimited, reason: "too_many_tunnels"}
	}
	ctx, cancel := context.WithTimeout(s.conn.Context(), tunnelDial)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.g.cfg.Authority)
	if err != nil {
		s.g.endTunnel(s)
		s.g.log.Warn("the authority cannot be reached for a device", "authority", s.g.cfg.Authority, "error", err)
		return nil, &refusal{code: wire.Unavailable, reason: "authority_unreachable"}
	}
	return conn, nil
}

// admitRenewal is admitAsk but for the certificate's time, which the handshake has
// judged.
func (s *session) admitRenewal(cost int) *refusal {
	now := s.g.now()
	switch reason := outOf(s.g.Standings(), s.device); {
	case s.g.deniedNow()[s.device.ID]:
		return &refusal{code: wire.NotAllowed, reason: "denied"}
	case reason != "":
		return &refusal{code: wire.NotAllowed, reason: reason}
	case s.allowance.isHeld(now):
		return &refusal{code: wire.NotAllowed, reason: "held"}
	case !s.allowance.ask(now, cost):
		return &refusal{code: wire.RateLimited, reason: "rate_limited"}
	}
	return nil
}

// beginTunnel takes one of the tunnels of all, and the device's own.
func (g *Gateway) beginTunnel(s *session) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.tunnels) >= maxTunnels || g.tunnels[s.device.ID] {
		return false
	}
	g.tunnels[s.device.ID] = true
	return true
}

func (g *Gateway) endTunnel(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.tunnels, s.device.ID)
}
