// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// room asks the file system (statfs(2)).
func room(dir string) (space, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return space{}, err
	}
	block := uint64(s.Bsize)
	return space{free: s.Bavail * block, whole: s.Blocks * block, inodes: s.Ffree, least: s.Files}, nil
}

// Owner says whether this process runs as the user whom path belongs to: what another
// one can read or write says nothing about the daemon, and what another one makes may
// lock the daemon out. A path that does not exist belongs to nobody.
func Owner(r *Report, path string) (same bool) {
	info, err := os.Stat(path)
	if err != nil {
		return true
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) == os.Geteuid() {
		return true
	}
	name := strconv.Itoa(int(stat.Uid))
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	r.Fail("user", "other_user", "run it as the daemon's user: runuser -u "+name+" -- COMMAND", "%s belongs to %s, and this is another user: nothing that follows would be true for the daemon", path, name)
	return false
}

// Buffers asks the kernel for the buffers that QUIC's sockets want, and what it gave
// (socket(7), SO_RCVBUF and SO_SNDBUF).
func Buffers(r *Report) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		r.Fail("sockets", "no_udp", "let the daemon open sockets", "%v", err)
		return
	}
	defer conn.Close()
	_ = conn.SetReadBuffer(wantBuffer) // what came of it is asked
	_ = conn.SetWriteBuffer(wantBuffer)
	var given [2]int
	raw, err := conn.SyscallConn()
	if err == nil {
		var inner error
		err = raw.Control(func(fd uintptr) {
			for i, option := range [2]int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
				if given[i], inner = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, option); inner != nil {
					return
				}
			}
		})
		if err == nil {
			err = inner
		}
	}
	if err != nil {
		r.Fail("sockets", "no_udp", "let the daemon ask for the sizes of its buffers", "%v", err)
		return
	}
	for i, name := range [2]string{"net.core.rmem_max", "net.core.wmem_max"} {
		if given[i] < wantBuffer {
			r.Warn("sockets", "buffers_small", fmt.Sprintf("sysctl -w %s=%d, and the same line in /etc/sysctl.d: bursts of datagrams are lost otherwise, and devices send them again", name, wantBuffer),
				"the kernel gives a socket %d KiB where QUIC wants %d (%s)", given[i]>>10, wantBuffer>>10, name)
		} else {
			r.OK("sockets", "the kernel gives a socket the %d KiB that QUIC wants (%s)", wantBuffer>>10, name)
		}
	}
}

// Files says whether the process may have as many files open as it has connections and
// then some (getrlimit(2), RLIMIT_NOFILE). Go raises the soft bound to the hard one.
func Files(r *Report, need int) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		r.Fail("limits", "limits_unknown", "let the daemon ask for its bounds", "%v", err)
		return
	}
	if limit.Max < uint64(need) {
		r.Warn("limits", "few_files", fmt.Sprintf("LimitNOFILE=%d in the unit, or ulimit -n; or allow fewer connections in the configuration", need), "%d files may be open, and %d are wanted for all connections", limit.Max, need)
		return
	}
	r.OK("limits", "%d files may be open, %d are wanted", limit.Max, need)
}

// kernelClock asks whether something keeps the clock right (adjtimex(2)).
func kernelClock() (synced bool, most time.Duration, err error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, 0, err
	}
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, time.Duration(t.Maxerror) * time.Microsecond, nil
}
