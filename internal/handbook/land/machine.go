// SPDX-License-Identifier: Apache-2.0

//go:build linux

package land

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"valise/internal/stage"
)

// A Machine says what a machine is called in the documents and on the network, and
// how many cards lie in its reader.
type Machine struct {
	Name  string
	Hosts []string
	Cards int
}

// A machine runs.
type machine struct {
	Machine
	address string
	root    string // of its files, from outside
	pid     int    // of its first process
	holder  *exec.Cmd
	ended   chan struct{}
	cards   []*stage.Card
	env     []string
	running *session // a command that a later step goes on with
	units   map[string]*unit
}

// setup makes a root of its own for the machine; what it shares with this one cannot
// be written by its package manager. $1 is an empty folder, $2 the stick.
const setup = `set -e
mount -t tmpfs land "$1"
cd "$1"
mkdir -p dev proc sys tmp usr run/lock etc/valise/enrolld etc/valise/gatewayd etc/softhsm media/stick var/tmp var/log/valise-enrolld var/log/valise-gatewayd var/lib/softhsm/tokens home/user root
for d in usr dev sys tmp; do mount --rbind /$d $d; done
mount -t proc proc proc
for l in bin sbin lib lib32 lib64; do
	if [ -L /$l ]; then cp -P /$l $l; elif [ -d /$l ]; then mkdir $l; mount --bind /$l $l; fi
done
for f in ld.so.cache ld.so.conf ld.so.conf.d passwd group nsswitch.conf ssl alternatives localtime services protocols host.conf pkcs11; do
	[ ! -e /etc/$f ] || cp -a /etc/$f etc/
done
mount --bind "$2" media/stick
chmod 700 home/user
printf 'directories.tokendir = /var/lib/softhsm/tokens\nobjectstore.backend = file\nlog.level = ERROR\n' >etc/softhsm/softhsm2.conf
ip link set lo up
exec chroot "$1" /bin/sh -c 'echo ready; exec sleep infinity'
`

// boot starts a machine's first process, which owns its namespaces.
func boot(ctx context.Context, dir, stick string) (*machine, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	m := &machine{ended: make(chan struct{}), units: make(map[string]*unit)}
	m.holder = exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private",
		"sh", "-c", setup, "sh", dir, stick)
	m.holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var problems bytes.Buffer
	m.holder.Stderr = &problems
	out, err := m.holder.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := startLocked(m.holder, m.ended); err != nil {
		return nil, err
	}
	line := make([]byte, 6)
	if _, err := out.Read(line); err != nil {
		<-m.ended
		return nil, fmt.Errorf("%w: %s", ErrForbidden, strings.TrimSpace(problems.String()))
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", m.holder.Process.Pid, m.holder.Process.Pid))
	if err != nil {
		return nil, err
	}
	if m.pid, err = strconv.Atoi(strings.TrimSpace(string(children))); err != nil {
		return nil, fmt.Errorf("land: the machine's first process: %w", err)
	}
	m.root = fmt.Sprintf("/proc/%d/root", m.pid)
	return m, ctx.Err()
}

// startLocked starts a process that ends with this one. The kernel ends it with the
// thread that started it, so that thread is kept to wait for it.
func startLocked(cmd *exec.Cmd, ended chan<- struct{}) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(ended)
		}
	}()
	return <-started
}

// halt ends everything on the machine.
func (m *machine) halt() {
	_ = syscall.Kill(m.pid, syscall.SIGKILL)
	_ = m.holder.Process.Kill()
	<-m.ended
}

// inside is a command that runs on the machine.
func (m *machine) inside(env []string, args ...string) *exec.Cmd {
	into := []string{"-t", strconv.Itoa(m.pid), "-m", "-n", "-p", "-r", "--", "/usr/bin/env", "-i", "--chdir=" + userHome}
	return exec.Command("nsenter", append(append(into, append(m.env, env...)...), args...)...)
}

// write writes a file of the machine.
func (m *machine) write(path, contents string) error {
	name := filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(contents), 0o600)
}

// listening counts the TCP sockets that listen on the machine.
func (m *machine) listening() (n int) {
	for _, name := range []string{"tcp", "tcp6"} {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", m.pid, name))
		n += bytes.Count(data, []byte(" 0A "))
	}
	return n
}

// run runs a program beside the machines.
func run(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// ErrForbidden says that machines cannot be made here, for want of the right to.
var ErrForbidden = errors.New("land: a machine cannot be made here")

var errPatience = errors.New("nothing more happened for a long time")
