// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"valise/identity"
)

// OIDClearanceConstraints is the certificate extension of RFC 5913, Section 3.
var OIDClearanceConstraints = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 21}

// Constraints are the clearances below which a CA may clear anybody, one for
// each policy.
//
//	AuthorityClearanceConstraints ::= SEQUENCE SIZE (1..MAX) OF Clearance
type Constraints []*identity.Clearance

// ParseConstraints reads the value of the extension, in DER.
func ParseConstraints(der []byte) (Constraints, error) {
	outer := cryptobyte.String(der)
	var seq cryptobyte.String
	if !outer.ReadASN1(&seq, tag.SEQUENCE) || !outer.Empty() || seq.Empty() {
		return nil, fmt.Errorf("policy: malformed clearance constraints")
	}
	var list Constraints
	for !seq.Empty() {
		var one cryptobyte.String
		if !seq.ReadASN1Element(&one, tag.SEQUENCE) || len(list) == maxConstraints {
			return nil, fmt.Errorf("policy: malformed clearance constraints")
		}
		c, err := identity.ParseClearance(one)
		if err != nil {
			return nil, fmt.Errorf("policy: clearance constraints: %w", err)
		}
		if list.of(c.PolicyID) != nil {
			return nil, fmt.Errorf("policy: clearance constraints name policy %s twice", c.PolicyID)
		}
		list = append(list, c)
	}
	return list, nil
}

// Marshal writes the value of the extension.
func (list Constraints) Marshal() ([]byte, error) {
	if len(list) == 0 || len(list) > maxConstraints {
		return nil, fmt.Errorf("policy: %d clearance constraints, want 1 to %d", len(list), maxConstraints)
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		for i, c := range list {
			der, err := c.Marshal()
			if err == nil && list[:i].of(c.PolicyID) != nil {
				err = fmt.Errorf("policy: clearance constraints name policy %s twice", c.PolicyID)
			}
			if err != nil {
				b.SetError(err)
				return
			}
			b.AddBytes(der)
		}
	})
	return b.Bytes()
}

func (list Constraints) of(policy asn1.ObjectIdentifier) *identity.Clearance {
	for _, c := range list {
		if c.PolicyID.Equal(policy) {
			return c
		}
	}
	return nil
}

// Effective returns what is left of a leaf's clearance under the certificates
// above it, in any order, the root's too: the intersection down the path (RFC
// 5913, Section 4). A certificate without the extension constrains nothing;
// one that has it and does not name the policy leaves nothing. The outcome is
// nil where nothing is left; an extension that cannot be read is an error, and
// the leaf then has no clearance at all.
//
// It judges clearances only: the path must have passed identity.Trust.
func Effective(c *identity.Clearance, above ...*x509.Certificate) (*identity.Clearance, error) {
	if len(above) > maxPath {
		return nil, fmt.Errorf("policy: %d certificates above the leaf, at most %d are allowed", len(above), maxPath)
	}
	for _, cert := range above {
		for _, ext := range cert.Extensions {
			if !ext.Id.Equal(OIDClearanceConstraints) {
				continue
			}
			list, err := ParseConstraints(ext.Value)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", clip(cert.Subject.String()), err)
			}
			if c != nil {
				c = Intersect(c, list.of(c.PolicyID))
			}
		}
	}
	return c, nil
}

// Intersect returns what both clearances hold, nil where that is nothing: no
// policy in common, or no classification. Categories of ACP 145 are
// intersected value by value; of any other type those that both hold in the
// same octets, since nobody here knows what is in them.
func Intersect(a, b *identity.Clearance) *identity.Clearance {
	if a == nil || b == nil || !a.PolicyID.Equal(b.PolicyID) {
		return nil
	}
	var classes []int
	for _, n := range a.Classes() {
		if slices.Contains(b.Classes(), n) {
			classes = append(classes, n)
		}
	}
	list, err := identity.NewClassList(classes...)
	if err != nil || len(classes) == 0 {
		return nil
	}
	out := &identity.Clearance{PolicyID: slices.Clone(a.PolicyID), ClassList: list}
	for _, category := range a.Categories {
		both, ok := intersectCategory(category, b.Categories)
		same := func(have identity.SecurityCategory) bool {
			return have.Type.Equal(both.Type) && bytes.Equal(have.Value, both.Value)
		}
		if ok && !slices.ContainsFunc(out.Categories, same) {
			out.Categories = append(out.Categories, both)
		}
	}
	return out
}

// intersectCategory returns what of one category stands in a list too.
func intersectCategory(c identity.SecurityCategory, list []identity.SecurityCategory) (identity.SecurityCategory, bool) {
	mine, err := parseCategoryValue(c)
	if err != nil {
		for _, other := range list {
			if other.Type.Equal(c.Type) && bytes.Equal(other.Value, c.Value) {
				return c, true
			}
		}
		return identity.SecurityCategory{}, false
	}
	var both []int
	for _, other := range list {
		theirs, err := parseCategoryValue(other)
		if err != nil || theirs.set != mine.set || theirs.kind != mine.kind {
			continue
		}
		for _, n := range mine.numbers {
			if slices.Contains(theirs.numbers, n) && !slices.Contains(both, n) {
				both = append(both, n)
			}
		}
	}
	slices.Sort(both)
	if len(both) == 0 {
		return identity.SecurityCategory{}, false
	}
	out, err := (&categoryValue{mine.set, mine.kind, both}).marshal()
	return out, err == nil
}
