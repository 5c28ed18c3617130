// SPDX-License-Identifier: Apache-2.0

// Package warp sets the wall clock of one running process and of no other, for tests of
// what a daemon does when an administrator or a time server sets the clock of its machine.
//
//	c, err := warp.Take(pid) // patches the process; from here on it has a clock of its own
//	err = c.Set(+3 * time.Hour)
//	err = c.Set(0)
//
// A Go program reads the time without a system call, from code that the kernel maps
// into each process (the vDSO). LD_PRELOAD does not reach that, time namespaces shift the
// monotonic clocks only, and the machine's clock belongs to everybody on it. Take
// writes a few instructions of its own into the process's copy of the vDSO: they ask the
// kernel, and add an offset to the wall clock. The monotonic clock runs on, as it does when
// a real clock is set.
//
// It works on Linux on amd64, and needs the right to trace the process. Never point it at
// a process that is not a test's own.
package warp
