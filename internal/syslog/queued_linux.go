// SPDX-License-Identifier: Apache-2.0

package syslog

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unacknowledged is how many bytes of a TCP connection the other side's kernel has not
// acknowledged (tcp(7), SIOCOUTQ).
func unacknowledged(conn net.Conn) (n int, err error) {
	s, ok := conn.(syscall.Conn)
	if !ok {
		return 0, errors.New("syslog: no socket")
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return n, errors.Join(controlErr, err)
}
