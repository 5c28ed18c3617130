// SPDX-License-Identifier: Apache-2.0

//go:build !linux || !amd64

package warp

import (
	"errors"
	"time"
)

// Supported says whether Take can work here.
const Supported = false

// A Clock is a process's own.
type Clock struct{}

var errUnsupported = errors.New("warp: only on Linux on amd64")

// Take gives a process a clock of its own.
func Take(int) (*Clock, error) { return nil, errUnsupported }

// Set lets the process's wall clock be wrong.
func (*Clock) Set(time.Duration) error { return errUnsupported }
