// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"valise/wire"
)

// A StreamError says that one side gave up a stream.
type StreamError struct {
	Code   wire.CloseCode
	Remote bool
}

func (e *StreamError) Error() string {
	if e.Remote {
		return fmt.Sprintf("transport: the other side gave up the stream with code %d", e.Code)
	}
	return fmt.Sprintf("transport: stream given up with code %d", e.Code)
}

// A muxStream is a stream of a Mux. All fields below id are guarded by m.mu.
type muxStream struct {
	m        *Mux
	readable chan struct{} // something changed for the reader
	writable chan struct{} // something changed for the writer

	id uint32 // 0 before the first byte; set with the turn to write, and m.mu

	unread       bytes.Buffer
	room         int   // what the peer may still send
	eaten        int   // what was read and not yet credited
	peerDone     bool  // end or reset came
	readErr      error // why nothing can be read any more; io.EOF after the end
	readDeadline time.Time
	stopDue      *wire.CloseCode

	credit        int   // what this side may still send
	writeErr      error // why nothing can be written any more
	writeDeadline time.Time
	endDue        bool
	resetDue      *wire.CloseCode
	stopped       *wire.CloseCode // at the gateway: the peer wants no more, and is not answered yet
	ownDone       bool            // end or reset was sent
	isDue         bool            // stands in m.due
	released      bool            // its slot was given back
}

func newMuxStream(m *Mux, id uint32) *muxStream {
	return &muxStream{
		m: m, id: id, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1), room: Window, credit: Window,
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// await waits for a change, the deadline, or the end of the connection.
func (s *muxStream) await(change chan struct{}, deadline time.Time) error {
	var late <-chan time.Time
	if !deadline.IsZero() {
		left := time.Until(deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-change:
		return nil
	case <-late:
		return os.ErrDeadlineExceeded
	case <-s.m.ctx.Done():
		return context.Cause(s.m.ctx)
	}
}

// Read implements Stream.
func (s *muxStream) Read(p []byte) (int, error) {
	for {
		n, deadline, err := s.tryRead(p)
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		if err := s.await(s.readable, deadline); err != nil {
			return 0, err
		}
	}
}

func (s *muxStream) tryRead(p []byte) (n int, deadline time.Time, err error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.m.ctx.Err() != nil {
		return 0, deadline, context.Cause(s.m.ctx)
	}
	if s.unread.Len() == 0 {
		return 0, s.readDeadline, s.readErr
	}
	n, _ = s.unread.Read(p)
	if s.unread.Len() == 0 && s.unread.Cap() > keptBuffer {
		s.unread = bytes.Buffer{}
	}
	if s.eaten += n; s.eaten >= Window/2 && !s.peerDone {
		s.owe()
	}
	return n, deadline, nil
}

// Write implements Stream.
func (s *muxStream) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		n, deadline, err := s.reserve(len(p))
		if err != nil {
			return written, err
		}
		if n == 0 {
			if err := s.await(s.writable, deadline); err != nil {
				return written, err
			}
			continue
		}
		if err := s.m.writeData(s, p[:n], deadline); err != nil {
			return written, err
		}
		written += n
		p = p[n:]
	}
	return written, nil
}

// reserve takes from the credit what one record may carry.
func (s *muxStream) reserve(want int) (n int, deadline time.Time, err error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.writeErr != nil {
		return 0, deadline, s.writeErr
	}
	n = min(want, s.credit, maxData)
	s.credit -= n
	return n, s.writeDeadline, nil
}

// Close implements Stream: the peer learns that nothing more comes.
func (s *muxStream) Close() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.writeErr == nil {
		s.writeErr = os.ErrClosed
		s.endDue = true
		s.owe()
	}
	s.answerStop()
	return nil
}

// CancelWrite implements Stream. After Close it does nothing.
func (s *muxStream) CancelWrite(code wire.CloseCode) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.giveUp(code, &StreamError{Code: code})
	s.answerStop()
}

// answerStop lets a stream end that the peer wants no more of. Called with m.mu held.
func (s *muxStream) answerStop() {
	if s.stopped != nil {
		s.resetDue, s.stopped = s.stopped, nil
		s.owe()
	}
}

// giveUp ends sending with a reset. Called with m.mu held.
func (s *muxStream) giveUp(code wire.CloseCode, why error) {
	if s.writeErr != nil {
		return
	}
	s.writeErr = why
	s.resetDue = &code
	wake(s.writable)
	s.owe()
}

// CancelRead implements Stream: what the peer still sends is dropped.
func (s *muxStream) CancelRead(code wire.CloseCode) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.readErr != nil && s.unread.Len() == 0 {
		return
	}
	s.readErr = &StreamError{Code: code}
	s.unread = bytes.Buffer{}
	wake(s.readable)
	if !s.peerDone {
		s.stopDue = &code
		s.owe()
	}
}

// SetDeadline implements Stream.
func (s *muxStream) SetDeadline(t time.Time) error {
	return firstError(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// SetReadDeadline implements Stream.
func (s *muxStream) SetReadDeadline(t time.Time) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.readDeadline = t
	wake(s.readable)
	return nil
}

// SetWriteDeadline implements Stream.
func (s *muxStream) SetWriteDeadline(t time.Time) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.writeDeadline = t
	wake(s.writable)
	return nil
}

// The following are called with m.mu held, when a record has come.

func (s *muxStream) arrived(data []byte) error {
	if s.peerDone {
		return framing("data after the end of stream %d", s.id)
	}
	if s.room -= len(data); s.room < 0 {
		return framing("more on stream %d than its window", s.id)
	}
	if s.readErr == nil {
		s.unread.Write(data)
		wake(s.readable)
	}
	return nil
}

func (s *muxStream) peerEnds(reset error) error {
	if s.peerDone {
		return framing("stream %d ends twice", s.id)
	}
	s.peerDone = true
	if s.readErr == nil {
		s.readErr = io.EOF
		if reset != nil {
			s.readErr = reset
			s.unread = bytes.Buffer{}
		}
		wake(s.readable)
	}
	s.m.finish(s)
	return nil
}

// peerStops makes writing fail. The gateway answers only when whoever serves the
// stream lets go of it, with Close or CancelWrite: until then it counts as open, and a
// peer that stops and resets its streams has no more of them served than others have.
func (s *muxStream) peerStops(code wire.CloseCode) {
	why := &StreamError{Code: code, Remote: true}
	if s.m.role == Device {
		s.giveUp(code, why)
	} else if s.writeErr == nil {
		s.writeErr, s.stopped = why, &code
		wake(s.writable)
	}
}

func (s *muxStream) credited(n uint32) error {
	if n == 0 || n > Window || s.credit+int(n) > Window {
		return framing("credit of %d bytes for stream %d", n, s.id)
	}
	s.credit += int(n)
	wake(s.writable)
	return nil
}
