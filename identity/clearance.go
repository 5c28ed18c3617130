// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// A Clearance is what its holder may see under one security policy, as RFC
// 5755, Section 4.4.6 writes it. ClassList is a set of classification numbers,
// one bit each; it is not a highest level.
//
//	Clearance ::= SEQUENCE {
//	    policyId            OBJECT IDENTIFIER,
//	    classList           ClassList DEFAULT {unclassified},
//	    securityCategories  SET OF SecurityCategory OPTIONAL }
//	ClassList ::= BIT STRING { unmarked(0), unclassified(1), restricted(2),
//	    confidential(3), secret(4), topSecret(5) }
//	SecurityCategory ::= SEQUENCE {
//	    type   [0] IMPLICIT OBJECT IDENTIFIER,
//	    value  [1] EXPLICIT ANY DEFINED BY type }
type Clearance struct {
	PolicyID   asn1.ObjectIdentifier
	ClassList  asn1.BitString
	Categories []SecurityCategory
}

// A SecurityCategory is one of a clearance's categories; Value is the DER of
// whatever Type defines, kept as it came.
type SecurityCategory struct {
	Type  asn1.ObjectIdentifier
	Value []byte
}

var errClearance = errors.New("clearance: malformed")

// NewClassList returns the class list that holds exactly the classifications
// given by number.
func NewClassList(classes ...int) (asn1.BitString, error) {
	var list asn1.BitString
	for _, class := range classes {
		if class < 0 || class > maxClassBit {
			return asn1.BitString{}, fmt.Errorf("clearance: classification %d is outside 0 to %d", class, maxClassBit)
		}
		for len(list.Bytes) <= class/8 {
			list.Bytes = append(list.Bytes, 0)
		}
		list.Bytes[class/8] |= 0x80 >> (class % 8)
		list.BitLength = max(list.BitLength, class+1)
	}
	return list, nil
}

// Classes returns the classification numbers that c holds, ascending.
func (c *Clearance) Classes() []int {
	var classes []int
	for i := range c.ClassList.BitLength {
		if c.ClassList.At(i) == 1 {
			classes = append(classes, i)
		}
	}
	return classes
}

// Covers reports whether whoever holds c holds everything that other grants:
// the same policy, and each classification and category of other. No clearance
// grants nothing, so every clearance covers nil. Categories compare as their
// encodings: one that differs in any octet is another one.
func (c *Clearance) Covers(other *Clearance) bool {
	if other == nil {
		return true
	}
	if c == nil || !c.PolicyID.Equal(other.PolicyID) {
		return false
	}
	for _, class := range other.Classes() {
		if c.ClassList.At(class) != 1 {
			return false
		}
	}
	for _, category := range other.Categories {
		if !c.holds(category) {
			return false
		}
	}
	return true
}

func (c *Clearance) holds(category SecurityCategory) bool {
	for _, mine := range c.Categories {
		if mine.Type.Equal(category.Type) && bytes.Equal(mine.Value, category.Value) {
			return true
		}
	}
	return false
}

// Marshal returns c in DER: the default class list and trailing zero bits are
// left out, categories are sorted (X.690, Sections 11.2.2, 11.5, 11.6).
func (c *Clearance) Marshal() ([]byte, error) {
	if len(c.Categories) > maxCategories {
		return nil, fmt.Errorf("clearance: %d categories, at most %d are allowed", len(c.Categories), maxCategories)
	}
	list, err := NewClassList(c.Classes()...)
	if err != nil {
		return nil, err
	}
	categories := make([][]byte, 0, len(c.Categories))
	for _, category := range c.Categories {
		der, err := category.marshal()
		if err != nil {
			return nil, err
		}
		categories = append(categories, der)
	}
	slices.SortFunc(categories, bytes.Compare)
	if len(slices.CompactFunc(slices.Clone(categories), bytes.Equal)) != len(categories) {
		return nil, errors.New("clearance: a category stands twice")
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(c.PolicyID)
		if !isDefault(list) {
			b.AddASN1(tag.BIT_STRING, func(b *cryptobyte.Builder) {
				b.AddUint8(uint8(8*len(list.Bytes) - list.BitLength))
				b.AddBytes(list.Bytes)
			})
		}
		if len(categories) > 0 {
			b.AddASN1(tag.SET, func(b *cryptobyte.Builder) {
				b.AddBytes(bytes.Join(categories, nil))
			})
		}
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("clearance: %w", err)
	}
	if len(der) > maxClearanceSize {
		return nil, fmt.Errorf("clearance: %d bytes, at most %d are allowed", len(der), maxClearanceSize)
	}
	return der, nil
}

// ParseClearance reads a clearance; it accepts exactly what Marshal writes.
func ParseClearance(der []byte) (*Clearance, error) {
	if len(der) > maxClearanceSize {
		return nil, errClearance
	}
	c := &Clearance{ClassList: asn1.BitString{Bytes: []byte{0x40}, BitLength: 2}}
	var seq, set cryptobyte.String
	outer := cryptobyte.String(der)
	if !outer.ReadASN1(&seq, tag.SEQUENCE) || !outer.Empty() ||
		!seq.ReadASN1ObjectIdentifier(&c.PolicyID) {
		return nil, errClearance
	}
	if seq.PeekASN1Tag(tag.BIT_STRING) && !seq.ReadASN1BitString(&c.ClassList) {
		return nil, errClearance
	}
	var present bool
	if !seq.ReadOptionalASN1(&set, &present, tag.SET) || !seq.Empty() {
		return nil, errClearance
	}
	for !set.Empty() {
		category, err := readCategory(&set)
		if err != nil || len(c.Categories) == maxCategories {
			return nil, errClearance
		}
		c.Categories = append(c.Categories, category)
	}
	// One clearance, one encoding: whatever slipped through above (padding
	// bits, the default written out, an unsorted set) differs here.
	if again, err := c.Marshal(); err != nil || !bytes.Equal(again, der) {
		return nil, errClearance
	}
	return c, nil
}

var (
	categoryType  = tag.Tag(0).ContextSpecific()
	categoryValue = tag.Tag(1).ContextSpecific().Constructed()
)

func (s SecurityCategory) marshal() ([]byte, error) {
	value := cryptobyte.String(s.Value)
	var element cryptobyte.String
	if !value.ReadAnyASN1Element(&element, new(tag.Tag)) || !value.Empty() {
		return nil, errors.New("clearance: a category's value is not one DER element")
	}
	var oid cryptobyte.Builder
	oid.AddASN1ObjectIdentifier(s.Type)
	typed, err := oid.Bytes()
	if err != nil {
		return nil, fmt.Errorf("clearance: category type: %w", err)
	}
	var content cryptobyte.String
	inner := cryptobyte.String(typed)
	inner.ReadASN1(&content, tag.OBJECT_IDENTIFIER)
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(categoryType, func(b *cryptobyte.Builder) { b.AddBytes(content) })
		b.AddASN1(categoryValue, func(b *cryptobyte.Builder) { b.AddBytes(s.Value) })
	})
	return b.Bytes()
}

func readCategory(s *cryptobyte.String) (SecurityCategory, error) {
	var seq, oid, value cryptobyte.String
	if !s.ReadASN1(&seq, tag.SEQUENCE) || !seq.ReadASN1(&oid, categoryType) ||
		!seq.ReadASN1(&value, categoryValue) || !seq.Empty() || len(oid) > 127 {
		return SecurityCategory{}, errClearance
	}
	var category SecurityCategory
	plain := cryptobyte.String(append([]byte{byte(tag.OBJECT_IDENTIFIER), byte(len(oid))}, oid...))
	if !plain.ReadASN1ObjectIdentifier(&category.Type) {
		return SecurityCategory{}, errClearance
	}
	category.Value = slices.Clone([]byte(value))
	return category, nil
}

// isDefault reports whether list is {unclassified}.
func isDefault(list asn1.BitString) bool {
	return list.BitLength == 2 && list.Bytes[0] == 0x40
}
