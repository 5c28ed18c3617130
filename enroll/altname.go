// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"encoding/asn1"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"valise/identity"
)

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	// oidPermanentIdentifier is RFC 4043's otherName.
	oidPermanentIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 3}
)

// checkAltName accepts a subjectAltName (RFC 5280, Section 4.2.1.6) that names this
// device and this address only:
//
//	otherName [0]  permanentIdentifier (RFC 4043) = device id
//	rfc822Name [1] = address
//	uniformResourceIdentifier [6] = device URN
func checkAltName(der []byte, address identity.Address, device identity.DeviceID) error {
	var names cryptobyte.String
	s := cryptobyte.String(der)
	if len(der) > maxSubjectAltName || !s.ReadASN1(&names, tag.SEQUENCE) || !s.Empty() {
		return errors.New("malformed subjectAltName")
	}
	for !names.Empty() {
		var value cryptobyte.String
		var t tag.Tag
		if !names.ReadAnyASN1(&value, &t) {
			return errors.New("malformed subjectAltName")
		}
		var got, want string
		switch t {
		case tag.Tag(0).ContextSpecific().Constructed():
			id, err := permanentIdentifier(value)
			if err != nil {
				return err
			}
			got, want = id, device.String()
		case tag.Tag(1).ContextSpecific():
			got, want = string(value), address.String()
		case tag.Tag(6).ContextSpecific():
			got, want = string(value), device.URL().String()
		default:
			return errors.New("a name of a kind that device certificates do not have")
		}
		if got != want {
			return errors.New("a name that is not this order's: leave names out, the authority writes them")
		}
	}
	return nil
}

// permanentIdentifier reads
//
//	OtherName ::= SEQUENCE { type-id OBJECT IDENTIFIER, value [0] EXPLICIT ANY }
//	PermanentIdentifier ::= SEQUENCE { identifierValue UTF8String OPTIONAL, assigner OBJECT IDENTIFIER OPTIONAL }
//
// (the SEQUENCE's own tag is replaced by the name's) without an assigner.
func permanentIdentifier(s cryptobyte.String) (string, error) {
	var oid asn1.ObjectIdentifier
	var value, seq, id cryptobyte.String
	if !s.ReadASN1ObjectIdentifier(&oid) || !oid.Equal(oidPermanentIdentifier) ||
		!s.ReadASN1(&value, tag.Tag(0).ContextSpecific().Constructed()) || !s.Empty() ||
		!value.ReadASN1(&seq, tag.SEQUENCE) || !value.Empty() ||
		!seq.ReadASN1(&id, tag.UTF8String) || !seq.Empty() {
		return "", errors.New("an otherName that is no permanent identifier of ours")
	}
	return string(id), nil
}
