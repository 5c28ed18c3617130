// SPDX-License-Identifier: Apache-2.0

//go:build unix

package blob

import (
	"context"

	"golang.org/x/sys/unix"
)

// Free implements Place: what a process without privileges may still write. A file system
// that counts nothing says nothing.
func (f *Folder) Free(context.Context) (uint64, bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(f.path, &st); err != nil || st.Blocks == 0 {
		return 0, false
	}
	return uint64(st.Bavail) * uint64(st.Bsize), true
}
