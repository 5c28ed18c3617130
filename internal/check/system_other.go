// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package check

import (
	"errors"
	"time"
)

var errNotHere = errors.New("this system is not asked: daemons are checked on Linux")

func room(string) (space, error) { return space{}, errNotHere }

// Owner is looked at on Linux only.
func Owner(*Report, string) (same bool) { return true }

// Buffers are looked at on Linux only.
func Buffers(r *Report) {
	r.Warn("sockets", "not_looked_at", "run the daemon on Linux", "%v", errNotHere)
}

// Files are looked at on Linux only.
func Files(r *Report, _ int) {
	r.Warn("limits", "not_looked_at", "run the daemon on Linux", "%v", errNotHere)
}

func kernelClock() (synced bool, most time.Duration, err error) { return false, 0, errNotHere }
