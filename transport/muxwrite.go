// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"os"
	"time"
)

// takeTurn waits for the turn to write. Turns are given in the order of asking, and
// last for one record.
func (m *Mux) takeTurn(deadline time.Time) error {
	var late <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case m.turn <- struct{}{}:
	case <-late:
		return os.ErrDeadlineExceeded
	case <-m.ctx.Done():
		return context.Cause(m.ctx)
	}
	if m.ctx.Err() != nil {
		<-m.turn
		return context.Cause(m.ctx)
	}
	return nil
}

// write sends whole records, with the turn taken. A peer that takes none of them
// for long is gone.
func (m *Mux) write(records []byte) error {
	_ = m.conn.SetWriteDeadline(time.Now().Add(writeStall))
	if m.ctx.Err() != nil { // and the deadline is the goodbye's
		return context.Cause(m.ctx)
	}
	if _, err := m.conn.Write(records); err != nil {
		m.end(lost(err))
		return context.Cause(m.ctx)
	}
	return nil
}

// writeData sends bytes of a stream for which there is credit. The credit of what
// is not sent is lost with the stream: its writer was told so.
func (m *Mux) writeData(s *muxStream, data []byte, deadline time.Time) error {
	if err := m.takeTurn(deadline); err != nil {
		m.refund(s, len(data))
		return err
	}
	defer func() { <-m.turn }()
	if err := m.number(s); err != nil {
		return err
	}
	buffer := scratches.Get().(*scratch)
	defer scratches.Put(buffer)
	out := header{kindData, s.id, len(data)}.append(buffer[:0])
	return m.write(append(out, data...))
}

func (m *Mux) refund(s *muxStream, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.credit += n
}

// number gives a new stream its number. After a reset nothing more may follow.
func (m *Mux) number(s *muxStream) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.writeErr != nil {
		return s.writeErr
	}
	if s.id == 0 {
		m.last++
		s.id = m.last
		m.streams[s.id] = s
	}
	return nil
}

// owe notes that a stream has something small to send, and has it sent. Called
// with mu held; it never waits, because readers call it.
func (s *muxStream) owe() {
	m := s.m
	if s.id == 0 { // nobody knows of it, and nobody ever will
		s.writeErr, s.readErr = firstError(s.writeErr, os.ErrClosed), firstError(s.readErr, os.ErrClosed)
		wake(s.readable)
		s.giveBack()
		return
	}
	if !s.isDue {
		s.isDue = true
		m.due = append(m.due, s)
	}
	if !m.flushing {
		m.flushing = true
		go m.flush()
	}
}

// flush sends what is due until nothing is.
func (m *Mux) flush() {
	for {
		if m.takeTurn(time.Time{}) != nil {
			return
		}
		buffer := scratches.Get().(*scratch)
		m.mu.Lock()
		out := m.collect(buffer[:0])
		m.flushing = len(out) > 0
		m.mu.Unlock()
		if len(out) > 0 {
			_ = m.write(out)
		}
		scratches.Put(buffer)
		<-m.turn
		if len(out) == 0 {
			return
		}
	}
}

// collect turns what is due into records: a few dozen bytes for each open stream.
// Called with mu held and the turn taken.
func (m *Mux) collect(out []byte) []byte {
	for _, s := range m.due {
		s.isDue = false
		if s.eaten >= Window/2 && !s.peerDone {
			out = appendNumber(out, kindCredit, s.id, uint32(s.eaten))
			s.room += s.eaten
			s.eaten = 0
		}
		if s.stopDue != nil && !s.peerDone {
			out = appendNumber(out, kindStop, s.id, uint32(*s.stopDue))
		}
		s.stopDue = nil
		switch {
		case s.ownDone:
		case s.resetDue != nil:
			out = appendNumber(out, kindReset, s.id, uint32(*s.resetDue))
			s.ownDone = true
		case s.endDue:
			out = header{kindEnd, s.id, 0}.append(out)
			s.ownDone = true
		}
		m.finish(s)
	}
	m.due = m.due[:0]
	return out
}

// finish forgets a stream that is over in both directions. Called with mu held.
func (m *Mux) finish(s *muxStream) {
	if s.peerDone && s.ownDone && m.streams[s.id] == s {
		delete(m.streams, s.id)
		s.giveBack()
	}
}

// giveBack lets a device open another stream. Called with mu held.
func (s *muxStream) giveBack() {
	if s.m.role == Device && !s.released {
		s.released = true
		<-s.m.slots
	}
}
