// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Process is one long-running part: a reader with its card, a daemon, a
// receiver. Its output goes to a file under logs.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has been waited for
	err  error         // valid after done
}

// processes starts parts and makes sure that none outlives the stage.
type processes struct {
	logs string

	mu  sync.Mutex
	all []*Process // guarded by mu, in the order of their start
}

// start runs command in the background. env adds to this process's own.
func (ps *processes) start(name string, env []string, command string, args ...string) (*Process, error) {
	return ps.startIn(nil, name, env, command, args...)
}

func (ps *processes) startIn(n *Network, name string, env []string, command string, args ...string) (*Process, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	path := filepath.Join(ps.logs, fmt.Sprintf("%02d-%s.log", len(ps.all), name))
	out, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(command, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	p := &Process{name: name, cmd: cmd, log: path, done: make(chan struct{})}
	if err := p.run(n); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	ps.all = append(ps.all, p)
	return p, nil
}

// run starts the process and waits for it, on a thread of its own: the kernel
// ends a child that has a Pdeathsig with the thread that started it.
func (p *Process) run(n *Network) error {
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := n.enter()
		if err == nil {
			err = p.cmd.Start()
		}
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	return <-started
}

// Kill is kill -9: what shows that nothing acknowledged is lost.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop asks politely, then insists.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.Kill()
	}
}

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Pid is the process's number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// ended is why a process that should run does not.
func (p *Process) ended() error {
	if p.Running() {
		return nil
	}
	return fmt.Errorf("%s ended (%v):\n%s", p.name, p.err, tail(p.log))
}

// stopAll stops what still runs, last started first.
func (ps *processes) stopAll() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for i := len(ps.all) - 1; i >= 0; i-- {
		if ps.all[i].Running() {
			ps.all[i].Stop()
		}
	}
}

// WaitLine waits until the process has printed a line that contains text, and
// returns that line.
func (p *Process) WaitLine(ctx context.Context, text string) (string, error) {
	return Poll(ctx, fmt.Sprintf("%s to print %q", p.name, text), func() (string, bool, error) {
		line, err := findLine(p.log, text)
		if err != nil || line != "" {
			return line, line != "", err
		}
		return "", false, p.ended()
	})
}

func findLine(path, text string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if strings.Contains(s.Text(), text) {
			return s.Text(), nil
		}
	}
	return "", s.Err()
}

func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// Poll asks until the answer is there, an error ends it, or ctx does.
func Poll[T any](ctx context.Context, what string, ask func() (T, bool, error)) (T, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		v, ok, err := ask()
		if err != nil || ok {
			return v, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return v, fmt.Errorf("waited for %s: %w", what, ctx.Err())
		}
	}
}

// Output runs a command to its end and gives what it printed.
func Output(ctx context.Context, env []string, command string, args ...string) (string, error) {
	return (*Network)(nil).output(ctx, env, command, args...)
}

func (n *Network) output(ctx context.Context, env []string, command string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := n.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s %s: %w\n%s", filepath.Base(command), strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out.String(), err
}
