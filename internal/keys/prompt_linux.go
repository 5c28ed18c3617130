// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"valise/hsm"
)

const controllingTerminal = "/dev/tty"

// pollPeriod is how often, in milliseconds, a prompt looks whether it is still
// wanted: the card may be pulled while a person looks for the PIN.
const pollPeriod = 100

// prompt reads a line without echo. Other than term.ReadPassword it ends with
// ctx, and leaves no reader behind that would swallow the next line.
func prompt(ctx context.Context, tty *os.File, text string) (string, error) {
	fd := int(tty.Fd())
	if !term.IsTerminal(fd) {
		return "", hsm.ErrNoPIN
	}
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", err
	}
	silent := *before
	silent.Lflag = silent.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	silent.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return "", err
	}
	defer func() {
		restore := uint(unix.TCSETS)
		if ctx.Err() != nil {
			restore = unix.TCSETSF // drop what was typed: it is part of a PIN
		}
		_ = unix.IoctlSetTermios(fd, restore, before)
	}()
	fmt.Fprint(tty, text)
	defer fmt.Fprintln(tty)
	for ctx.Err() == nil {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, pollPeriod)
		if err != nil && err != unix.EINTR {
			return "", err
		}
		if n > 0 {
			return readLine(fd)
		}
	}
	return "", ctx.Err()
}

// readLine reads the line that the terminal holds: in canonical mode all of it.
func readLine(fd int) (string, error) {
	var line [maxPINFile]byte
	defer clear(line[:])
	n, err := unix.Read(fd, line[:])
	if err != nil {
		return "", err
	}
	pin := strings.TrimRight(string(line[:max(n, 0)]), "\r\n")
	if pin == "" {
		return "", hsm.ErrNoPIN
	}
	return pin, nil
}
