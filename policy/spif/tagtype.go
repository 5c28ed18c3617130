// SPDX-License-Identifier: Apache-2.0

package spif

import (
	"crypto/x509"
	"fmt"
	"strconv"
)

// A Type is what a tag does in a decision, and how its categories are encoded
// in ASN.1: the schema's tagType, enumType and tag7Encoding in one.
type Type uint8

// The types of tags. "Enumerated" differs in encoding alone.
const (
	NotApplicable         Type = iota
	Restrictive                // a clearance must hold all
	EnumeratedRestrictive      //
	Permissive                 // a clearance must hold one of each tag
	EnumeratedPermissive       //
	InformativeBits            // for people; decides nothing
	InformativeList            //
)

// written is how the schema spells each type.
var written = [...]struct{ tagType, enumType, encoding string }{
	NotApplicable:         {"notApplicable", "", ""},
	Restrictive:           {"restrictive", "", ""},
	EnumeratedRestrictive: {"enumerated", "restrictive", ""},
	Permissive:            {"permissive", "", ""},
	EnumeratedPermissive:  {"enumerated", "permissive", ""},
	InformativeBits:       {"tagType7", "", "bitSetAttributes"},
	InformativeList:       {"tagType7", "", "securityAttributes"},
}

// String names the type for messages.
func (t Type) String() string {
	switch t {
	case Restrictive, Permissive:
		return written[t].tagType
	case EnumeratedRestrictive, EnumeratedPermissive:
		return "enumerated " + written[t].enumType
	case InformativeBits, InformativeList:
		return "informative"
	}
	return "not applicable"
}

// Restricts, Permits and Informs say what a type does.
func (t Type) Restricts() bool { return t == Restrictive || t == EnumeratedRestrictive }

// Permits reports whether one held category of the tag suffices.
func (t Type) Permits() bool { return t == Permissive || t == EnumeratedPermissive }

// Informs reports whether the tag decides nothing.
func (t Type) Informs() bool { return t == InformativeBits || t == InformativeList }

// parseType reads the three attributes. Without an encoding, informative tags
// are sets of bits.
func parseType(tagType, enumType, encoding string) (Type, error) {
	if tagType == "tagType7" && encoding == "" {
		encoding = written[InformativeBits].encoding
	}
	for t, w := range written {
		if w.tagType == tagType && w.enumType == enumType && w.encoding == encoding {
			return Type(t), nil
		}
	}
	return 0, fmt.Errorf("no such tag: tagType %q, enumType %q, tag7Encoding %q", clip(tagType), clip(enumType), clip(encoding))
}

// Number reads a lacv: decimal digits, leading zeros without meaning ("051" is
// 51). It is false for what is no number, as free text may have.
func Number(lacv string) (int, bool) {
	if lacv == "" {
		return 0, false
	}
	for _, c := range lacv {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(lacv, 10, 31)
	if err != nil || n > MaxNumber {
		return 0, false
	}
	return int(n), true
}

// checkOID accepts an object identifier in dotted decimal, arcs of any size.
func checkOID(s string) error {
	if len(s) > maxOIDText {
		return fmt.Errorf("object identifier longer than %d characters", maxOIDText)
	}
	oid, err := x509.ParseOID(s)
	if err != nil || oid.String() != s {
		return fmt.Errorf("%q is not an object identifier", clip(s))
	}
	return nil
}
