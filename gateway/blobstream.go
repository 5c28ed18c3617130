// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"valise/gateway/blob"
	"valise/transport"
	"valise/wire"
)

const (
	// transferChunk is what one read or write of a file moves.
	transferChunk = 64 << 10
	// transferStall is how long a sender of a file may be silent.
	transferStall = time.Minute
)

// The directions of transfers, as indices of session.transfers.
const (
	uploads = iota
	downloads
)

// slot takes one of the device's slots for transfers, or says that all are in
// use; give gives it back.
func (s *session) slot(direction int) (give func(), ok bool) {
	select {
	case s.transfers[direction] <- struct{}{}:
		return func() { <-s.transfers[direction] }, true
	default:
		return nil, false
	}
}

// mayUse says whether the device may exchange files in a group: it is in good
// standing and a member now.
func (s *session) mayUse(group []byte) *refusal {
	if r := admitDevice(&snapshot{now: s.g.now(), device: s.device, denied: s.g.deniedNow(), set: s.g.Standings()}); r != nil {
		return r
	}
	view, err := s.g.groups.Present(s.conn.Context(), group)
	switch {
	case err != nil && isUnknown(err):
		return &refusal{code: wire.UnknownGroup, reason: "unknown_group"}
	case err != nil:
		return &refusal{code: s.refusedBy(err), reason: "unavailable"}
	case !isMember(view, s.device.ID):
		return &refusal{code: wire.NotMember, reason: "not_member"}
	}
	return nil
}

// mayRead is mayUse for a file that is there: members of a group that was lost when
// the store was restored still may.
func (s *session) mayRead(group []byte) *refusal {
	r := s.mayUse(group)
	if r == nil || r.code != wire.UnknownGroup {
		return r
	}
	if view, err := s.g.groups.Lost(s.conn.Context(), group); err == nil && isMember(view, s.device.ID) {
		return nil
	}
	return r
}

// serveBlobPut receives a file. See spec/wire.md, Section 8.
func (s *session) serveBlobPut(stream transport.Stream) {
	defer stream.CancelRead(wire.CloseNormal)
	defer stream.Close()
	in := bufio.NewReaderSize(stream, transferChunk)
	_ = stream.SetReadDeadline(time.Now().Add(helloTimeout))
	frame, err := wire.ReadSmall(in)
	if err != nil {
		s.brokenTransfer(err)
		return
	}
	put, ok := frame.(*wire.BlobPut)
	if !ok {
		s.close(wire.CloseProtocol, "unexpected_frame")
		return
	}
	w, r := s.beginPut(put)
	if r != nil {
		s.refuseBlob(stream, r)
		return
	}
	defer w.close()
	if wire.Write(stream, &wire.BlobReady{Code: wire.OK, Offset: w.Offset(), Size: put.Size}) != nil {
		return
	}
	r = s.receive(stream, in, w.Writer)
	w.close() // before the answer: the device may come back at once
	if r != nil {
		s.refuse(eventRefusedBlob, r.reason)
		_ = wire.Write(stream, wire.NewResult(0, r.code))
		return
	}
	s.g.metrics.files.WithLabelValues("received").Inc()
	_ = wire.Write(stream, wire.NewResult(0, wire.OK))
}

// putting is an upload and its slot.
type putting struct {
	*blob.Writer
	give func() // nil after close
}

// close may be called twice.
func (p *putting) close() {
	if p.give == nil {
		return
	}
	_ = p.Close()
	p.give()
	p.give = nil
}

func (s *session) beginPut(put *wire.BlobPut) (*putting, *refusal) {
	if r := s.admitAsk(1); r != nil {
		return nil, r
	}
	if r := s.mayUse(put.Group); r != nil {
		return nil, r
	}
	give, ok := s.slot(uploads)
	if !ok {
		return nil, &refusal{code: wire.RateLimited, reason: "too_many_transfers"}
	}
	w, err := s.g.blobs.Put(s.conn.Context(), blob.Upload{ID: put.Blob, Group: put.Group, Size: put.Size, Owner: s.device.ID})
	if err != nil {
		give()
		return nil, s.blobRefusal(err)
	}
	return &putting{w, give}, nil
}

// receive takes a file's bytes until the device ends its side of the stream.
func (s *session) receive(stream transport.Stream, in io.Reader, w *blob.Writer) *refusal {
	chunk := make([]byte, transferChunk)
	for {
		_ = stream.SetReadDeadline(time.Now().Add(transferStall))
		n, err := in.Read(chunk)
		if n > 0 {
			if err := w.Append(chunk[:n]); err != nil {
				return s.blobRefusal(err)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return &refusal{code: wire.Unavailable, reason: "transfer_broken"}
		}
	}
	if err := w.Finish(); err != nil {
		return s.blobRefusal(err)
	}
	return nil
}

func (s *session) blobRefusal(err error) *refusal {
	switch {
	case errors.Is(err, blob.ErrNotFound):
		return &refusal{code: wire.NotFound, reason: "not_found"}
	case errors.Is(err, blob.ErrTooLarge):
		return &refusal{code: wire.TooLarge, reason: "file_size"}
	case errors.Is(err, blob.ErrQuota):
		return &refusal{code: wire.FileQuota, reason: "file_quota"}
	case errors.Is(err, blob.ErrRoom), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &refusal{code: wire.NoRoom, reason: "files_full"}
	case errors.Is(err, blob.ErrBusy):
		return &refusal{code: wire.Unavailable, reason: "file_busy"}
	case errors.Is(err, blob.ErrHash):
		return &refusal{code: wire.HashMismatch, reason: "hash_mismatch"}
	case errors.Is(err, blob.ErrLength):
		return &refusal{code: wire.Malformed, reason: "file_length"}
	}
	if s.conn.Context().Err() == nil {
		s.g.log.Error("a file could not be moved", "device", s.device.ID.String(), "error", err)
	}
	return &refusal{code: wire.Unavailable, reason: "unavailable"}
}

func (s *session) refuseBlob(stream transport.Stream, r *refusal) {
	s.refuse(eventRefusedBlob, r.reason)
	_ = wire.Write(stream, &wire.BlobReady{Code: r.code})
}

// serveBlobGet sends a file to a member of its group.
func (s *session) serveBlobGet(stream transport.Stream) {
	defer stream.Close()
	defer stream.CancelRead(wire.CloseNormal)
	_ = stream.SetReadDeadline(time.Now().Add(helloTimeout))
	frame, err := wire.ReadSmall(stream)
	if err != nil {
		s.brokenTransfer(err)
		return
	}
	get, ok := frame.(*wire.BlobGet)
	if !ok {
		s.close(wire.CloseProtocol, "unexpected_frame")
		return
	}
	if r := s.admitAsk(1); r != nil {
		s.refuseBlob(stream, r)
		return
	}
	give, ok := s.slot(downloads)
	if !ok {
		s.refuseBlob(stream, &refusal{code: wire.RateLimited, reason: "too_many_transfers"})
		return
	}
	defer give()
	var outside *refusal
	file, err := s.g.blobs.Get(s.conn.Context(), get.Blob, func(group []byte) bool {
		r := s.mayRead(group)
		if r != nil {
			outside = r
		}
		return r == nil
	})
	if err != nil {
		r := s.blobRefusal(err)
		if outside != nil { // the device learns only that there is nothing for it
			r.reason = outside.reason
		}
		s.refuseBlob(stream, r)
		return
	}
	s.send(stream, get, file)
}

// send sends a file from the offset that was asked for.
func (s *session) send(stream transport.Stream, get *wire.BlobGet, file *blob.File) {
	if get.Offset > file.Size {
		s.refuseBlob(stream, &refusal{code: wire.TooLarge, reason: "file_offset"})
		return
	}
	body, err := file.From(s.conn.Context(), get.Offset)
	if err != nil {
		s.refuseBlob(stream, s.blobRefusal(err))
		return
	}
	defer body.Close()
	if wire.Write(stream, &wire.BlobReady{Code: wire.OK, Offset: get.Offset, Size: file.Size}) != nil {
		return
	}
	left := file.Size - get.Offset
	n, err := io.CopyBuffer(onlyWriter{s.pacer.Writer(s.conn.Context(), stream)}, onlyReader{io.LimitReader(body, int64(left))}, make([]byte, transferChunk))
	if err != nil || uint64(n) != left {
		stream.CancelWrite(wire.CloseNormal)
		s.g.log.Debug("a file was not sent to its end", "error", err, "sent", n)
		return
	}
	s.g.metrics.files.WithLabelValues("sent").Inc()
}

// onlyReader hides every other method, for the same reason.
type onlyReader struct{ io.Reader }

// onlyWriter hides every other method, so that CopyBuffer uses our buffer.
type onlyWriter struct{ io.Writer }

// brokenTransfer closes the connection of a peer that cannot encode, and lets one go
// on that gave up a transfer, or whose network did.
func (s *session) brokenTransfer(err error) {
	switch {
	case errors.Is(err, wire.ErrMalformed):
		s.broken(err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.refuse(eventRefusedBlob, "slow_frame")
	}
}
