// SPDX-License-Identifier: Apache-2.0

//go:build unix

package file

import "golang.org/x/sys/unix"

// freeIn is how many bytes this user may still write into a folder, and false if there
// is no telling.
func freeIn(dir string) (uint64, bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Blocks == 0 {
		return 0, false
	}
	return uint64(st.Bavail) * uint64(st.Bsize), true
}
