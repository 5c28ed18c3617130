// SPDX-License-Identifier: Apache-2.0

package store

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// A connection to a server that no packet reaches any more ends within half a minute,
// whether something is under way or not.
func TestDialGivesUp(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := dial(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, option := range map[string][3]int{
		"unacknowledged, ms": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 30000},
		"keep-alive":         {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		"idle, s":            {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
		"interval, s":        {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5},
		"count":              {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
	} {
		if err := raw.Control(func(fd uintptr) {
			if got, err := unix.GetsockoptInt(int(fd), option[0], option[1]); err != nil || got != option[2] {
				t.Errorf("%s: %d, %v, want %d", name, got, err, option[2])
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}
