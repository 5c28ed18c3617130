// SPDX-License-Identifier: Apache-2.0

//go:build unix

package testenv

import (
	"io/fs"
	"os"
	"syscall"
)

// owned reports whether the file belongs to the user who runs the tests.
func owned(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}
