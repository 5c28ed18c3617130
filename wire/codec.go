// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"

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

type writer struct {
	b  *cryptobyte.Builder
	ok bool
}

func (w *writer) check(ok bool)  { w.ok = w.ok && ok }
func (w *writer) u8(v *uint8)    { w.b.AddUint8(*v) }
func (w *writer) u16(v *uint16)  { w.b.AddUint16(*v) }
func (w *writer) u32(v *uint32)  { w.b.AddUint32(*v) }
func (w *writer) u64(v *uint64)  { w.b.AddUint64(*v) }
func (w *writer) fixed(b []byte) { w.b.AddBytes(b) }

func (w *writer) flag(v *bool) {
	var b uint8
	if *v {
		b = 1
	}
	w.b.AddUint8(b)
}

func (w *writer) opaque(v *[]byte, min, max int) {
	w.check(len(*v) >= min && len(*v) <= max)
	if !w.ok {
		return
	}
	add := func(c *cryptobyte.Builder) { c.AddBytes(*v) }
	switch prefix(max) {
	case 1:
		w.b.AddUint8LengthPrefixed(add)
	case 2:
		w.b.AddUint16LengthPrefixed(add)
	default:
		w.b.AddUint24LengthPrefixed(add)
	}
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
	outer := w.b
	outer.AddUint24LengthPrefixed(func(c *cryptobyte.Builder) {
		w.b = c
		for i := range n {
			each(i)
		}
	})
	w.b = outer
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

func parse(data []byte, v structure, what string) error {
	r := &reader{s: cryptobyte.String(data), ok: true}
	v.fields(r)
	if !r.ok || !r.s.Empty() {
		return malformed(what)
	}
	return nil
}

func marshal(v structure, what string) ([]byte, error) {
	w := &writer{b: cryptobyte.NewBuilder(nil), ok: true}
	v.fields(w)
	out, err := w.b.Bytes()
	if err != nil || !w.ok {
		return nil, fmt.Errorf("wire: cannot encode %s: a field is out of its bounds", what)
	}
	return out, nil
}
