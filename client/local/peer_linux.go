// SPDX-License-Identifier: Apache-2.0

package local

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// checkPeer asks the kernel who is at the other end (unix(7), SO_PEERCRED).
func checkPeer(c net.Conn) error {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("not a unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, credErr); err != nil {
		return err
	}
	return samePerson(int(cred.Uid), os.Getuid())
}

func samePerson(peer, own int) error {
	if peer != own {
		return fmt.Errorf("user %d is not the one that this agent belongs to", peer)
	}
	return nil
}
