// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	tag "golang.org/x/crypto/cryptobyte/asn1"

	"valise/identity"
	"valise/policy/spif"
	"valise/policy/spif/xmltree"
)

// spiffy is the namespace of clearances in XML, as the Spiffing library has
// them: numbers, with the type of tag beside each. There is no standard one.
const spiffy = "http://surevine.com/xmlns/spiffy"

var errClearance = errors.New("policy: malformed clearance")

// xmlTypes are the types as that format spells them.
var xmlTypes = map[string]spif.Type{
	"restrictive": spif.Restrictive, "permissive": spif.Permissive,
	"enumeratedRestrictive": spif.EnumeratedRestrictive, "enumeratedPermissive": spif.EnumeratedPermissive,
}

// ParseClearance reads a clearance from a file: the RFC 5755 attribute value in
// BER, or XML. Which one it is shows in the content.
func ParseClearance(data []byte) (*identity.Clearance, error) {
	if len(data) > MaxClearanceFile {
		return nil, fmt.Errorf("policy: clearance of %d bytes, at most %d are allowed", len(data), MaxClearanceFile)
	}
	if len(data) > 0 && data[0] == byte(tag.SEQUENCE) {
		return parseClearanceBER(data)
	}
	return parseClearanceXML(data)
}

// parseClearanceBER reads RFC 5755, Section 4.4.6 in BER, where package
// identity takes DER alone. The outcome is one that identity can write.
func parseClearanceBER(data []byte) (*identity.Clearance, error) {
	outer := ber(data)
	seq, err := outer.want(tag.SEQUENCE)
	if err != nil || len(outer) > 0 {
		return nil, errClearance
	}
	id, err := seq.oid(tag.OBJECT_IDENTIFIER)
	if err != nil {
		return nil, errClearance
	}
	c := new(identity.Clearance)
	if c.PolicyID, err = id.asn1(); err != nil {
		return nil, errClearance
	}
	classes := []int{1} // DEFAULT {unclassified}
	if len(seq) > 0 && seq[0] == byte(tag.BIT_STRING) {
		contents, err := seq.want(tag.BIT_STRING)
		if err != nil {
			return nil, errClearance
		}
		if classes, err = contents.bits(spif.MaxClassNumber); err != nil {
			return nil, errClearance
		}
	}
	if c.ClassList, err = identity.NewClassList(classes...); err != nil {
		return nil, errClearance
	}
	if len(seq) > 0 {
		set, err := seq.want(tag.SET)
		if err != nil || len(seq) > 0 {
			return nil, errClearance
		}
		for len(set) > 0 {
			category, err := takeRawCategory(&set)
			if err != nil || len(c.Categories) == maxTypes {
				return nil, errClearance
			}
			// In BER one category has many forms: write ours.
			if v, err := parseCategoryValue(category); err == nil {
				if category, err = v.marshal(); err != nil {
					return nil, errClearance
				}
			}
			c.Categories = append(c.Categories, category)
		}
	}
	if _, err := c.Marshal(); err != nil {
		return nil, errClearance
	}
	return c, nil
}

func parseClearanceXML(data []byte) (*identity.Clearance, error) {
	root, err := xmltree.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("policy: clearance: %w", err)
	}
	if root.Space != spiffy || root.Name != "clearance" {
		return nil, fmt.Errorf("policy: line %d: %q of namespace %q is not a clearance", root.Line, clip(root.Name), clip(root.Space))
	}
	c := new(identity.Clearance)
	if err := errors.Join(root.Only(), root.NoText()); err != nil {
		return nil, fmt.Errorf("policy: clearance: %w", err)
	}
	var classes []int
	lists := make(map[categoryKey][]int)
	for _, n := range root.Children {
		if err := readClearanceElement(n, c, &classes, lists); err != nil {
			return nil, fmt.Errorf("policy: clearance: %w", err)
		}
	}
	if c.PolicyID == nil {
		return nil, fmt.Errorf("policy: line %d: the clearance names no policy", root.Line)
	}
	if c.ClassList, err = identity.NewClassList(classes...); err != nil {
		return nil, err
	}
	for key, numbers := range lists {
		slices.Sort(numbers)
		category, err := (&categoryValue{key.set, key.kind, slices.Compact(numbers)}).marshal()
		if err != nil {
			return nil, err
		}
		c.Categories = append(c.Categories, category)
	}
	slices.SortFunc(c.Categories, func(a, b identity.SecurityCategory) int {
		return cmp.Or(slices.Compare(a.Type, b.Type), bytes.Compare(a.Value, b.Value))
	})
	return c, nil
}

type categoryKey struct {
	set  OID
	kind spif.Type
}

func readClearanceElement(n *xmltree.Node, c *identity.Clearance, classes *[]int, lists map[categoryKey][]int) error {
	if n.Space != spiffy {
		return n.Errorf("%q of namespace %q is not known", clip(n.Name), clip(n.Space))
	}
	kind, hasKind := n.Attr("type")
	id, hasID := n.Attr("id")
	text, hasLACV := n.Attr("lacv")
	lacv, ok := spif.Number(text)
	if hasLACV && !ok {
		return n.Errorf("lacv %q is not a number", clip(text))
	}
	var oid OID
	if hasID {
		var err error
		if oid, err = ParseOID(id); err != nil {
			return n.Errorf("%w", err)
		}
	}
	switch {
	case n.Name == "policy" && hasID && !hasKind && !hasLACV && c.PolicyID == nil:
		var err error
		if c.PolicyID, err = oid.asn1(); err != nil {
			return n.Errorf("%w", err)
		}
	case n.Name == "classification" && hasLACV && !hasKind && !hasID:
		*classes = append(*classes, lacv)
	case n.Name == "tag" && hasKind && hasID && hasLACV:
		t, ok := xmlTypes[kind]
		if !ok {
			return n.Errorf("type %q is not known", clip(kind))
		}
		key := categoryKey{oid, t}
		lists[key] = append(lists[key], lacv)
	default:
		return n.Errorf("a %q that is not known, or there twice, or with other attributes than it needs", clip(n.Name))
	}
	return errors.Join(n.Only(), n.NoText(), n.NoChildren())
}

// ClearanceXML writes a clearance as XML. Categories of other types than ACP
// 145's cannot be written.
func ClearanceXML(c *identity.Clearance) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<clearance xmlns=%s>\n    <policy id=%s/>\n", quoted(spiffy), quoted(c.PolicyID.String()))
	for _, n := range c.Classes() {
		fmt.Fprintf(&b, "    <classification lacv=\"%d\"/>\n", n)
	}
	var values []*categoryValue
	for _, category := range c.Categories {
		v, err := parseCategoryValue(category)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	slices.SortFunc(values, func(a, b *categoryValue) int { return cmp.Or(cmp.Compare(a.set, b.set), cmp.Compare(a.kind, b.kind)) })
	for _, v := range values {
		for name, kind := range xmlTypes {
			if kind != v.kind {
				continue
			}
			for _, n := range v.numbers {
				fmt.Fprintf(&b, "    <tag type=%s id=%s lacv=\"%d\"/>\n", quoted(name), quoted(v.set.String()), n)
			}
		}
	}
	b.WriteString("</clearance>\n")
	return b.Bytes(), nil
}
