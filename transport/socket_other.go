// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package transport

import "net"

// Socket prepares a UDP socket for QUIC. There is nothing to do on this system.
func Socket(conn net.PacketConn, _ int) net.PacketConn { return conn }
