// SPDX-License-Identifier: Apache-2.0

package file

import "fmt"

// A RoomError says that a folder's disk has no room for a file. Nothing was asked of the
// gateway, and what had arrived before is kept.
type RoomError struct {
	Dir        string
	Need, Free uint64 // bytes
}

func (e *RoomError) Error() string {
	return fmt.Sprintf("%s has room for %d MiB, and the file needs %d MiB more", e.Dir, e.Free>>20, e.Need>>20)
}

// Hint says what to do.
func (e *RoomError) Hint() string {
	return "make room there, or fetch it into a folder on another disk"
}

// ErrorCode is the reason, for programs.
func (e *RoomError) ErrorCode() string { return "no_room" }

// roomFor says whether a folder has room for so many bytes more, and some to spare: a
// disk that is filled to its end serves nobody.
func roomFor(dir string, need uint64, free func(string) (uint64, bool)) error {
	if n, ok := free(dir); ok && need > 0 && n < need+spare {
		return &RoomError{Dir: dir, Need: need, Free: n}
	}
	return nil
}
