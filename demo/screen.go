// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"time"
)

// A screen prints what happens as it happens.
type screen struct {
	w     io.Writer
	start time.Time
	steps int
}

// step begins a numbered part of the demo.
func (s *screen) step(format string, args ...any) {
	s.steps++
	fmt.Fprintf(s.w, "\n[%5.1fs] %d. %s\n", time.Since(s.start).Seconds(), s.steps, fmt.Sprintf(format, args...))
}

// say prints one thing that happened.
func (s *screen) say(format string, args ...any) {
	fmt.Fprintf(s.w, "         %s\n", fmt.Sprintf(format, args...))
}
