// SPDX-License-Identifier: Apache-2.0

// Package transport is what device and gateway see of the network: a [Conn]
// with streams, over QUIC or, where UDP is closed, over TCP and TLS. Frames,
// certificates and checks are the same on both; only this package and the code
// that dials or listens knows which one it is.
//
// First calls: [QUIC] wraps an established *quic.Conn; that is all there is to
// QUIC. [ClosedBy] says whether an error means that either side closed the
// connection, and with which code.
//
// Never believe a connection because it stands: a QUIC dial can succeed although
// the gateway never accepts it. Wait for its Welcome (spec/wire.md, Section 4.2).
// Never write to one Stream from two goroutines at a time, and never return from
// serving one without Close or CancelWrite: until then it counts as open.
package transport
