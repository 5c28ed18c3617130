// SPDX-License-Identifier: Apache-2.0

package patroni

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Member is one server with the Patroni that keeps it. Its methods may be called by any
// goroutine.
type Member struct {
	Name string

	cluster    *Cluster
	rest, port int

	mu      sync.Mutex
	patroni *process // guarded by mu
}

func (m *Member) data() string   { return filepath.Join(m.cluster.dir, m.Name) }
func (m *Member) config() string { return filepath.Join(m.cluster.dir, m.Name+".yml") }

// Start starts Patroni, which starts PostgreSQL, again after Kill.
func (m *Member) Start() (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.patroni, err = m.cluster.run(m.Name, "patroni", m.config())
	return err
}

// Kill is kill -9 of Patroni and of all processes of PostgreSQL, as if the machine had
// ended.
func (m *Member) Kill() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.patroni != nil {
		m.patroni.kill()
	}
	return m.killPostgres()
}

// KillPostgres is kill -9 of PostgreSQL alone; Patroni notices.
func (m *Member) KillPostgres() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.killPostgres()
}

func (m *Member) killPostgres() error {
	all := m.server()
	for _, pid := range all { // the first one first: it starts no more
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	for _, pid := range all {
		for begin := time.Now(); runs(pid); time.Sleep(5 * time.Millisecond) {
			if time.Since(begin) > time.Minute {
				return fmt.Errorf("patroni: process %d of %s does not end", pid, m.Name)
			}
		}
	}
	return nil
}

// Revive has a member go on, whatever was done to it.
func (m *Member) Revive() error {
	m.mu.Lock()
	running := false
	select {
	case <-m.patroni.done:
	default:
		running = true
	}
	err := error(nil)
	if running {
		err = m.signal(syscall.SIGCONT)
	}
	m.mu.Unlock()
	if running {
		return err
	}
	return m.Start()
}

// Freeze stops all processes of the member where they are: it takes connections, and
// answers nothing. Thaw lets them go on.
func (m *Member) Freeze() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.signal(syscall.SIGSTOP)
}

// Thaw ends Freeze.
func (m *Member) Thaw() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.signal(syscall.SIGCONT)
}

func (m *Member) signal(s syscall.Signal) error {
	err := m.patroni.cmd.Process.Signal(s)
	for _, pid := range m.server() {
		if e := syscall.Kill(pid, s); e != nil && !errors.Is(e, syscall.ESRCH) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Silence stops the processes that bring what is written to the standbys: from now on they
// hear nothing, and nothing is on its way. It reports how many there were.
func (m *Member) Silence() (n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, pid := range m.server() {
		title, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if bytes.Contains(title, []byte("walsender")) {
			n++
			err = errors.Join(err, syscall.Kill(pid, syscall.SIGSTOP))
		}
	}
	return n, err
}

// server lists the processes of PostgreSQL, the first one first. None is left out when that is
// stopped before.
func (m *Member) server() []int {
	file, err := os.ReadFile(filepath.Join(m.data(), "postmaster.pid"))
	line, _, _ := strings.Cut(string(file), "\n")
	pid, e := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || e != nil || !runs(pid) || !m.owns(pid) {
		return nil
	}
	all := []int{pid}
	list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for word := range strings.FieldsSeq(string(list)) {
		if child, err := strconv.Atoi(word); err == nil {
			all = append(all, child)
		}
	}
	return all
}

// owns reports whether a process is this member's server, and not one that has got the number of
// a former one.
func (m *Member) owns(pid int) bool {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return slices.Contains(strings.Split(string(line), "\x00"), m.data())
}

// runs reports whether a process has not ended. One that nobody has waited for has no
// program.
func runs(pid int) bool {
	_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil
}

// A process is Patroni or etcd.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has been waited for
}

// run starts a program as the cluster's user. It ends with this process.
func (c *Cluster) run(name, program string, args ...string) (*process, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(c.cfg.Logs, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = c.dir, log, log
	p.cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC", "HOME=" + c.dir, "PYTHONDONTWRITEBYTECODE=1"}
	p.cmd.SysProcAttr = c.who.Attr()
	p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error)
	go func() { // the kernel ends a child with the thread that started it
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
			close(p.done)
		}
	}()
	return p, <-started
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}
