// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/asn1"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// marshalDirectoryAttributes writes the subjectDirectoryAttributes extension
// (RFC 5280, Section 4.2.1.8) with the clearance as its only attribute.
//
//	SubjectDirectoryAttributes ::= SEQUENCE SIZE (1..MAX) OF Attribute
//	Attribute ::= SEQUENCE { type OBJECT IDENTIFIER, values SET OF ANY }
func marshalDirectoryAttributes(c *Clearance) ([]byte, error) {
	clearance, err := c.Marshal()
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidClearance)
			b.AddASN1(tag.SET, func(b *cryptobyte.Builder) { b.AddBytes(clearance) })
		})
	})
	return b.Bytes()
}

// parseDirectoryAttributes returns the one clearance of the extension. An
// attribute of another type, or two clearances, are refused: which one governs
// would be a guess.
func parseDirectoryAttributes(der []byte) (*Clearance, error) {
	var seq, attribute, values, clearance cryptobyte.String
	var oid asn1.ObjectIdentifier
	outer := cryptobyte.String(der)
	if !outer.ReadASN1(&seq, tag.SEQUENCE) || !outer.Empty() ||
		!seq.ReadASN1(&attribute, tag.SEQUENCE) || !seq.Empty() ||
		!attribute.ReadASN1ObjectIdentifier(&oid) || !oid.Equal(oidClearance) ||
		!attribute.ReadASN1(&values, tag.SET) || !attribute.Empty() ||
		!values.ReadASN1Element(&clearance, tag.SEQUENCE) || !values.Empty() {
		return nil, errors.New("subject directory attributes: want exactly one clearance")
	}
	return ParseClearance(clearance)
}
