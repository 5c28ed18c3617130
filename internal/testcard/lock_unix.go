// SPDX-License-Identifier: Apache-2.0

//go:build unix

package testcard

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrInUse says that the card is in another reader.
var ErrInUse = errors.New("the card is in another reader")

// lock takes the card for this process. The lock is on a file beside the
// state, which is replaced at every change.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("testcard: %s: %w", path, ErrInUse)
	}
	return func() { f.Close() }, nil
}
