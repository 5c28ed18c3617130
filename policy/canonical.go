// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// canonicalVersion begins every canonical label; no XML and no BER label
// begins with it.
const canonicalVersion = 1

var errCanonical = errors.New("policy: malformed canonical label")

// Marshal writes the label in its one canonical encoding, spec/label.md,
// Section 2.
//
//	opaque Name<1..255>;
//	struct { opaque set<1..64>; Name tag; Name names<2..2^16-1>; } Tag;
//	struct {
//	    uint8 version = 1;
//	    opaque policy<1..64>;
//	    uint32 edition;
//	    Name classification;
//	    opaque mark<0..255>;
//	    Tag tags<0..2^16-1>;
//	} Label;
func (l *Label) Marshal() ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	n := l.Normal()
	var b cryptobyte.Builder
	b.AddUint8(canonicalVersion)
	addShort(&b, string(n.Policy))
	b.AddUint32(n.Edition)
	addShort(&b, n.Classification)
	addShort(&b, n.Mark)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for rest := n.Categories; len(rest) > 0; {
			same := 1
			for same < len(rest) && rest[same].Set == rest[0].Set && rest[same].Tag == rest[0].Tag {
				same++
			}
			addShort(b, string(rest[0].Set))
			addShort(b, rest[0].Tag)
			group := rest[:same]
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				for _, c := range group {
					addShort(b, c.Name)
				}
			})
			rest = rest[same:]
		}
	})
	data, err := b.Bytes()
	if err != nil || len(data) > MaxCanonical {
		return nil, fmt.Errorf("policy: the label has more than %d octets", MaxCanonical)
	}
	return data, nil
}

func addShort(b *cryptobyte.Builder, s string) {
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
}

// check holds what the encoding can carry.
func (l *Label) check() error {
	short := func(s string) bool { return len(s) > 0 && len(s) <= 255 }
	switch {
	case !l.Policy.valid():
		return errors.New("policy: the label's policy is not an object identifier")
	case l.Edition == 0:
		return errors.New("policy: the label does not state its policy's edition: resolve it first")
	case !short(l.Classification) || len(l.Mark) > 255:
		return errors.New("policy: a name has 1 to 255 octets")
	case len(l.Categories) > MaxLabelCategories:
		return fmt.Errorf("policy: %d categories, at most %d are allowed", len(l.Categories), MaxLabelCategories)
	}
	for _, c := range l.Categories {
		if !c.Set.valid() || !short(c.Tag) || !short(c.Name) {
			return errors.New("policy: a category needs a tag set, a tag and a name of 1 to 255 octets")
		}
	}
	return nil
}

// ParseLabel reads a canonical label; it accepts exactly what Marshal writes.
// All names of the label share one copy of data.
func ParseLabel(data []byte) (*Label, error) {
	if len(data) > MaxCanonical {
		return nil, errCanonical
	}
	r := short{rest: string(data)}
	// Most labels have few categories: they lie beside the label.
	block := new(struct {
		Label
		room [4]Category
	})
	l := &block.Label
	if r.octet() != canonicalVersion {
		return nil, errCanonical
	}
	l.Policy = OID(r.opaque(1))
	for range 4 {
		l.Edition = l.Edition<<8 | uint32(r.octet())
	}
	l.Classification = r.opaque(1)
	l.Mark = r.opaque(0)
	tags := r.vector()
	if r.failed || r.rest != "" || !l.Policy.valid() || l.Edition == 0 {
		return nil, errCanonical
	}
	if tags.rest != "" {
		l.Categories = block.room[:0]
	}
	var before Category
	for tags.rest != "" {
		c := Category{Set: OID(tags.opaque(1)), Tag: tags.opaque(1)}
		names := tags.vector()
		// One tag, one group, in order; the first comes after nothing.
		ascends := c.Set > before.Set || c.Set == before.Set && c.Tag > before.Tag
		if tags.failed || names.rest == "" || !ascends || !c.Set.valid() {
			return nil, errCanonical
		}
		before = c
		for names.rest != "" {
			c.Name = names.opaque(1)
			if names.failed || c.Name <= before.Name || len(l.Categories) == MaxLabelCategories {
				return nil, errCanonical
			}
			before.Name = c.Name
			l.Categories = append(l.Categories, c)
		}
	}
	return l, nil
}

// A short reads vectors with lengths of one or two octets out of a string.
type short struct {
	rest   string
	failed bool
}

func (r *short) octet() byte {
	if len(r.rest) == 0 {
		r.failed = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *short) take(n int) string {
	if n > len(r.rest) {
		r.failed, r.rest = true, ""
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *short) opaque(low int) string {
	n := int(r.octet())
	if n < low {
		r.failed = true
	}
	return r.take(n)
}

func (r *short) vector() short {
	high := int(r.octet())
	return short{rest: r.take(high<<8 | int(r.octet()))}
}
