// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"valise/policy/spif"
	"valise/policy/spif/xmltree"
)

// slab is the namespace of STANAG 4774 labels.
const slab = "urn:nato:stanag:4774:confidentialitymetadatalabel:1:0"

// Elements that a STANAG 4774 label can be. A translation is an Alternative.
const (
	OriginatorLabel  = "originatorConfidentialityLabel"
	AlternativeLabel = "alternativeConfidentialityLabel"
	MetadataLabel    = "metadataConfidentialityLabel"
	PlainLabel       = "ConfidentialityLabel"
)

// An XMLLabel is a STANAG 4774 label with what stands around it.
type XMLLabel struct {
	Element      string // which of the four it is; "" is written as OriginatorLabel
	Label        *Label
	Originator   string
	OriginatorID string // type of Originator, "rfc822Name" and so on
	Created      time.Time
	Review       time.Time // zero: none
}

// originatorTypes are the schema's.
var originatorTypes = []string{
	"rfc822Name", "dNSName", "directoryName", "uniformResourceIdentifier", "iPAddress", "x400Address", "userPrincipalName", "jID",
}

// ImportXML reads a STANAG 4774 label and looks up its names in
// the edition of its policy that is in force at a time. What the schema
// has room for and this program does not know makes it invalid; a label that
// asks to be succeeded by another one is invalid too, since nobody here would
// carry that out. The error is a *Denial where the label could be read.
func (s *Set) ImportXML(data []byte, at time.Time) (*XMLLabel, error) {
	if len(data) > MaxLabelFile {
		return nil, fmt.Errorf("policy: label of %d bytes, at most %d are allowed", len(data), MaxLabelFile)
	}
	root, err := xmltree.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("policy: label: %w", err)
	}
	if root.Space != slab || !slices.Contains([]string{OriginatorLabel, AlternativeLabel, MetadataLabel, PlainLabel}, root.Name) {
		return nil, fmt.Errorf("policy: line %d: %q of namespace %q is not a STANAG 4774 label", root.Line, clip(root.Name), clip(root.Space))
	}
	x := &XMLLabel{Element: root.Name}
	x.Review, err = dateAttr(root, "ReviewDateTime")
	if err != nil {
		return nil, err
	}
	_, _ = root.Attr("Id")
	children, err := childrenOf(root, "ConfidentialityInformation", "OriginatorID", "CreationDateTime", "SuccessionHandling")
	if err != nil {
		return nil, err
	}
	if n := children["SuccessionHandling"]; n != nil {
		return nil, deny(ReasonSuccession, "line %d: the label names a successor", n.Line)
	}
	if n := children["OriginatorID"]; n != nil {
		if x.Originator, x.OriginatorID, err = originator(n); err != nil {
			return nil, err
		}
	}
	// The schema demands a time; published labels lack it, and nothing is
	// decided by it.
	if n := children["CreationDateTime"]; n != nil {
		if x.Created, err = dateText(n); err != nil {
			return nil, err
		}
	}
	info := children["ConfidentialityInformation"]
	if info == nil {
		return nil, deny(ReasonMalformed, "line %d: no ConfidentialityInformation", root.Line)
	}
	if x.Label, err = s.information(info, at); err != nil {
		return nil, err
	}
	return x, nil
}

// childrenOf returns the children by name, each there at most once, after all
// attributes of n were asked for.
func childrenOf(n *xmltree.Node, names ...string) (map[string]*xmltree.Node, error) {
	if err := unrecognised(n.Only(), n.NoText()); err != nil {
		return nil, err
	}
	found := make(map[string]*xmltree.Node)
	for _, c := range n.Children {
		if c.Space != slab || !slices.Contains(names, c.Name) {
			return nil, deny(ReasonUnrecognised, "line %d: %q of namespace %q", c.Line, clip(c.Name), clip(c.Space))
		}
		if found[c.Name] != nil {
			return nil, deny(ReasonMalformed, "line %d: a second %s", c.Line, c.Name)
		}
		found[c.Name] = c
	}
	return found, nil
}

func unrecognised(errs ...error) error {
	if err := errors.Join(errs...); err != nil {
		return deny(ReasonUnrecognised, "%v", err)
	}
	return nil
}

// text returns the text of an element that has nothing else inside.
func text(n *xmltree.Node) (string, error) {
	return n.Text, unrecognised(n.Only(), n.NoChildren())
}

// token is text with white space collapsed, as xs:token has it.
func token(n *xmltree.Node) (string, error) {
	s, err := text(n)
	return strings.Join(strings.Fields(s), " "), err
}

func originator(n *xmltree.Node) (name, kind string, err error) {
	kind, _ = n.Attr("IDType")
	if !slices.Contains(originatorTypes, kind) {
		return "", "", deny(ReasonMalformed, "line %d: IDType is %q", n.Line, clip(kind))
	}
	name, err = text(n)
	return name, kind, err
}

func dateText(n *xmltree.Node) (time.Time, error) {
	s, err := token(n)
	if err != nil {
		return time.Time{}, err
	}
	return dateOf(n, s)
}

func dateAttr(n *xmltree.Node, name string) (time.Time, error) {
	s, ok := n.Attr(name)
	if !ok {
		return time.Time{}, nil
	}
	return dateOf(n, s)
}

func dateOf(n *xmltree.Node, s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t, err = time.Parse("2006-01-02T15:04:05.999999999", s)
	}
	if err != nil {
		return time.Time{}, deny(ReasonMalformed, "line %d: %q is not a date and time", n.Line, clip(s))
	}
	return t.UTC(), nil
}

// information reads policy, classification, mark and categories.
func (s *Set) information(n *xmltree.Node, at time.Time) (*Label, error) {
	var categories []*xmltree.Node
	rest := *n
	rest.Children = nil
	for _, c := range n.Children {
		if c.Space == slab && c.Name == "Category" {
			categories = append(categories, c)
		} else {
			rest.Children = append(rest.Children, c)
		}
	}
	one, err := childrenOf(&rest, "PolicyIdentifier", "Classification", "PrivacyMark")
	if err != nil {
		return nil, err
	}
	if one["PolicyIdentifier"] == nil {
		return nil, deny(ReasonMalformed, "line %d: no PolicyIdentifier", n.Line)
	}
	l, err := s.policyNamed(one["PolicyIdentifier"])
	if err != nil {
		return nil, err
	}
	label := &Label{Policy: l.id}
	class := one["Classification"]
	if class == nil {
		return nil, deny(ReasonNoClassification, "line %d: the label has none", n.Line)
	}
	_, _ = class.Attr("URI") // the name decides
	if label.Classification, err = token(class); err != nil {
		return nil, err
	}
	if label.Classification == "" {
		return nil, deny(ReasonNoClassification, "line %d: the label has none", class.Line)
	}
	if mark := one["PrivacyMark"]; mark != nil {
		if label.Mark, err = text(mark); err != nil {
			return nil, err
		}
		if label.Mark == "" {
			return nil, deny(ReasonMalformed, "line %d: an empty privacy mark", mark.Line)
		}
	}
	for _, c := range categories {
		more, err := l.current(at).categoryNamed(c)
		if err != nil {
			return nil, err
		}
		if label.Categories = append(label.Categories, more...); len(label.Categories) > MaxLabelCategories {
			return nil, deny(ReasonTooMany, "more than %d categories", MaxLabelCategories)
		}
	}
	return label, nil
}

// policyNamed finds the policy by its name, or by identifier and name.
func (s *Set) policyNamed(n *xmltree.Node) (*lattice, error) {
	uri, hasURI := n.Attr("URI")
	name, err := token(n)
	if err != nil {
		return nil, err
	}
	var found *lattice
	for _, l := range s.named[name] {
		if hasURI && uri != urn(l.id) {
			continue
		}
		if found != nil {
			return nil, deny(ReasonUnknownPolicy, "two policies are called %q, and the label does not say which is meant", clip(name))
		}
		found = l
	}
	if found == nil {
		return nil, deny(ReasonUnknownPolicy, "%q %s", clip(name), clip(uri))
	}
	return found, nil
}

func urn(id OID) string { return "urn:oid:" + id.String() }

// categoryNamed reads one Category: a tag's name, and values by name, number
// or bits. Type is compared with the policy's own and never believed.
func (e *edition) categoryNamed(n *xmltree.Node) (out []Category, err error) {
	claim, _ := n.Attr("Type")
	name, _ := n.Attr("TagName")
	uri, hasURI := n.Attr("URI")
	if err := unrecognised(n.Only(), n.NoText()); err != nil {
		return nil, err
	}
	found, several := e.only(func(t *tagRule) bool { return t.Name == name && (!hasURI || uri == urn(t.set)) })
	if found == nil && !several {
		// Some write the tag set's name; it will do where it has one tag.
		found, several = e.only(func(t *tagRule) bool { return t.setRule.Name == name && (!hasURI || uri == urn(t.set)) })
	}
	if several {
		return nil, deny(ReasonUnknownCategory, "line %d: two tags are called %q, and the label does not say which is meant", n.Line, clip(name))
	}
	if found == nil {
		return nil, deny(ReasonUnknownCategory, "line %d: tag %q %s", n.Line, clip(name), clip(uri))
	}
	if claim != claimOf(found.Type) {
		return nil, deny(ReasonWrongType, "line %d: tag %q is %v in the policy, not %q", n.Line, found.Name, found.Type, clip(claim))
	}
	if len(n.Children) == 0 {
		return nil, deny(ReasonMalformed, "line %d: tag %q without a value", n.Line, found.Name)
	}
	for _, c := range n.Children {
		more, err := found.valueNamed(e, c)
		if err != nil {
			return nil, err
		}
		if out = append(out, more...); len(out) > MaxLabelCategories {
			return nil, deny(ReasonTooMany, "more than %d categories", MaxLabelCategories)
		}
	}
	return out, nil
}

// only returns the one tag that matches.
func (e *edition) only(match func(*tagRule) bool) (found *tagRule, several bool) {
	for _, t := range e.tags {
		if !match(t) {
			continue
		}
		if found != nil {
			return nil, true
		}
		found = t
	}
	return found, false
}

// claimOf is how STANAG 4774 writes a type.
func claimOf(t spif.Type) string {
	switch {
	case t.Restricts():
		return "RESTRICTIVE"
	case t.Permits():
		return "PERMISSIVE"
	case t.Informs():
		return "INFORMATIVE"
	}
	return ""
}

func (t *tagRule) valueNamed(e *edition, n *xmltree.Node) (out []Category, err error) {
	s, err := text(n)
	if err != nil {
		return nil, err
	}
	var numbers []int
	switch {
	case n.Space != slab:
		return nil, deny(ReasonUnrecognised, "line %d: %q of namespace %q", n.Line, clip(n.Name), clip(n.Space))
	case n.Name == "GenericValue":
		return []Category{{t.set, t.Name, s}}, nil
	case n.Name == "IntegerValue":
		lacv, ok := spif.Number(s)
		if !ok {
			return nil, deny(ReasonMalformed, "line %d: %q is not a number", n.Line, clip(s))
		}
		numbers = append(numbers, lacv)
	case n.Name == "BitStringValue":
		if len(s) == 0 || strings.Trim(s, "01") != "" {
			return nil, deny(ReasonMalformed, "line %d: %q is not a string of bits", n.Line, clip(s))
		}
		for i := range len(s) {
			if s[i] == '1' {
				numbers = append(numbers, i)
			}
		}
	default:
		return nil, deny(ReasonUnrecognised, "line %d: a %q as value", n.Line, clip(n.Name))
	}
	if len(numbers) > MaxLabelCategories {
		return nil, deny(ReasonTooMany, "more than %d categories", MaxLabelCategories)
	}
	for _, lacv := range numbers {
		c, err := e.byNumber(t.set, t.Type, lacv)
		if err != nil {
			return nil, err
		}
		if c.Tag != t.Name {
			return nil, deny(ReasonUnknownCategory, "line %d: number %d is one of tag %q, not of %q", n.Line, lacv, c.Tag, t.Name)
		}
		out = append(out, c)
	}
	return out, nil
}

// XML writes the label as STANAG 4774; x.Label is not looked at. Values are
// written by name, and policy and tag sets by identifier too.
func (r *Resolved) XML(x XMLLabel) ([]byte, error) {
	if x.Created.IsZero() {
		return nil, errors.New("policy: a STANAG 4774 label needs its time of creation")
	}
	if x.Originator != "" && !slices.Contains(originatorTypes, x.OriginatorID) {
		return nil, fmt.Errorf("policy: %q is not a type of originator", clip(x.OriginatorID))
	}
	if x.Element == "" {
		x.Element = OriginatorLabel
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	fmt.Fprintf(&b, "<%s xmlns=%q", x.Element, slab)
	if !x.Review.IsZero() {
		fmt.Fprintf(&b, " ReviewDateTime=%q", x.Review.UTC().Format(time.RFC3339Nano))
	}
	b.WriteString(">\n  <ConfidentialityInformation>\n")
	fmt.Fprintf(&b, "    <PolicyIdentifier URI=%s>%s</PolicyIdentifier>\n", quoted(urn(r.lattice.id)), escaped(r.edition.doc.Policy.Name))
	fmt.Fprintf(&b, "    <Classification>%s</Classification>\n", escaped(r.class.Name))
	if r.label.Mark != "" {
		fmt.Fprintf(&b, "    <PrivacyMark>%s</PrivacyMark>\n", escaped(r.label.Mark))
	}
	for i, c := range r.chosen {
		if i == 0 || c.tag != r.chosen[i-1].tag {
			fmt.Fprintf(&b, "    <Category Type=%s URI=%s TagName=%s>\n", strconv.Quote(claimOf(c.kind)), quoted(urn(c.Set)), quoted(c.Tag))
		}
		fmt.Fprintf(&b, "      <GenericValue>%s</GenericValue>\n", escaped(c.Name))
		if i == len(r.chosen)-1 || c.tag != r.chosen[i+1].tag {
			b.WriteString("    </Category>\n")
		}
	}
	b.WriteString("  </ConfidentialityInformation>\n")
	if x.Originator != "" {
		fmt.Fprintf(&b, "  <OriginatorID IDType=%s>%s</OriginatorID>\n", quoted(x.OriginatorID), escaped(x.Originator))
	}
	fmt.Fprintf(&b, "  <CreationDateTime>%s</CreationDateTime>\n</%s>\n", x.Created.UTC().Format(time.RFC3339Nano), x.Element)
	return b.Bytes(), nil
}

func escaped(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a bytes.Buffer takes everything
	return b.String()
}

func quoted(s string) string { return `"` + escaped(s) + `"` }
