// SPDX-License-Identifier: Apache-2.0

package daemon

import "golang.org/x/sys/unix"

// room asks the file system (statfs(2)).
func room(dir string) (free, whole uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}
