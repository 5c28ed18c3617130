// SPDX-License-Identifier: Apache-2.0

package testcard

import "golang.org/x/crypto/cryptobyte"

// A field is one BER-TLV data object with a tag of one to three bytes, read
// as a number: 5FC105 is 0x5fc105.
type field struct {
	tag   uint32
	value []byte
}

// parseFields reads a sequence of BER-TLV data objects (ISO/IEC 7816-4,
// Section 5.2.2) and refuses anything left over.
func parseFields(data []byte) ([]field, bool) {
	s := cryptobyte.String(data)
	var fields []field
	for !s.Empty() {
		f, ok := readField(&s)
		if !ok {
			return nil, false
		}
		fields = append(fields, f)
	}
	return fields, true
}

// parseField reads data as exactly one data object with the given tag.
func parseField(data []byte, tag uint32) ([]byte, bool) {
	s := cryptobyte.String(data)
	f, ok := readField(&s)
	return f.value, ok && s.Empty() && f.tag == tag
}

func readField(s *cryptobyte.String) (field, bool) {
	var f field
	var b uint8
	if !s.ReadUint8(&b) {
		return f, false
	}
	f.tag = uint32(b)
	for i := 0; i == 0 && b&0x1f == 0x1f || i > 0 && b&0x80 != 0; i++ {
		if i == 2 || !s.ReadUint8(&b) {
			return f, false
		}
		f.tag = f.tag<<8 | uint32(b)
	}
	n, ok := readLength(s)
	return f, ok && s.ReadBytes(&f.value, n)
}

// readLength reads a length of one, two or three bytes; no data object of the
// card is longer.
func readLength(s *cryptobyte.String) (int, bool) {
	var first, short uint8
	var long uint16
	if !s.ReadUint8(&first) {
		return 0, false
	}
	switch first {
	case 0x81:
		ok := s.ReadUint8(&short)
		return int(short), ok
	case 0x82:
		ok := s.ReadUint16(&long)
		return int(long), ok
	}
	return int(first), first < 0x80
}

// appendField appends one data object to b.
func appendField(b []byte, tag uint32, value []byte) []byte {
	if tag > 0xffff {
		b = append(b, byte(tag>>16))
	}
	if tag > 0xff {
		b = append(b, byte(tag>>8))
	}
	b = append(b, byte(tag))
	switch n := len(value); {
	case n < 0x80:
		b = append(b, byte(n))
	case n < 0x100:
		b = append(b, 0x81, byte(n))
	default:
		b = append(b, 0x82, byte(n>>8), byte(n))
	}
	return append(b, value...)
}
