// SPDX-License-Identifier: Apache-2.0

package transport

import "time"

const (
	// MaxStreams is how many streams a device may have open on one connection:
	// control, delivery, four files each way, and one tunnel.
	MaxStreams = 11

	// Window is how many bytes of one stream may be on the way unread, over TCP.
	// Eleven of them are as much as a QUIC connection may have (6 MiB), and one
	// keeps 80 Mbit/s busy over 50 ms.
	Window = 512 << 10

	// maxData is the most that one record carries: with its header it fits one TLS
	// record (RFC 8446, Section 5.1: 2^14 bytes), so that a small answer never
	// waits behind more than that of another stream.
	maxData = 1<<14 - headerLen

	// headerLen is a record's header: type, stream, length.
	headerLen = 1 + 4 + 2

	// maxDatagrams is what the kernel puts together at most: what fits one IP packet.
	// maxControl bounds what is said about it: ECN, address, size of a datagram.
	maxDatagrams = 1 << 16
	maxControl   = 128

	// ServerReads is how many such pieces a server's call of the kernel may bring:
	// many devices send a little each. Each has a buffer of 64 KiB.
	ServerReads = 8

	// paceTarget is how much longer than the fastest packet one may take because of files:
	// what a message waits on the way at most, more or less.
	paceTarget = 40 * time.Millisecond

	// paceRound is the least that counts as a round trip: timers are not finer.
	paceRound = 5 * time.Millisecond

	// paceFirst and paceMost are what may go in a round trip at first, and at most: the
	// connection's own window is smaller than that. A piece is what goes at once; 4 KiB take a
	// line of 1 Mbit/s some 30 ms.
	paceFirst   = 8 << 10
	paceMost    = 16 << 20
	pacePiece   = 4 << 10
	paceLargest = 64 << 10

	// maxReason bounds the words that come with a code at the end.
	maxReason = 256

	// writeStall is how long the peer may take no byte at all while there are some
	// for it. A peer always reads records, even of a stream that nobody reads.
	writeStall = 30 * time.Second

	// goodbye bounds the time to tell the peer why its connection ends.
	goodbye = time.Second

	// keptBuffer is what an empty stream may hold on to.
	keptBuffer = 4 << 10
)
