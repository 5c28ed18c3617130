// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"encoding/binary"
)

// The presentation language of RFC 9420, Section 2.1: TLS syntax, with vectors
// whose length is a variable-length integer in its shortest form.

// A reader decodes from the front of b. After the first failure it stays bad
// and yields zero values; callers check once, at the end.
type reader struct {
	b   []byte
	bad bool
	// shared: opaque values refer to the input; otherwise they are copies.
	shared bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || len(r.b) < n {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) fail() { r.bad, r.b = true, nil }

func (r *reader) u8() uint8 {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if v := r.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if v := r.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if v := r.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// length reads a vector's length, RFC 9420, Section 2.1.2. A longer form than
// needed is malformed, and so is the prefix 11.
func (r *reader) length() int {
	first := r.u8()
	n := int(first & 0x3f)
	switch first >> 6 {
	case 0:
		return n
	case 1:
		n = n<<8 | int(r.u8())
		if n < 1<<6 {
			r.fail()
		}
	case 2:
		n = n<<8 | int(r.u8())
		n = n<<16 | int(r.u16())
		if n < 1<<14 {
			r.fail()
		}
	default:
		r.fail()
	}
	if r.bad {
		return 0
	}
	return n
}

// opaque reads an opaque<V> into memory of its own.
func (r *reader) opaque() []byte {
	v := r.take(r.length())
	if len(v) == 0 {
		return nil
	}
	if r.shared {
		return v
	}
	return bytes.Clone(v)
}

// optional reads the presence octet of RFC 9420, Section 2.1.1.
func (r *reader) optional() bool {
	switch r.u8() {
	case 0:
		return false
	case 1:
		return !r.bad
	}
	r.fail()
	return false
}

// ok says whether everything was read and nothing is left.
func (r *reader) ok() bool { return !r.bad && len(r.b) == 0 }

// readVector reads a vector of items, each of at least one byte.
func readVector[T any](r *reader, item func(*reader) T) []T {
	v := reader{b: r.take(r.length())}
	var out []T
	for !v.bad && len(v.b) > 0 {
		out = append(out, item(&v))
	}
	if v.bad {
		r.fail()
		return nil
	}
	return out
}

// decode runs one decoder over all of data.
func decode[T any](data []byte, item func(*reader) T) (T, error) {
	r := reader{b: data}
	v := item(&r)
	if !r.ok() {
		var zero T
		return zero, ErrMalformed
	}
	return v, nil
}

func appendU16(b []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(b, v) }
func appendU32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }
func appendU64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// appendLength writes a vector's length in its shortest form.
func appendLength(b []byte, n int) []byte {
	switch {
	case n < 1<<6:
		return append(b, byte(n))
	case n < 1<<14:
		return appendU16(b, uint16(n)|1<<14)
	case n <= maxVector:
		return appendU32(b, uint32(n)|1<<31)
	}
	// Callers bound what they encode far below this (maxPlaintext, maxLeaves).
	panic("mls: vector longer than 2^30 bytes")
}

// opaqueSize is the encoded size of an opaque<V> of n bytes.
func opaqueSize(n int) int { return n + len(appendLength(nil, n)) }

func appendOpaque(b, v []byte) []byte { return append(appendLength(b, len(v)), v...) }

// appendVector writes a vector of items.
func appendVector[T any](b []byte, items []T, item func([]byte, T) []byte) []byte {
	start := len(b)
	for _, v := range items {
		b = item(b, v)
	}
	// The length is known only now: the items move up to make room for it.
	n := len(b) - start
	var room [4]byte
	head := appendLength(room[:0], n)
	b = append(b, head...)
	copy(b[start+len(head):], b[start:start+n])
	copy(b[start:], head)
	return b
}

func appendOptional(b []byte, present bool) []byte {
	if present {
		return append(b, 1)
	}
	return append(b, 0)
}
