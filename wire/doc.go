// SPDX-License-Identifier: Apache-2.0

// Package wire is the language between a device and its gateway: every frame
// that crosses the connection, the header that the gateway reads beside a
// sealed message, and the typed content that only the ends read.
//
// A connection is QUIC with ALPN [Protocol] and certificates on both sides.
// The device opens streams; the first byte of each is its [StreamKind]:
//
//	control   one; requests up, results down. Hello first, Welcome back.
//	delivery  one; Resume first, then Deliver down and Ack up.
//	blob      one a transfer; BlobPut or BlobGet, then the raw bytes of a file.
//
// Everything but the raw bytes of a file travels in frames:
//
//	struct { uint8 type; opaque body<0..2^24-1>; } Frame;
//
// Read them with [Read] and write them with [Write]; the encoding
// is TLS presentation syntax (RFC 8446, Section 3). Parsing is strict: a frame
// that is not known, has bytes left over, or is not in its one canonical form
// is refused with [ErrMalformed], and the connection should be closed, because
// a peer that cannot encode is broken or hostile.
//
// The package does no I/O of its own beyond the io.Reader and io.Writer it is
// given, keeps no state between frames and decides nothing. The protocol in
// prose is spec/wire.md; header and content are spec/message.md.
package wire
