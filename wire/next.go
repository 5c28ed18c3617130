// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"io"
)

// A Last is the last message that went over a stream in one direction. The next one
// may leave out what both have in common: the conversation and, of the sealed message,
// what anybody can read of it, which is the same in all of a sender's messages under one
// label. Both ends keep one for each stream; the zero value is that of a new stream. See
// spec/wire.md, Section 3.1.
//
//	struct { uint32 id; uint64 counter; uint16 same; opaque rest[remaining]; } SendNext;
//	struct { uint64 number; uint64 time; uint16 same; opaque rest[remaining]; } DeliverNext;
//
// They are forms of Send and Deliver and nothing else: what is read is the whole frame,
// and its bytes are those of the long form, by which a submission is known.
type Last struct {
	kind    Type // of the last message; 0: there was none
	between int  // how many bytes of kept come before the payload
	kept    []byte
	head    [18]byte // what a short form begins with
}

// longOf returns of which type a frame is the short form; 0: it is none.
func longOf(t Type) Type {
	switch t {
	case TypeSendNext:
		return TypeSend
	case TypeDeliverNext:
		return TypeDeliver
	}
	return 0
}

// parts are those of a Send or a Deliver: what is never the same, what may be, and the
// payload.
type parts struct {
	front, between, time, payload []byte // time is a Deliver's
}

const (
	frontSend    = 4 + 8 // id, counter
	frontDeliver = 8     // number
	timeSize     = 8     // of a Deliver
	sizeSize     = 3     // of the payload
	afterGroup   = 8     // the epoch
	senderSize   = 32    // of a Deliver
	sameSize     = 2     // of a short form
	mostBetween  = 2 + 255 + 8 + senderSize
	leastSame    = 32 // what is gained must be worth it
)

// split takes apart the body of a frame that was parsed or encoded here; false if it is
// neither a Send nor a Deliver.
func split(t Type, body []byte) (p parts, ok bool) {
	at, end := 0, 0
	switch t {
	case TypeSend:
		at = frontSend
		end = at + 1 + int(body[at]) + afterGroup
	case TypeDeliver:
		at = frontDeliver
		end = at + 2 + int(body[at+1]) + afterGroup + senderSize
	default:
		return p, false
	}
	p.front, p.between = body[:at], body[at:end]
	if t == TypeDeliver {
		p.time = body[end : end+timeSize]
		end += timeSize
	}
	p.payload = body[end+sizeSize:]
	return p, true
}

// keep notes the message that has just gone over the stream.
func (l *Last) keep(t Type, p *parts) {
	l.kind, l.between = t, len(p.between)
	l.kept = append(append(l.kept[:0], p.between...), p.payload[:min(len(p.payload), MaxSame)]...)
}

// Shorten puts the short form of the frame that begins at b[at], the last one in b, in
// its place, if it is much shorter. Every Send or Deliver that goes over the stream must
// have passed here, in order, encoded by this package.
func (l *Last) Shorten(b []byte, at int) []byte {
	t := Type(b[at])
	p, ok := split(t, b[at+headSize:])
	if !ok {
		return b
	}
	same := 0
	if l.kind == t && bytes.Equal(l.kept[:l.between], p.between) {
		same = common(l.kept[l.between:], p.payload[:len(p.payload)-1])
	}
	l.keep(t, &p) // now: the bytes move
	if same < leastSame {
		return b
	}
	short := TypeSendNext
	if t == TypeDeliver {
		short = TypeDeliverNext
	}
	end := at + headSize + len(p.front)
	end += copy(b[end:], p.time)
	binary.BigEndian.PutUint16(b[end:], uint16(same))
	end += sameSize
	end += copy(b[end:], p.payload[same:])
	binary.BigEndian.PutUint32(b[at:], uint32(short)<<24|uint32(end-at-headSize))
	return b[:end]
}

// common is how many bytes are the same at the beginning of both.
func common(a, b []byte) (n int) {
	for n+8 <= min(len(a), len(b)) && binary.NativeEndian.Uint64(a[n:]) == binary.NativeEndian.Uint64(b[n:]) {
		n += 8
	}
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// Read is Read for a stream on which messages may come in their short form.
func (l *Last) Read(r io.Reader) (Frame, error) {
	f, _, err := l.ReadRaw(r)
	return f, err
}

// ReadRaw is Read that also returns the body, that of the long form, to which the frame
// refers.
func (l *Last) ReadRaw(r io.Reader) (Frame, []byte, error) { return readRaw(r, MaxFrame, l) }

// read reads the body of a short form of n bytes, and returns that of the long one.
func (l *Last) read(r io.Reader, t Type, n int) ([]byte, error) {
	front := frontSend
	if t == TypeDeliver {
		front = frontDeliver + timeSize
	}
	if l == nil || l.kind != t || n <= front+sameSize {
		return nil, malformed("short form of a " + t.what() + ": nothing came before it, or it has no end")
	}
	head := l.head[:front+sameSize]
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, unexpected(err)
	}
	same, rest := int(binary.BigEndian.Uint16(head[front:])), n-len(head)
	if same == 0 || same > len(l.kept)-l.between {
		return nil, malformed("short form of a " + t.what() + ": it has more in common with the one before than that has")
	}
	var room [len(l.head) + mostBetween + sizeSize + MaxSame]byte
	begin := room[:0]
	if t == TypeDeliver {
		begin = append(append(append(begin, head[:frontDeliver]...), l.kept[:l.between]...), head[frontDeliver:front]...)
	} else {
		begin = append(append(begin, head[:front]...), l.kept[:l.between]...)
	}
	size := same + rest
	begin = append(begin, byte(size>>16), byte(size>>8), byte(size))
	begin = append(begin, l.kept[l.between:][:same]...)
	return readBody(r, begin, rest)
}
