// SPDX-License-Identifier: Apache-2.0

// Package daemons starts what the benchmarks measure as processes of their own,
// and reads what they use: processor time, memory. A benchmark calls
//
//	p, err := daemons.Start(log, syscall.SIGTERM, nil, env, "nats-server", "-c", config)
//	defer p.Stop()
//	used, err := daemons.CPU(p)
//
// What it starts ends with the program, even when that is killed. Never measure a
// server inside the process that loads it: their garbage collectors would share.
package daemons

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"valise/internal/stage"
)

// A Process is a daemon that this program started and that ends with it.
type Process struct {
	cmd  *exec.Cmd
	log  string
	end  os.Signal     // asks it to stop
	done chan struct{} // closed when it has been waited for
}

// Start runs a daemon with its output in a file. It dies with this program, even
// when that is killed.
func Start(log string, end os.Signal, as *syscall.Credential, env []string, command string, args ...string) (*Process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(command, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM, Credential: as}
	p := &Process{cmd: cmd, log: log, end: end, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the kernel ends the child with the thread that started it
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", command, err)
	}
	return p, nil
}

// Stop asks politely, then insists.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(p.end)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// Ended is why a process that should run does not.
func (p *Process) Ended() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	text, err := os.ReadFile(p.log)
	return errors.Join(fmt.Errorf("%s has ended:\n%s", filepath.Base(p.cmd.Path), text[max(0, len(text)-4000):]), err)
}

// Accepts waits until something listens.
func (p *Process) Accepts(ctx context.Context, network, address string) error {
	_, err := stage.Poll(ctx, filepath.Base(p.cmd.Path)+" to listen", func() (struct{}, bool, error) {
		conn, err := net.Dial(network, address)
		if err == nil {
			return struct{}{}, true, conn.Close()
		}
		return struct{}{}, false, p.Ended()
	})
	return err
}

// FreePort asks the kernel for a port that is free at the moment.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// CPU is the processor time that processes and everything below them have used:
// their own, and that of children that ended (proc(5): utime, stime, cutime, cstime).
func CPU(processes ...*Process) (time.Duration, error) {
	parents, ticks := make(map[int]int), make(map[int]int64)
	dirs, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, path := range dirs {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, parent, used, err := parseStat(string(text))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		parents[pid], ticks[pid] = parent, used
	}
	var total int64
	for pid, used := range ticks {
		for up := pid; up > 1; up = parents[up] {
			if isOneOf(up, processes) {
				total += used
				break
			}
		}
	}
	for _, p := range processes {
		if _, runs := ticks[p.cmd.Process.Pid]; !runs {
			return 0, fmt.Errorf("%s does not run", filepath.Base(p.cmd.Path))
		}
	}
	return time.Duration(total) * time.Second / clockTicks, nil
}

func isOneOf(pid int, processes []*Process) bool {
	for _, p := range processes {
		if p.cmd.Process.Pid == pid {
			return true
		}
	}
	return false
}

// clockTicks is USER_HZ, which is 100 on every architecture that Go runs on.
const clockTicks = 100

// parseStat reads a line of /proc/PID/stat. The name, in brackets, may hold anything.
func parseStat(line string) (pid, parent int, ticks int64, err error) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 1 || end < open {
		return 0, 0, 0, errors.New("no name")
	}
	fields := strings.Fields(line[end+1:])
	if len(fields) < 15 {
		return 0, 0, 0, errors.New("too short")
	}
	pid, err1 := strconv.Atoi(strings.TrimSpace(line[:open]))
	parent, err2 := strconv.Atoi(fields[1])
	err = errors.Join(err1, err2)
	for _, field := range fields[11:15] {
		n, e := strconv.ParseInt(field, 10, 64)
		ticks, err = ticks+n, errors.Join(err, e)
	}
	return pid, parent, ticks, err
}

// RSS is the memory of the process that lies in RAM, in bytes (proc(5): VmRSS).
func (p *Process) RSS() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("VmRSS is missing")
}

// Pid is the number of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }
