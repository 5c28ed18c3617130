// SPDX-License-Identifier: Apache-2.0

package store

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// giveUp ends a connection whose other end has not acknowledged anything for deadAfter: the
// system would go on for a quarter of an hour.
func giveUp(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
	}); e != nil {
		return e
	}
	return err
}
