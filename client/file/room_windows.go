// SPDX-License-Identifier: Apache-2.0

package file

import "golang.org/x/sys/windows"

// freeIn is how many bytes this user may still write into a folder, and false if there
// is no telling.
func freeIn(dir string) (uint64, bool) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, false
	}
	var free uint64
	if windows.GetDiskFreeSpaceEx(name, &free, nil, nil) != nil {
		return 0, false
	}
	return free, true
}
