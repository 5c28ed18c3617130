// SPDX-License-Identifier: Apache-2.0

//go:build linux

package reader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Config says where the reader lives and which cards are in it at first.
type Config struct {
	Dir           string   // made if it does not exist; its path must be short
	Cards         []string // state files of at most two cards
	OutliveParent bool     // keep running when the starting process ends
	Remove        bool     // remove Dir at the end
}

// ErrNamespaces says that this computer or container forbids namespaces.
var ErrNamespaces = errors.New("namespaces are forbidden here")

const (
	// maxSocketPath is what fits into a sockaddr_un, with its final zero.
	maxSocketPath = 107

	// exitNamespaces is how the inner half says ErrNamespaces.
	exitNamespaces = 3

	// patience is how long the inner half may take to clean up.
	patience = 5 * time.Second
)

// Socket is the path that PCSCLITE_CSOCK_NAME must name to reach the reader.
func (c Config) Socket() string { return filepath.Join(c.Dir, "pcscd", "pcscd.comm") }

func (c Config) controlSocket() string { return filepath.Join(c.Dir, "control") }

// Prepare makes paths absolute, checks them and makes the folder.
func (c *Config) Prepare() error {
	if len(c.Cards) > bays {
		return fmt.Errorf("reader: %d cards do not fit: a reader holds %d, start another one", len(c.Cards), bays)
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(c.Dir, "pcscd"), 0o755); err != nil {
		return err
	}
	if c.Dir, err = visible(c.Dir); err != nil {
		return err
	}
	if n := len(c.Socket()); n > maxSocketPath {
		return fmt.Errorf("reader: socket path %s has %d bytes, %d are possible: use a shorter folder", c.Socket(), n, maxSocketPath)
	}
	for i, path := range c.Cards {
		if c.Cards[i], err = visible(path); err != nil {
			return err
		}
	}
	return nil
}

// visible resolves a path and refuses one that cannot be seen from inside.
func visible(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	if path == "/run" || strings.HasPrefix(path, "/run/") {
		return "", fmt.Errorf("reader: %s lies below /run, which is hidden from a private reader: use another folder", path)
	}
	return path, nil
}

// Run runs a reader until ctx is cancelled. It must be called from the main
// goroutine while that is locked to the main thread (runtime.LockOSThread in
// an init function): the kernel ends the reader with the thread that made it.
func Run(ctx context.Context, cfg Config) error {
	runtime.LockOSThread()
	if !cfg.OutliveParent {
		if err := endWithParent(); err != nil {
			return err
		}
	}
	defer cfg.clean()
	cmd, err := startInside(cfg)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		cmd.Process.Signal(unix.SIGTERM)
		time.AfterFunc(patience, func() { cmd.Process.Kill() })
	})
	defer stop()
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() == exitNamespaces {
		return fmt.Errorf("reader: %w", ErrNamespaces)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("reader: inner process: %w", err)
	}
	return nil
}

// endWithParent asks the kernel for SIGTERM when the parent dies.
func endWithParent() error {
	parent := os.Getppid()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return fmt.Errorf("reader: parent death signal: %w", err)
	}
	if os.Getppid() != parent {
		return errors.New("reader: the starting process is gone")
	}
	return nil
}

// startInside starts the inner half. Root needs no user namespace, but a
// container's root may not be allowed to do without.
func startInside(cfg Config) (*exec.Cmd, error) {
	var errs []error
	for _, user := range []bool{os.Geteuid() != 0, true} {
		cmd := insideCommand(cfg, user)
		err := cmd.Start()
		if err == nil {
			return cmd, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("reader: %w: new user, mount, network and process namespaces: %w", ErrNamespaces, errs[len(errs)-1])
}

func insideCommand(cfg Config, user bool) *exec.Cmd {
	args := append([]string{"inside", "--dir", cfg.Dir, "--"}, cfg.Cards...)
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID,
		Pdeathsig:  unix.SIGKILL,
	}
	if user {
		attr := cmd.SysProcAttr
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

// clean removes what a killed inner half could not.
func (c Config) clean() {
	if c.Remove {
		os.RemoveAll(c.Dir)
		return
	}
	for _, name := range []string{c.Socket(), filepath.Join(c.Dir, "pcscd", "pcscd.pid"), c.controlSocket()} {
		os.Remove(name)
	}
}
