// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// An OID is an object identifier as the contents octets of its DER encoding,
// the form in which message headers carry a policy (spec/message.md, Section
// 2). Arcs may have any size. It compares with == and orders with <.
type OID string

// ParseOID reads dotted decimal.
func ParseOID(dotted string) (OID, error) {
	oid, err := x509.ParseOID(dotted)
	if err != nil {
		return "", fmt.Errorf("policy: %q is not an object identifier", clip(dotted))
	}
	contents, err := oid.MarshalBinary()
	if err != nil || len(contents) > MaxOID {
		return "", fmt.Errorf("policy: %q has more than %d octets", clip(dotted), MaxOID)
	}
	return OID(contents), nil
}

// OIDOf converts from encoding/asn1. It is empty for what is no identifier.
func OIDOf(id asn1.ObjectIdentifier) OID {
	if len(id) < 2 {
		return ""
	}
	oid, err := ParseOID(id.String())
	if err != nil {
		return ""
	}
	return oid
}

// String returns dotted decimal.
func (o OID) String() string {
	oid := new(x509.OID)
	if err := oid.UnmarshalBinary([]byte(o)); err != nil {
		return fmt.Sprintf("malformed identifier %x", string(o))
	}
	return oid.String()
}

// asn1 converts to encoding/asn1, which has no arcs above 31 bits.
func (o OID) asn1() (asn1.ObjectIdentifier, error) {
	var id asn1.ObjectIdentifier
	s := cryptobyte.String(append([]byte{byte(tag.OBJECT_IDENTIFIER), byte(len(o))}, o...))
	if len(o) > 127 || !s.ReadASN1ObjectIdentifier(&id) {
		return nil, fmt.Errorf("policy: %s has an arc that clearances cannot carry", o)
	}
	return id, nil
}

// valid says whether the octets are the contents of exactly one identifier
// (X.690, Section 8.19): no arc is padded, the last one ends.
func (o OID) valid() bool {
	if o == "" || len(o) > MaxOID || o[len(o)-1] >= 0x80 {
		return false
	}
	for i := range len(o) {
		if o[i] == 0x80 && (i == 0 || o[i-1] < 0x80) {
			return false
		}
	}
	return true
}
