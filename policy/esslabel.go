// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"valise/identity"
	"valise/policy/spif"
)

// An ESS label as RFC 2634, Section 3.2 and ITU-T X.841 write it:
//
//	ESSSecurityLabel ::= SET {
//	    security-policy-identifier  OBJECT IDENTIFIER,
//	    security-classification     INTEGER (0..256) OPTIONAL,
//	    privacy-mark                CHOICE { PrintableString, UTF8String } OPTIONAL,
//	    security-categories         SET SIZE (1..64) OF SecurityCategory OPTIONAL }
//	SecurityCategory ::= SEQUENCE { type [0] IMPLICIT OBJECT IDENTIFIER, value [1] ANY }
type essLabel struct {
	policy     OID
	class      int // -1: none
	mark       string
	categories []*categoryValue
}

var errESS = errors.New("policy: malformed ESS security label")

func parseESS(data []byte) (*essLabel, error) {
	outer := ber(data)
	set, err := outer.want(tag.SET)
	if err != nil || len(outer) > 0 {
		return nil, errESS
	}
	l := &essLabel{class: -1}
	seen := make(map[tag.Tag]bool)
	for len(set) > 0 {
		e, err := set.read()
		kind := e.tag
		if kind == tag.UTF8String {
			kind = tag.PrintableString // either one is the privacy mark
		}
		if err != nil || seen[kind] {
			return nil, errESS
		}
		seen[kind] = true
		if err := l.take(e); err != nil {
			return nil, err
		}
	}
	if l.policy == "" {
		return nil, errESS
	}
	return l, nil
}

func (l *essLabel) take(e element) (err error) {
	switch e.tag {
	case tag.OBJECT_IDENTIFIER:
		if l.policy = OID(e.contents); !l.policy.valid() {
			return errESS
		}
	case tag.INTEGER:
		l.class, err = e.contents.integer(256)
	case tag.PrintableString, tag.UTF8String:
		l.mark = string(e.contents)
		if l.mark == "" || !utf8.ValidString(l.mark) || e.tag == tag.PrintableString && !printable(l.mark) {
			return errESS
		}
	case tag.SET:
		if len(e.contents) == 0 {
			return errESS
		}
		for rest := e.contents; len(rest) > 0; {
			if len(l.categories) == maxTypes {
				return errESS
			}
			v, err := takeCategory(&rest)
			if err != nil {
				return err
			}
			l.categories = append(l.categories, v)
		}
	default:
		return deny(ReasonUnrecognised, "an element with tag %#x in the label", uint8(e.tag))
	}
	return err
}

// takeCategory reads one SecurityCategory. A type that is not one of ACP 145
// makes a label invalid.
func takeCategory(b *ber) (*categoryValue, error) {
	c, err := takeRawCategory(b)
	if err != nil {
		return nil, err
	}
	v, err := parseCategoryValue(c)
	if errors.Is(err, errCategory) {
		return nil, deny(ReasonUnrecognised, "a category of type %s", clip(c.Type.String()))
	}
	return v, err
}

func takeRawCategory(b *ber) (c identity.SecurityCategory, err error) {
	seq, err := b.want(tag.SEQUENCE)
	if err != nil {
		return c, err
	}
	id, err := seq.oid(tag.Tag(0).ContextSpecific())
	if err != nil {
		return c, err
	}
	if c.Type, err = id.asn1(); err != nil {
		return c, errBER
	}
	value, err := seq.want(tag.Tag(1).ContextSpecific().Constructed())
	if err != nil || len(seq) > 0 {
		return c, errBER
	}
	c.Value = value
	return c, nil
}

// printable says whether a string has the characters of PrintableString only.
func printable(s string) bool {
	for _, c := range []byte(s) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		for _, extra := range []byte(" '()+,-./:=?") {
			ok = ok || c == extra
		}
		if !ok {
			return false
		}
	}
	return true
}

// ImportESS reads an ESSSecurityLabel in BER and names its numbers by the
// edition of its policy that is in force at a time. The error is a *Denial where the label could
// be read and is invalid.
func (s *Set) ImportESS(data []byte, at time.Time) (*Label, error) {
	if len(data) > MaxLabelFile {
		return nil, errESS
	}
	raw, err := parseESS(data)
	if err != nil {
		return nil, err
	}
	l := s.lattices[raw.policy]
	if l == nil {
		return nil, deny(ReasonUnknownPolicy, "%s", raw.policy)
	}
	e := l.current(at)
	label := &Label{Policy: raw.policy, Mark: raw.mark}
	if raw.class < 0 {
		return nil, deny(ReasonNoClassification, "the label has none")
	}
	if label.Classification, err = e.className(raw.class); err != nil {
		return nil, err
	}
	for _, category := range raw.categories {
		for _, lacv := range category.numbers {
			c, err := e.byNumber(category.set, category.kind, lacv)
			if err != nil {
				return nil, err
			}
			label.Categories = append(label.Categories, c)
			if len(label.Categories) > MaxLabelCategories {
				return nil, deny(ReasonTooMany, "more than %d categories", MaxLabelCategories)
			}
		}
	}
	return label, nil
}

// className names a classification number of this edition.
func (e *edition) className(n int) (string, error) {
	if place, known := e.lattice.byClass[n]; known && place == ambiguous {
		return "", deny(ReasonAmbiguousNumber, "classification %d has two names over the editions of the policy", n)
	}
	for name, c := range e.classes {
		if c.LACV == n {
			return name, nil
		}
	}
	return "", deny(ReasonUnknownClass, "number %d", n)
}

// byNumber names a category by set, type and number. The type is the label's
// claim: it finds a value of that type, or none.
func (e *edition) byNumber(set OID, kind spif.Type, lacv int) (Category, error) {
	bit, known := e.lattice.numbers[number{set, kind, lacv}]
	switch {
	case known && bit == ambiguous:
		return Category{}, deny(ReasonAmbiguousNumber, "%v category %d of tag set %s stands for two values", kind, lacv, set)
	case known:
		c := e.lattice.categories[bit].Category
		if v := e.values[c]; v != nil && v.number == lacv && v.kind == kind {
			return c, nil
		}
	}
	for n := range e.lattice.numbers {
		if n.set == set && n.lacv == lacv {
			return Category{}, deny(ReasonWrongType, "category %d of tag set %s is not %v in the policy", lacv, set, kind)
		}
	}
	return Category{}, deny(ReasonUnknownCategory, "%v category %d of tag set %s", kind, lacv, set)
}

// ESS writes the label as an ESSSecurityLabel in DER. A value without a number
// of its own cannot be written.
func (r *Resolved) ESS() ([]byte, error) {
	values := make([]*value, 0, len(r.chosen))
	for _, c := range r.chosen {
		values = append(values, c.value)
	}
	categories, err := r.lattice.encode(values)
	if err != nil {
		return nil, err
	}
	if r.lattice.byClass[r.class.LACV] == ambiguous {
		return nil, deny(ReasonAmbiguousNumber, "classification %q has number %d, as another edition's has", r.class.Name, r.class.LACV)
	}
	id, err := r.lattice.id.asn1()
	if err != nil {
		return nil, err
	}
	var list [][]byte
	for _, c := range categories {
		var b cryptobyte.Builder
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(OIDOf(c.Type))) })
			b.AddASN1(tag.Tag(1).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(c.Value) })
		})
		list = append(list, b.BytesOrPanic())
	}
	var b cryptobyte.Builder
	// DER orders a SET by tag: INTEGER, OBJECT IDENTIFIER, strings, SET.
	b.AddASN1(tag.SET, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(int64(r.class.LACV))
		b.AddASN1ObjectIdentifier(id)
		if r.label.Mark != "" {
			t := tag.UTF8String
			if printable(r.label.Mark) {
				t = tag.PrintableString
			}
			b.AddASN1(t, func(b *cryptobyte.Builder) { b.AddBytes([]byte(r.label.Mark)) })
		}
		if len(list) > 0 {
			addSetOf(b, tag.SET, list)
		}
	})
	return b.Bytes()
}
