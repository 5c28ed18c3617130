// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"cmp"
	"io"
	"sync"
	"time"

	"valise/transport"
	"valise/wire"
)

// frames reads one frame after another from a stream. A device may wait with the next
// one for as long as it likes, but one that has begun must be whole in time: what has
// come of it is memory that the device could hold for ever, byte by byte.
type frames struct {
	stream transport.Stream
	limit  time.Duration
	timed  bool          // a deadline is set
	in     *bufio.Reader // nil while nothing is read ahead
	begun  []byte        // of first, what in has not taken yet
	first  [16]byte
	last   wire.Last // of those that raw has read
}

// readers are for frames that have begun: a connection that waits for the next one
// holds no more than a few bytes for it.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readAhead) }}

// begin waits for the first bytes of a frame, if none is here.
func (f *frames) begin() error {
	if f.in != nil && f.in.Buffered() > 0 {
		return nil
	}
	f.end()
	n, err := f.stream.Read(f.first[:])
	if n == 0 {
		return cmp.Or(err, io.ErrNoProgress)
	}
	f.begun, f.in = f.first[:n], readers.Get().(*bufio.Reader)
	f.in.Reset(f)
	_, err = f.in.Peek(n)
	return err
}

// end gives back the memory of what was read.
func (f *frames) end() {
	if f.in != nil {
		f.in.Reset(nil)
		readers.Put(f.in)
		f.in = nil
	}
}

// Read implements io.Reader for the bufio.Reader: what begin has read comes first.
func (f *frames) Read(p []byte) (int, error) {
	if len(f.begun) > 0 {
		n := copy(p, f.begun)
		f.begun = f.begun[n:]
		return n, nil
	}
	return f.stream.Read(p)
}

// next waits for a frame to begin. One that is here already needs no deadline, which
// is what most are.
func (f *frames) next() error {
	if f.timed {
		_ = f.stream.SetReadDeadline(time.Time{})
		f.timed = false
	}
	if err := f.begin(); err != nil {
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
	return f.last.ReadRaw(f.in)
}
