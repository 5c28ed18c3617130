// SPDX-License-Identifier: Apache-2.0

//go:build linux

package reader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Inside is the inner half: first process of its own process namespace, so
// that the kernel ends pcscd with it. It prints the cards and, when clients
// can see them, a line PCSCLITE_CSOCK_NAME=PATH; then it obeys the control
// socket until ctx is cancelled.
func Inside(ctx context.Context, cfg Config, out io.Writer) error {
	if err := hideHost(cfg.Dir); err != nil {
		return err
	}
	if err := loopback(); err != nil {
		return err
	}
	m := &machine{cfg: cfg, known: make(map[uint32]string)}
	defer m.stop()
	if err := m.start(); err != nil {
		return err
	}
	for _, path := range cfg.Cards {
		serial, err := m.insertFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "virtual card %d in a private reader: no hardware, no protection\n", serial)
	}
	ln, err := listenControl(cfg.controlSocket())
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "PCSCLITE_CSOCK_NAME=%s\n", cfg.Socket())
	return m.serve(ctx, ln)
}

// hideHost gives this process its own view of files: /run is empty but for
// the reader's folder at /run/pcscd, and there are no USB devices, so that
// this pcscd can never take a real card away from its owner.
func hideHost(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return namespaceError("make mounts private", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m,mode=755"); err != nil {
		return namespaceError("mount a private /run", err)
	}
	if err := os.Mkdir("/run/pcscd", 0o755); err != nil {
		return err
	}
	if err := unix.Mount(filepath.Join(dir, "pcscd"), "/run/pcscd", "", unix.MS_BIND, ""); err != nil {
		return namespaceError("mount the reader's folder", err)
	}
	const usb = "/dev/bus/usb"
	if _, err := os.Stat(usb); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := unix.Mount("tmpfs", usb, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=0,mode=555"); err != nil {
		return namespaceError("hide "+usb, err)
	}
	return nil
}

func namespaceError(what string, err error) error {
	return fmt.Errorf("reader: %w: %s: %w", ErrNamespaces, what, err)
}

// loopback brings up the only interface of the new network namespace.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return namespaceError("open a socket", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return namespaceError("bring up the loopback interface", err)
	}
	return nil
}

// ExitCode is the status with which the inner half must end for err, so that
// the outer half understands it.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrNamespaces):
		return exitNamespaces
	}
	return 1
}
