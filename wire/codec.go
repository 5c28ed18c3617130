// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/crypto/cryptobyte"
)

// ErrMalformed is the error behind every refusal of this package's parsers.
// What a peer sent is not in the one form that spec/wire.md gives it.
var ErrMalformed = errors.New("wire: malformed")

func malformed(what string) error { return fmt.Errorf("%w %s", ErrMalformed, what) }

// field is one element of a structure, read or written in order. A structure
// is described once, by a function that visits its fields; the same description
// parses and encodes it, so the two cannot drift apart.
type field interface {
	u8(*uint8)
	u16(*uint16)
	u32(*uint32)
	u64(*uint64)
	flag(*bool)
	fixed([]byte)
	// opaque visits opaque v<min..max>; the length prefix is the smallest of
	// 1, 2 and 3 bytes that holds max.
	opaque(v *[]byte, min, max int)
	text(v *string, min, max int)
	// list visits a vector of at most max elements behind a 3-byte length.
	// grow adds an element when parsing; each visits element i.
	list(n int, max int, grow func(), each func(i int))
	// more visits what only newer peers say at the end: when parsing it tells whether
	// anything follows.
	more(present *bool)
	// check refuses a structure whose fields do not fit together.
	check(ok bool)
}

// A structure visits its own fields.
type structure interface{ fields(f field) }

type reader struct {
	s  cryptobyte.String
	ok bool
}

func (r *reader) check(ok bool) { r.ok = r.ok && ok }
func (r *reader) u8(v *uint8)   { r.check(r.ok && r.s.ReadUint8(v)) }
func (r *reader) u16(v *uint16) { r.check(r.ok && r.s.ReadUint16(v)) }
func (r *reader) u32(v *uint32) { r.check(r.ok && r.s.ReadUint32(v)) }
func (r *reader) u64(v *uint64) { r.check(r.ok && r.s.ReadUint64(v)) }
func (r *reader) fixed(b []byte) {
	r.check(r.ok && r.s.CopyBytes(b))
}

func (r *reader) flag(v *bool) {
	var b uint8
	r.u8(&b)
	r.check(b <= 1)
	*v = b == 1
}

func (r *reader) more(present *bool) { *present = r.ok && !r.s.Empty() }

func (r *reader) vector(max int, out *cryptobyte.String) {
	if !r.ok {
		return
	}
	switch prefix(max) {
	case 1:
		r.ok = r.s.ReadUint8LengthPrefixed(out)
	case 2:
		r.ok = r.s.ReadUint16LengthPrefixed(out)
	default:
		r.ok = r.s.ReadUint24LengthPrefixed(out)
	}
}

func (r *reader) opaque(v *[]byte, min, max int) {
	var s cryptobyte.String
	r.vector(max, &s)
	r.check(len(s) >= min && len(s) <= max)
	if r.ok && len(s) > 0 {
		*v = []byte(s)
	}
}

func (r *reader) text(v *string, min, max int) {
	var b []byte
	r.opaque(&b, min, max)
	r.check(printable(b))
	*v = string(b)
}

func (r *reader) list(_, max int, grow func(), each func(i int)) {
	var body cryptobyte.String
	r.vector(1<<24-1, &body)
	if !r.ok {
		return
	}
	rest := r.s
	r.s = body
	for i := 0; r.ok && !r.s.Empty(); i++ {
		if i == max {
			r.ok = false
			break
		}
		grow()
		each(i)
	}
	r.s = rest
}

// writer appends to b.
type writer struct {
	b  []byte
	ok bool
}

func (w *writer) check(ok bool)  { w.ok = w.ok && ok }
func (w *writer) u8(v *uint8)    { w.b = append(w.b, *v) }
func (w *writer) u16(v *uint16)  { w.b = binary.BigEndian.AppendUint16(w.b, *v) }
func (w *writer) u32(v *uint32)  { w.b = binary.BigEndian.AppendUint32(w.b, *v) }
func (w *writer) u64(v *uint64)  { w.b = binary.BigEndian.AppendUint64(w.b, *v) }
func (w *writer) fixed(b []byte) { w.b = append(w.b, b...) }

func (w *writer) flag(v *bool) {
	var b uint8
	if *v {
		b = 1
	}
	w.b = append(w.b, b)
}

func (w *writer) more(*bool) {}

// length appends n in as many bytes as a vector of at most max needs.
func (w *writer) length(n, max int) {
	switch prefix(max) {
	case 1:
		w.b = append(w.b, byte(n))
	case 2:
		w.b = append(w.b, byte(n>>8), byte(n))
	default:
		w.b = append(w.b, byte(n>>16), byte(n>>8), byte(n))
	}
}

func (w *writer) opaque(v *[]byte, min, max int) {
	w.check(len(*v) >= min && len(*v) <= max)
	if !w.ok {
		return
	}
	w.length(len(*v), max)
	w.b = append(w.b, *v...)
}

func (w *writer) text(v *string, min, max int) {
	b := []byte(*v)
	w.check(printable(b))
	w.opaque(&b, min, max)
}

func (w *writer) list(n, max int, _ func(), each func(i int)) {
	w.check(n <= max)
	if !w.ok {
		return
	}
	at := len(w.b)
	w.b = append(w.b, 0, 0, 0)
	for i := range n {
		each(i)
	}
	size := len(w.b) - at - 3
	w.check(size < 1<<24)
	w.b[at], w.b[at+1], w.b[at+2] = byte(size>>16), byte(size>>8), byte(size)
}

func prefix(max int) int {
	switch {
	case max < 1<<8:
		return 1
	case max < 1<<16:
		return 2
	}
	return 3
}

// printable says whether b holds only printable ASCII: names and addresses on
// the wire carry nothing that a terminal or a log would interpret.
func printable(b []byte) bool {
	for _, c := range b {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return true
}

// Readers and writers are used again: a frame costs what it carries, and no more.
var (
	readers = sync.Pool{New: func() any { return new(reader) }}
	writers = sync.Pool{New: func() any { return new(writer) }}
)

// decode reads v from data; it is false unless v is all that data holds.
func decode(data []byte, v structure) bool {
	r := readers.Get().(*reader)
	defer readers.Put(r)
	r.s, r.ok = data, true
	v.fields(r)
	ok := r.ok && r.s.Empty()
	r.s = nil
	return ok
}

// encode appends v to b; it is false if a field is out of its bounds.
func encode(b []byte, v structure) ([]byte, bool) {
	w := writers.Get().(*writer)
	defer writers.Put(w)
	w.b, w.ok = b, true
	v.fields(w)
	b, w.b = w.b, nil
	return b, w.ok
}

func parse(data []byte, v structure, what string) error {
	if !decode(data, v) {
		return malformed(what)
	}
	return nil
}

func marshal(v structure, what string) ([]byte, error) {
	out, ok := encode(nil, v)
	if !ok {
		return nil, unencodable(what)
	}
	return out, nil
}

func unencodable(what string) error {
	return fmt.Errorf("wire: cannot encode %s: a field is out of its bounds", what)
}
