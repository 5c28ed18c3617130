// SPDX-License-Identifier: Apache-2.0

//go:build linux

package land

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// A unit is a daemon that systemctl has started.
type unit struct {
	name  string
	path  string // of what it has written
	cmd   *exec.Cmd
	ended chan struct{}
}

func (u *unit) log() string {
	data, _ := os.ReadFile(u.path)
	return string(data)
}

func (u *unit) runs() bool {
	select {
	case <-u.ended:
		return false
	default:
		return u.cmd != nil
	}
}

var execStart = regexp.MustCompile(`(?m)^ExecStart=/usr/bin/(\S+)(.*)$`)

// line is what a unit starts.
func (l *Land) line(name string) ([]string, error) {
	files, _ := filepath.Glob(filepath.Join(l.cfg.Project, "packaging", "*", name))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if match := execStart.FindStringSubmatch(string(data)); match != nil {
			return append([]string{filepath.Join(l.cfg.Bin, match[1])}, strings.Fields(match[2])...), nil
		}
	}
	return nil, fmt.Errorf("packaging/ has no %s that starts something of /usr/bin", name)
}

// service plays systemctl and journalctl; served says whether it was one of them.
func (l *Land) service(ctx context.Context, m *machine, command string) (served bool, out []string, err error) {
	words := strings.Fields(command)
	switch words[0] {
	case "systemctl":
		return true, nil, l.systemctl(ctx, m, words[1:])
	case "journalctl":
		if len(words) < 3 || words[1] != "-u" {
			return true, nil, errors.New("want journalctl -u UNIT")
		}
		u := m.units[service(words[2])]
		if u == nil {
			return true, nil, fmt.Errorf("no unit %s was started here", words[2])
		}
		return true, strings.Split(strings.TrimRight(u.log(), "\n"), "\n"), nil
	}
	return false, nil, nil
}

func service(name string) string {
	if strings.Contains(name, ".") {
		return name
	}
	return name + ".service"
}

func (l *Land) systemctl(ctx context.Context, m *machine, words []string) error {
	var rest []string
	for _, w := range words {
		if w != "--now" {
			rest = append(rest, w)
		}
	}
	if len(rest) < 2 {
		return errors.New("want systemctl VERB UNIT")
	}
	for _, name := range rest[1:] {
		if err := l.control(ctx, m, rest[0], service(name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (l *Land) control(ctx context.Context, m *machine, verb, name string) error {
	u := m.units[name]
	switch verb {
	case "enable", "start":
		return l.serve(ctx, m, name)
	case "stop", "disable":
		return u.stop(l.cfg.Patience)
	case "restart":
		if err := u.stop(l.cfg.Patience); err != nil {
			return err
		}
		return l.serve(ctx, m, name)
	case "reload":
		if u == nil || !u.runs() {
			return errors.New("it does not run")
		}
		return u.signal(syscall.SIGHUP)
	}
	return fmt.Errorf("systemctl %s is not played here", verb)
}

// serve starts a unit's daemon; it returns when it listens.
func (l *Land) serve(ctx context.Context, m *machine, name string) error {
	if u := m.units[name]; u != nil && u.runs() {
		return nil
	}
	line, err := l.line(name)
	if err != nil {
		return err
	}
	u := &unit{name: name, path: filepath.Join(l.dir, m.Name+"-"+name+".log"), ended: make(chan struct{})}
	out, err := os.OpenFile(u.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	before := m.listening()
	u.cmd = m.inside(nil, line...)
	u.cmd.Stdout, u.cmd.Stderr = out, out
	u.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := startLocked(u.cmd, u.ended); err != nil {
		return err
	}
	m.units[name] = u
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(l.cfg.Patience)
	defer late.Stop()
	for m.listening() <= before {
		select {
		case <-tick.C:
		case <-u.ended:
			return fmt.Errorf("it ended at once:\n%s", u.log())
		case <-late.C:
			return errors.Join(errPatience, errors.New(u.log()))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// signal reaches the daemon itself: nsenter, which entered a namespace of processes,
// waits for it.
func (u *unit) signal(s syscall.Signal) error {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", u.cmd.Process.Pid, u.cmd.Process.Pid))
	if err != nil {
		return err
	}
	pid := 0
	if _, err := fmt.Sscan(string(data), &pid); err != nil {
		return fmt.Errorf("the daemon of %s: %w", u.name, err)
	}
	return syscall.Kill(pid, s)
}

func (u *unit) stop(patience time.Duration) error {
	if u == nil || !u.runs() {
		return nil
	}
	if err := u.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-u.ended:
		return nil
	case <-time.After(patience):
		return errPatience
	}
}
