// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"os"
	"syscall"
)

// datasync brings a file's bytes to the disk; its length was settled when it was
// made, so nothing else has to follow.
func datasync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }

// allocate settles a file's length and its place on the disk.
func allocate(f *os.File, size int64) error {
	err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return f.Truncate(size)
	}
	return err
}
