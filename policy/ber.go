// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// Others' labels come in BER, not DER: lengths may be padded or open, sets in
// any order. A ber is a sequence of such elements.
type ber []byte

var errBER = errors.New("policy: malformed BER")

// An element is one BER element, its contents still in BER.
type element struct {
	tag      tag.Tag
	contents ber
}

// read takes the next element (X.690, Section 8.1). Tags above 30 do not occur
// in what we read.
func (b *ber) read() (element, error) { return b.readAt(0) }

func (b *ber) readAt(depth int) (element, error) {
	s := *b
	if len(s) < 2 || s[0]&0x1f == 0x1f || depth > maxBERDepth {
		return element{}, errBER
	}
	e := element{tag: tag.Tag(s[0])}
	length, rest, open, err := s[1:].length()
	if err != nil {
		return element{}, err
	}
	if !open {
		if length > len(rest) {
			return element{}, errBER
		}
		e.contents, *b = rest[:length], rest[length:]
		return e, nil
	}
	if s[0]&0x20 == 0 {
		return element{}, errBER // only what is constructed can be open
	}
	inner := rest
	for {
		if len(inner) < 2 {
			return element{}, errBER
		}
		if inner[0] == 0 && inner[1] == 0 {
			e.contents, *b = rest[:len(rest)-len(inner)], inner[2:]
			return e, nil
		}
		if _, err := inner.readAt(depth + 1); err != nil {
			return element{}, err
		}
	}
}

func (b ber) length() (n int, rest ber, open bool, err error) {
	first := b[0]
	rest = b[1:]
	switch {
	case first < 0x80:
		return int(first), rest, false, nil
	case first == 0x80:
		return 0, rest, true, nil
	}
	octets := int(first & 0x7f)
	if octets > len(rest) || octets > 8 {
		return 0, nil, false, errBER
	}
	for _, o := range rest[:octets] {
		if n = n<<8 | int(o); n > MaxLabelFile {
			return 0, nil, false, errBER
		}
	}
	return n, rest[octets:], false, nil
}

// want takes the next element, which must have this tag.
func (b *ber) want(t tag.Tag) (ber, error) {
	e, err := b.read()
	if err != nil || e.tag != t {
		return nil, errBER
	}
	return e.contents, nil
}

// oid takes an object identifier.
func (b *ber) oid(t tag.Tag) (OID, error) {
	contents, err := b.want(t)
	if err != nil || !OID(contents).valid() {
		return "", errBER
	}
	return OID(contents), nil
}

// integer reads the contents of a non-negative INTEGER up to high.
func (b ber) integer(high int) (int, error) {
	if len(b) == 0 || len(b) > 8 || b[0] >= 0x80 {
		return 0, errBER
	}
	n := 0
	for _, o := range b {
		if n = n<<8 | int(o); n > high {
			return 0, errBER
		}
	}
	return n, nil
}

// bits reads the contents of a primitive BIT STRING as the numbers of its set
// bits. Zeros at the end mean nothing.
func (b ber) bits(high int) (numbers []int, err error) {
	if len(b) == 0 || b[0] > 7 || len(b) == 1 && b[0] != 0 || len(b)-2 > high/8 {
		return nil, errBER
	}
	for i, o := range b[1:] {
		for bit := range 8 {
			if o&(0x80>>bit) == 0 {
				continue
			}
			if n := 8*i + bit; n > high || i == len(b)-2 && bit >= 8-int(b[0]) {
				return nil, errBER
			} else {
				numbers = append(numbers, n)
			}
		}
	}
	return numbers, nil
}

// addBits writes numbers as a BIT STRING with named bits: no zeros at the end
// (X.690, Section 11.2.2).
func addBits(b *cryptobyte.Builder, numbers []int) {
	b.AddASN1(tag.BIT_STRING, func(b *cryptobyte.Builder) {
		if len(numbers) == 0 {
			b.AddUint8(0)
			return
		}
		top := slices.Max(numbers)
		octets := make([]byte, top/8+1)
		for _, n := range numbers {
			octets[n/8] |= 0x80 >> (n % 8)
		}
		b.AddUint8(uint8(7 - top%8))
		b.AddBytes(octets)
	})
}

// addSetOf writes elements as a SET OF in DER: sorted (X.690, Section 11.6).
func addSetOf(b *cryptobyte.Builder, t tag.Tag, elements [][]byte) {
	slices.SortFunc(elements, slices.Compare)
	b.AddASN1(t, func(b *cryptobyte.Builder) {
		for _, e := range elements {
			b.AddBytes(e)
		}
	})
}
