// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package daemon

import "errors"

func room(string) (free, whole uint64, err error) {
	return 0, 0, errors.New("daemon: the room on a disk is known on Linux only")
}
