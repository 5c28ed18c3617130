// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"errors"
	"fmt"
	"os"
	osuser "os/user"
	"strconv"
	"strings"
	"syscall"
)

// A User is whom the server runs as: PostgreSQL does not run as root.
type User struct {
	uid, gid uint32
	as       *syscall.Credential // whom root becomes; nil: this process's user will do
	inner    bool                // root of a namespace with nobody else in it: it goes by another number
}

// innerID is that number.
const innerID = 1000

// Unprivileged finds somebody whom this process may start a server as.
func Unprivileged() (*User, error) {
	if os.Geteuid() != 0 {
		return &User{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := osuser.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		if !mapped("/proc/self/uid_map", uid) || !mapped("/proc/self/gid_map", gid) {
			return &User{inner: true}, nil
		}
		return &User{uid: uint32(uid), gid: uint32(gid), as: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return nil, errors.New("postgres: PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

// mapped says whether a number means somebody in this process's user namespace.
func mapped(file string, id uint64) bool {
	data, err := os.ReadFile(file)
	if err != nil {
		return true // no user namespaces
	}
	for line := range strings.Lines(string(data)) {
		var inside, outside, n uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &n); err == nil && id >= inside && id-inside < n {
			return true
		}
	}
	return false
}

// Own gives the user a folder.
func (u *User) Own(dir string) error {
	if u.as == nil {
		return nil
	}
	return os.Chown(dir, int(u.uid), int(u.gid))
}

// Attr is how a process of theirs is started.
func (u *User) Attr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Credential: u.as, Setpgid: true}
	if u.inner {
		attr.Cloneflags = syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: innerID, HostID: 0, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: innerID, HostID: 0, Size: 1}}
	}
	return attr
}
