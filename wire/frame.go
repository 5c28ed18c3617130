// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// A Type numbers a frame. See spec/wire.md, Section 3.
type Type uint8

// The frames' types.
const (
	TypeHello          Type = 0x01
	TypeWelcome        Type = 0x02
	TypePutKeyPackages Type = 0x10
	TypeGetKeyPackages Type = 0x11
	TypeKeyPackages    Type = 0x12
	TypeCreateGroup    Type = 0x13
	TypeCommit         Type = 0x14
	TypeSend           Type = 0x15
	TypeGetGroup       Type = 0x16
	TypeGroup          Type = 0x17
	TypeGetDirectory   Type = 0x18
	TypeDirectory      Type = 0x19
	TypeReport         Type = 0x1a
	TypePing           Type = 0x1b
	TypeGetRecord      Type = 0x1c
	TypeRecord         Type = 0x1d
	TypeSendNext       Type = 0x1e // a Send's short form, see Last
	TypeResult         Type = 0x1f
	TypeResume         Type = 0x20
	TypeDeliver        Type = 0x21
	TypeAck            Type = 0x22
	TypeNotice         Type = 0x23
	TypeDeliverNext    Type = 0x24 // a Deliver's short form, see Last
	TypeBlobPut        Type = 0x30
	TypeBlobGet        Type = 0x31
	TypeBlobReady      Type = 0x32
	TypeBlobDone       Type = 0x33
	TypeGetBlob        Type = 0x34
	TypeBlobState      Type = 0x35
	TypeGetBundle      Type = 0x40
	TypeBundlePart     Type = 0x41
	TypeGetStandings   Type = 0x48
	TypeStandings      Type = 0x49
	TypeLease          Type = 0x4a
	TypeAttach         Type = 0x50
)

// A Frame is one of this package's frame types, by pointer.
type Frame interface {
	structure
	Type() Type
}

// A Request is a frame that a Result or a specific answer with the same
// RequestID follows.
type Request interface {
	Frame
	RequestID() uint32
	SetRequestID(uint32)
}

// A Submission is a request that changes something at the gateway. It carries a
// counter, and the gateway does it exactly once. See spec/wire.md, Section 5.
type Submission interface {
	Request
	SubmissionCounter() uint64
	SetSubmissionCounter(uint64)
}

// An Answer is a frame that ends a request.
type Answer interface {
	Frame
	AnswerTo() uint32
}

var newFrame = [256]func() Frame{
	TypeHello:          func() Frame { return new(Hello) },
	TypeWelcome:        func() Frame { return new(Welcome) },
	TypePutKeyPackages: func() Frame { return new(PutKeyPackages) },
	TypeGetKeyPackages: func() Frame { return new(GetKeyPackages) },
	TypeKeyPackages:    func() Frame { return new(KeyPackages) },
	TypeCreateGroup:    func() Frame { return new(CreateGroup) },
	TypeCommit:         func() Frame { return new(Commit) },
	TypeSend:           func() Frame { return new(Send) },
	TypeGetGroup:       func() Frame { return new(GetGroup) },
	TypeGroup:          func() Frame { return new(Group) },
	TypeGetDirectory:   func() Frame { return new(GetDirectory) },
	TypeDirectory:      func() Frame { return new(Directory) },
	TypeReport:         func() Frame { return new(Report) },
	TypePing:           func() Frame { return new(Ping) },
	TypeGetRecord:      func() Frame { return new(GetRecord) },
	TypeRecord:         func() Frame { return new(Record) },
	TypeResult:         func() Frame { return new(Result) },
	TypeResume:         func() Frame { return new(Resume) },
	TypeDeliver:        func() Frame { return new(Deliver) },
	TypeAck:            func() Frame { return new(Ack) },
	TypeNotice:         func() Frame { return new(Notice) },
	TypeBlobPut:        func() Frame { return new(BlobPut) },
	TypeBlobGet:        func() Frame { return new(BlobGet) },
	TypeBlobReady:      func() Frame { return new(BlobReady) },
	TypeBlobDone:       func() Frame { return new(BlobDone) },
	TypeGetBlob:        func() Frame { return new(GetBlob) },
	TypeBlobState:      func() Frame { return new(BlobState) },
	TypeAttach:         func() Frame { return new(Attach) },
	TypeGetBundle:      func() Frame { return new(GetBundle) },
	TypeBundlePart:     func() Frame { return new(BundlePart) },
	TypeGetStandings:   func() Frame { return new(GetStandings) },
	TypeStandings:      func() Frame { return new(Standings) },
	TypeLease:          func() Frame { return new(Lease) },
}

// builder returns what makes a frame of type t, nil if there is no such type.
func builder(t Type) func() Frame { return newFrame[t] }

// what names a frame in errors.
func (t Type) what() string { return fmt.Sprintf("frame of type %#02x", uint8(t)) }

// Parse parses the body of a frame of type t. What it returns refers to body.
func Parse(t Type, body []byte) (Frame, error) {
	build := builder(t)
	if build == nil {
		return nil, malformed(fmt.Sprintf("frame: unknown type %#02x", uint8(t)))
	}
	f := build()
	if !decode(body, f) {
		return nil, malformed(t.what())
	}
	return f, nil
}

// Marshal encodes a whole frame: type, length, body.
func Marshal(f Frame) ([]byte, error) { return Append(nil, f) }

// Append encodes a whole frame behind what b holds. With an error, b is as it was.
func Append(b []byte, f Frame) ([]byte, error) {
	at := len(b)
	out, ok := encode(append(b, 0, 0, 0, 0), f)
	if !ok {
		return b, unencodable(f.Type().what())
	}
	size := len(out) - at - headSize
	if size > MaxFrame {
		return b, fmt.Errorf("wire: frame of type %#02x has %d bytes; at most %d go into one", uint8(f.Type()), size, MaxFrame)
	}
	binary.BigEndian.PutUint32(out[at:], uint32(f.Type())<<24|uint32(size))
	return out, nil
}

// headSize is that of type and length.
const headSize = 4

// Read reads one frame from r. io.EOF means that the stream ended between
// frames. Memory is set aside as bytes arrive, not as a length announces them.
func Read(r io.Reader) (Frame, error) {
	f, _, err := ReadRaw(r)
	return f, err
}

// ReadSmall is Read where only frames of at most MaxSmall bytes are expected.
func ReadSmall(r io.Reader) (Frame, error) {
	f, _, err := readRaw(r, MaxSmall, nil)
	return f, err
}

// ReadRaw is Read that also returns the body, to which the frame refers.
func ReadRaw(r io.Reader) (Frame, []byte, error) { return readRaw(r, MaxFrame, nil) }

// readRaw reads one frame; its short form only with a Last.
func readRaw(r io.Reader, most int, last *Last) (Frame, []byte, error) {
	t, n, err := readHead(r)
	if err != nil {
		return nil, nil, err
	}
	if n > most {
		return nil, nil, malformed(fmt.Sprintf("frame: %d bytes, at most %d are allowed", n, most))
	}
	var body []byte
	if long := longOf(t); long != 0 {
		t = long
		body, err = last.read(r, t, n)
	} else if builder(t) == nil {
		err = malformed(fmt.Sprintf("frame: unknown type %#02x", uint8(t)))
	} else {
		body, err = readBody(r, nil, n)
	}
	if err != nil {
		return nil, nil, err
	}
	f, err := Parse(t, body)
	if err == nil && last != nil {
		if p, ok := split(t, body); ok {
			last.keep(t, &p)
		}
	}
	return f, body, err
}

// BeginsWhole says whether b begins with a whole frame: reading that one needs
// nothing more of the peer.
func BeginsWhole(b []byte) bool {
	return len(b) >= headSize && len(b)-headSize >= int(binary.BigEndian.Uint32(b)&0xffffff)
}

// heads are used again: what is given to an io.Reader is on the heap.
var heads = sync.Pool{New: func() any { return new([headSize]byte) }}

func readHead(r io.Reader) (Type, int, error) {
	head := heads.Get().(*[headSize]byte)
	defer heads.Put(head)
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return 0, 0, err
	}
	if _, err := io.ReadFull(r, head[1:]); err != nil {
		return 0, 0, unexpected(err)
	}
	return Type(head[0]), int(binary.BigEndian.Uint32(head[:]) & 0xffffff), nil
}

// readBody reads n bytes behind begin. It grows its buffer with what really arrives, so
// that a header that promises 8 MiB costs its sender 8 MiB.
func readBody(r io.Reader, begin []byte, n int) ([]byte, error) {
	const step = 64 << 10
	n += len(begin)
	body := make([]byte, min(n, step))
	for at := copy(body, begin); ; {
		if _, err := io.ReadFull(r, body[at:]); err != nil {
			return nil, unexpected(err)
		}
		if at = len(body); at == n {
			return body, nil
		}
		grown := make([]byte, min(n, 2*at))
		copy(grown, body)
		body = grown
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Write writes one frame to w in one call.
func Write(w io.Writer, f Frame) error {
	b, err := Marshal(f)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}
