// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"time"

	"valise/transport"
	"valise/wire"
)

// frames reads one frame after another from a stream. A device may wait with the next
// one for as long as it likes, but one that has begun must be whole in time: what has
// come of it is memory that the device could hold for ever, byte by byte.
type frames struct {
	stream transport.Stream
	in     *bufio.Reader
	limit  time.Duration
	timed  bool // a deadline is set
}

// next waits for a frame to begin. One that is here already needs no deadline, which
// is what most are.
func (f *frames) next() error {
	if f.timed {
		_ = f.stream.SetReadDeadline(time.Time{})
		f.timed = false
	}
	if _, err := f.in.Peek(1); err != nil {
		return err
	}
	if here, _ := f.in.Peek(f.in.Buffered()); !wire.BeginsWhole(here) {
		_ = f.stream.SetReadDeadline(time.Now().Add(f.limit))
		f.timed = true
	}
	return nil
}

// small reads one that is small.
func (f *frames) small() (wire.Frame, error) {
	if err := f.next(); err != nil {
		return nil, err
	}
	return wire.ReadSmall(f.in)
}

// raw reads one of any size, and returns its body too.
func (f *frames) raw() (wire.Frame, []byte, error) {
	if err := f.next(); err != nil {
		return nil, nil, err
	}
	return wire.ReadRaw(f.in)
}
