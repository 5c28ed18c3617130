// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package keys

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/term"

	"valise/hsm"
)

// prompt reads a line without echo. A line that is being waited for when ctx
// ends is read and thrown away.
func prompt(ctx context.Context, tty *os.File, text string) (string, error) {
	fd := int(tty.Fd())
	if !term.IsTerminal(fd) {
		return "", hsm.ErrNoPIN
	}
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	defer fmt.Fprintln(tty)
	fmt.Fprint(tty, text)
	type answer struct {
		line []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		answers <- answer{line, err}
	}()
	select {
	case a := <-answers:
		if a.err == nil && len(a.line) == 0 {
			a.err = hsm.ErrNoPIN
		}
		return string(a.line), a.err
	case <-ctx.Done():
		_ = term.Restore(fd, before)
		return "", ctx.Err()
	}
}
