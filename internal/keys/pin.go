// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"valise/hsm"
)

// ErrPINFile says that a PIN file is not fit to hold a PIN.
var ErrPINFile error = &uriError{
	"the PIN file is not safe to use",
	"it must be a plain file that only its owner can read: chmod 600 FILE",
}

// PINFromFile reads the PIN from a file at each login, without the white space
// around it. On systems with permission bits, a file that group or others can
// read is refused.
func PINFromFile(path string) hsm.PINFunc {
	return func(context.Context, hsm.PINRequest) (string, error) {
		pin, err := readPIN(path)
		if err != nil {
			return "", fmt.Errorf("keys: PIN from %s: %w", path, err)
		}
		return pin, nil
	}
}

func readPIN(path string) (string, error) {
	if info, err := os.Stat(path); err != nil { // before opening: a pipe would block
		return "", bare(err)
	} else if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%w: it is no plain file", ErrPINFile)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", bare(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", bare(err)
	}
	if mode := info.Mode(); runtime.GOOS != "windows" && mode.Perm()&0o077 != 0 {
		return "", fmt.Errorf("%w: its mode is %04o", ErrPINFile, mode.Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPINFile+1))
	if err != nil {
		return "", bare(err)
	}
	if len(data) > maxPINFile {
		return "", fmt.Errorf("%w: it has more than %d bytes", ErrPINFile, maxPINFile)
	}
	pin := bytes.TrimSpace(data)
	if len(pin) == 0 {
		return "", fmt.Errorf("%w: it is empty", ErrPINFile)
	}
	return string(pin), nil
}

// bare takes the path out of a file error; the caller names it.
func bare(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// promptText asks a person for a PIN.
func promptText(r hsm.PINRequest) string {
	switch {
	case r.Retries == 1:
		return fmt.Sprintf("PIN of %s, serial %s (LAST try before it locks): ", r.Token, r.Serial)
	case r.Retries > 0:
		return fmt.Sprintf("PIN of %s, serial %s (%d tries left): ", r.Token, r.Serial, r.Retries)
	}
	return fmt.Sprintf("PIN of %s, serial %s: ", r.Token, r.Serial)
}

// PINPrompt asks for the PIN on a terminal, without showing it. With nil it
// takes the process's controlling terminal.
func PINPrompt(tty *os.File) hsm.PINFunc {
	return func(ctx context.Context, r hsm.PINRequest) (string, error) {
		pin, err := promptOn(ctx, tty, promptText(r))
		if err != nil {
			return "", fmt.Errorf("keys: asking for the PIN of %s: %w", r.Token, err)
		}
		return pin, nil
	}
}

func promptOn(ctx context.Context, tty *os.File, text string) (string, error) {
	if tty == nil {
		opened, err := os.OpenFile(controllingTerminal, os.O_RDWR, 0)
		if err != nil {
			return "", hsm.ErrNoPIN
		}
		defer opened.Close()
		tty = opened
	}
	return prompt(ctx, tty, text)
}
