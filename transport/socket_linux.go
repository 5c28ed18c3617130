// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"encoding/binary"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Socket prepares a UDP socket for QUIC: datagrams that the kernel has put together
// (udp(7): UDP_GRO) come up in one piece and are taken apart here, which spares
// both sides most of what the kernel does for each. One call takes at most so many
// pieces; a server wants ServerReads, a client 1. What is not a UDP socket, or
// of a kernel that cannot, is returned as it is.
func Socket(conn net.PacketConn, pieces int) net.PacketConn {
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		return conn
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return conn
	}
	refused := error(nil)
	err = raw.Control(func(fd uintptr) { refused = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) })
	if err != nil || refused != nil {
		return conn
	}
	s := &socket{UDPConn: udp, in: ipv4.NewPacketConn(udp)} // which reads IPv6 too
	for range max(pieces, 1) {
		s.read = append(s.read, ipv4.Message{Buffers: [][]byte{make([]byte, maxDatagrams)}, OOB: make([]byte, maxControl)})
	}
	return s
}

// A socket reads many datagrams in one call. It is a quic.OOBCapablePacketConn.
type socket struct {
	*net.UDPConn
	in *ipv4.PacketConn

	// Owned by the one caller of ReadBatch.
	read []ipv4.Message // what the kernel fills
	have int            // how many of read it has filled
	next int            // the one to be given out
	at   int            // where its next datagram begins
}

// ReadBatch fills ms with datagrams, one each, and waits while there is none.
func (s *socket) ReadBatch(ms []ipv4.Message, flags int) (n int, err error) {
	for s.next == s.have {
		s.next, s.at = 0, 0
		if s.have, err = s.in.ReadBatch(s.read, flags); err != nil {
			s.have = 0
			return 0, err
		}
	}
	for n < len(ms) && s.next < s.have {
		s.give(&ms[n])
		n++
	}
	return n, nil
}

// give copies the next datagram into m. What is longer than its buffer is cut off,
// as by the kernel.
func (s *socket) give(m *ipv4.Message) {
	from := &s.read[s.next]
	data, control := from.Buffers[0][:from.N], from.OOB[:from.NN]
	end := min(s.at+segmentSize(control, len(data)), len(data))
	m.N = copy(m.Buffers[0], data[s.at:end])
	m.NN = copy(m.OOB, control)
	m.Addr, m.Flags = from.Addr, from.Flags
	if s.at = end; end == len(data) {
		s.next, s.at = s.next+1, 0
	}
}

// segmentSize is the size of the datagrams that were put together; the last one may
// be shorter. Without a word about it there is one.
func segmentSize(control []byte, all int) int {
	for len(control) > 0 {
		h, body, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(body) >= 4 {
			if n := int(int32(binary.NativeEndian.Uint32(body))); n > 0 {
				return n
			}
		}
		control = rest
	}
	return max(all, 1)
}
