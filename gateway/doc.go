// SPDX-License-Identifier: Apache-2.0

// Package gateway is the relay between devices: it carries sealed messages from
// attested devices to attested devices, keeps them until they are
// acknowledged, and reads none of them.
//
// A device connects by QUIC with a certificate of its authority and speaks the
// frames of package wire (spec/wire.md). What the gateway promises:
//
//   - Nobody without a device certificate gets past the handshake, and the
//     check is made again at every message ([Gateway] calls it admission).
//   - A submission is done exactly once, and acknowledged only after it is on
//     disk. The same bytes under the same counter are acknowledged again;
//     other bytes are refused.
//   - Each device's deliveries are numbered from 1 without gaps and kept until
//     acknowledged.
//   - The first commit of an epoch wins, and its fan-out happens with it or
//     not at all.
//   - Whom the authority suspends, revokes or removes is out at once: connections
//     end, nothing is delivered, nothing is sent to them ([Gateway.SetStandings];
//     package gateway/feed follows the authority).
//   - Every refusal stands in the audit stream with its full reason; the device
//     learns a coarse code.
//
// First calls, as cmd/valise-gatewayd makes them:
//
//	g, err := gateway.New(gateway.Config{Trust: trust, Domain: domain, Certificate: cert, Store: store, …})
//	go g.Run(ctx)             // commits to the store, maintenance
//	err = g.Serve(ctx, conn)  // one UDP socket; until ctx ends
//
// The gateway has no interface to read a message, because it cannot.
// Never answer a submission before its store has synced it. Never take a
// device's word for who it is: the session's device is the one whose key signed
// the handshake.
package gateway
