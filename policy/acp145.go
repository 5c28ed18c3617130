// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"valise/identity"
	"valise/policy/spif"
)

// A categoryValue is one security category of a label or clearance in the
// syntaxes of ACP 145, which say by their type what the numbers do:
//
//	RestrictiveTag ::= SEQUENCE { tagName OBJECT IDENTIFIER, attributeFlags BIT STRING }      -- .0
//	EnumeratedTag  ::= SEQUENCE { tagName OBJECT IDENTIFIER, attributeList SET OF INTEGER }   -- .1, .4
//	PermissiveTag  ::= SEQUENCE { tagName OBJECT IDENTIFIER, attributeFlags BIT STRING }      -- .2
//	InformativeTag ::= SEQUENCE { tagName OBJECT IDENTIFIER, CHOICE {
//	    bitSetAttributes BIT STRING, securityAttributes SET OF INTEGER } }                    -- .3
//
// tagName is the tag set. What the numbers stand for says the policy alone.
type categoryValue struct {
	set     OID
	kind    spif.Type
	numbers []int
}

// acp145 is the arc of the category types.
var acp145 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 2, 1, 8, 3}

// kindOf gives each type's place below the arc.
var kindOf = map[int]spif.Type{
	0: spif.Restrictive, 1: spif.EnumeratedPermissive, 2: spif.Permissive,
	3: spif.InformativeBits, 4: spif.EnumeratedRestrictive,
}

var errCategory = errors.New("policy: security category is not one of ACP 145")

func parseCategoryValue(c identity.SecurityCategory) (*categoryValue, error) {
	n := len(acp145)
	if len(c.Type) != n+1 || !c.Type[:n].Equal(acp145) {
		return nil, errCategory
	}
	kind, ok := kindOf[c.Type[n]]
	if !ok {
		return nil, errCategory
	}
	outer := ber(c.Value)
	seq, err := outer.want(tag.SEQUENCE)
	if err != nil || len(outer) > 0 {
		return nil, errBER
	}
	v := &categoryValue{kind: kind}
	if v.set, err = seq.oid(tag.OBJECT_IDENTIFIER); err != nil {
		return nil, err
	}
	field, err := seq.read()
	if err != nil || len(seq) > 0 {
		return nil, errBER
	}
	list := kind == spif.EnumeratedRestrictive || kind == spif.EnumeratedPermissive
	switch {
	case field.tag == tag.BIT_STRING && !list:
		v.numbers, err = field.contents.bits(spif.MaxNumber)
	case field.tag == tag.SET && (list || kind == spif.InformativeBits):
		if !list {
			v.kind = spif.InformativeList
		}
		v.numbers, err = field.contents.integers()
	default:
		err = errBER
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// integers reads the contents of a SET OF INTEGER.
func (b ber) integers() (numbers []int, err error) {
	for len(b) > 0 {
		contents, err := b.want(tag.INTEGER)
		if err != nil {
			return nil, err
		}
		n, err := contents.integer(spif.MaxNumber)
		if err != nil || len(numbers) == spif.MaxCategories {
			return nil, errBER
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

func (v *categoryValue) marshal() (identity.SecurityCategory, error) {
	place := -1
	for at, kind := range kindOf {
		if sameKind(kind, v.kind) {
			place = at
		}
	}
	set, err := v.set.asn1()
	if err != nil {
		return identity.SecurityCategory{}, err
	}
	if place < 0 {
		return identity.SecurityCategory{}, fmt.Errorf("policy: a %v category has no encoding", v.kind)
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(set)
		if v.kind == spif.Restrictive || v.kind == spif.Permissive || v.kind == spif.InformativeBits {
			addBits(b, v.numbers)
			return
		}
		var list [][]byte
		for _, n := range v.numbers {
			var each cryptobyte.Builder
			each.AddASN1Int64(int64(n))
			list = append(list, each.BytesOrPanic())
		}
		addSetOf(b, tag.SET, list)
	})
	der, err := b.Bytes()
	if err != nil {
		return identity.SecurityCategory{}, fmt.Errorf("policy: %w", err)
	}
	return identity.SecurityCategory{Type: append(acp145[:len(acp145):len(acp145)], place), Value: der}, nil
}
