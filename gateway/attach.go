// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/subtle"
	"time"

	"valise/transport"
	"valise/wire"
)

// serveAttach binds this connection to the one on which the same device said
// Hello: files go over it, and it ends with the other one. See spec/wire.md,
// Section 12.3.
func (s *session) serveAttach(stream transport.Stream) {
	_ = stream.SetReadDeadline(time.Now().Add(helloTimeout))
	frame, err := wire.ReadSmall(stream)
	if err != nil {
		s.broken(err)
		return
	}
	attach, ok := frame.(*wire.Attach)
	if !ok {
		s.close(wire.CloseProtocol, "unexpected_frame")
		return
	}
	first := s.g.session(s.device.ID)
	if first == nil || !first.bound(s, attach.Token) {
		s.close(wire.CloseProtocol, "not_attached")
		return
	}
	s.transfers = first.transfers
	s.attached = true
	// Whichever ends first lets go of the other: the first one outlives many.
	apart := context.AfterFunc(first.conn.Context(), func() { _ = s.conn.CloseWithError(wire.CloseNormal, "") })
	context.AfterFunc(s.conn.Context(), func() { apart() })
	close(s.ready)
	_ = wire.Write(stream, wire.NewResult(0, wire.OK))
	_ = stream.Close()
}

// bound says whether who holds the other connection holds this one too. A device that
// has read its Welcome may be here before the session has gone on from writing it.
func (s *session) bound(other *session, token [32]byte) bool {
	late := time.NewTimer(helloTimeout)
	defer late.Stop()
	select {
	case <-s.ready:
	case <-s.conn.Context().Done():
		return false
	case <-other.conn.Context().Done():
		return false
	case <-late.C:
		return false
	}
	want, err := transport.Binding(s.conn.ConnectionState(), other.conn.ConnectionState())
	return err == nil && subtle.ConstantTimeCompare(want[:], token[:]) == 1
}
