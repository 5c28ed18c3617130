// SPDX-License-Identifier: Apache-2.0

package spif

import (
	"valise/policy/spif/xmltree"
)

// Namespace is that of every element of a SPIF.
const Namespace = "http://www.xmlspif.org/spif"

// Parse reads a SPIF. The error is an *Error.
func Parse(data []byte) (*Document, error) {
	if len(data) > MaxFileSize {
		return nil, Errorf(1, ReasonTooLarge, "%d bytes, at most %d are allowed", len(data), MaxFileSize)
	}
	root, err := xmltree.Parse(data)
	if err != nil {
		return nil, fromTree(ReasonXML, err)
	}
	if root.Space != Namespace || root.Name != "SPIF" {
		return nil, Errorf(root.Line, ReasonUnknown, "the file is a %q of namespace %q, not a SPIF", clip(root.Name), clip(root.Space))
	}
	r := new(reader)
	d := r.document(root)
	if r.err != nil {
		return nil, r.err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return d, nil
}

func (r *reader) document(n *xmltree.Node) *Document {
	d := &Document{
		SchemaVersion: r.oneOf(n, "schemaVersion", r.must(n, "schemaVersion"), "1.0", "2.0", "2.1"),
		Edition:       1,
		CreationDate:  r.must(n, "creationDate"), OriginatorDN: r.must(n, "originatorDN"), KeyIdentifier: r.must(n, "keyIdentifier"),
		PrivilegeID: r.oid(n, "privilegeId"), RBACID: r.oid(n, "rbacId"),
		UserRefURI: r.may(n, "userRefURI"), DocRefURI: r.may(n, "docRefURI"),
		NotBefore: r.date(n, "notBefore"), NotAfter: r.date(n, "notAfter"), Line: n.Line,
	}
	if v, ok := n.Attr("version"); ok {
		d.Edition = uint32(r.integer(n, "version", v, 1, 1<<31-1))
	}
	r.done(n)
	once := r.once(n)
	r.each(n, map[string]func(*xmltree.Node){
		"defaultSecurityPolicyId": once(func(c *xmltree.Node) { p := r.policy(c); d.DefaultPolicy = &p }),
		"securityPolicyId":        once(func(c *xmltree.Node) { d.Policy = r.policy(c) }),
		"updateInfo":              once(func(c *xmltree.Node) { r.leaf(c) }),
		"securityClassifications": once(func(c *xmltree.Node) { r.classifications(c, d) }),
		"securityCategoryTagSets": once(func(c *xmltree.Node) { d.TagSets = r.tagSets(c) }),
		"privacyMarks":            once(func(c *xmltree.Node) { d.PrivacyMarks = r.privacyMarks(c) }),
		"equivalentPolicies":      once(func(c *xmltree.Node) { d.EquivalentPolicies = r.equivalentPolicies(c) }),
		"markingData":             r.markingData(&d.Marking),
		"markingQualifier":        r.markingQualifier(&d.Marking.Qualifiers),
		"extensions":              once(func(*xmltree.Node) {}),
	})
	if d.Policy.ID == "" {
		r.fail(n, ReasonMissing, "the SPIF has no securityPolicyId")
	}
	if len(d.Classifications) == 0 {
		r.fail(n, ReasonMissing, "the SPIF has no securityClassification")
	}
	return d
}

// once refuses an element that stands twice where one is allowed.
func (r *reader) once(parent *xmltree.Node) func(func(*xmltree.Node)) func(*xmltree.Node) {
	seen := make(map[string]bool)
	return func(f func(*xmltree.Node)) func(*xmltree.Node) {
		return func(n *xmltree.Node) {
			if seen[n.Name] {
				r.fail(n, ReasonDuplicate, "a second %s in %s", n.Name, parent.Name)
			}
			seen[n.Name] = true
			f(n)
		}
	}
}

func (r *reader) policy(n *xmltree.Node) Policy {
	p := Policy{Name: r.name(n, "name"), ID: r.oid(n, "id"), Line: n.Line}
	r.done(n)
	r.each(n, map[string]func(*xmltree.Node){
		"markingData":      r.markingData(&p.Marking),
		"markingQualifier": r.markingQualifier(&p.Marking.Qualifiers),
	})
	return p
}

func (r *reader) classifications(n *xmltree.Node, d *Document) {
	d.ClassificationsTag = r.may(n, "name")
	r.done(n)
	r.each(n, map[string]func(*xmltree.Node){
		"securityClassification": func(c *xmltree.Node) {
			if len(d.Classifications) == MaxClassifications {
				r.fail(c, ReasonTooLarge, "more than %d classifications", MaxClassifications)
				return
			}
			d.Classifications = append(d.Classifications, r.classification(c))
		},
		"markingData":      r.markingData(&d.ClassMarking),
		"markingQualifier": r.markingQualifier(&d.ClassMarking.Qualifiers),
	})
}

func (r *reader) classification(n *xmltree.Node) Classification {
	c := Classification{
		Name:      r.name(n, "name"),
		LACV:      r.integer(n, "lacv", r.must(n, "lacv"), 0, MaxClassNumber),
		Hierarchy: r.integer(n, "hierarchy", r.must(n, "hierarchy"), -1<<31, 1<<31-1),
		Color:     r.may(n, "color"), Obsolete: r.boolean(n, "obsolete"), Line: n.Line,
	}
	r.done(n)
	r.each(n, map[string]func(*xmltree.Node){
		"equivalentClassification": func(e *xmltree.Node) { c.Equivalents = append(c.Equivalents, r.equivalentClassification(e)) },
		"markingData":              r.markingData(&c.Marking),
		"markingQualifier":         r.markingQualifier(&c.Marking.Qualifiers),
		"requiredCategory":         r.group(&c.Required),
	})
	return c
}

func (r *reader) equivalentClassification(n *xmltree.Node) EquivalentClassification {
	e := EquivalentClassification{
		PolicyRef: r.name(n, "policyRef"),
		LACV:      r.integer(n, "lacv", r.must(n, "lacv"), 0, MaxClassNumber),
		Applied:   r.applied(n), Line: n.Line,
	}
	r.done(n)
	r.each(n, map[string]func(*xmltree.Node){"requiredCategory": r.group(&e.Required)})
	return e
}

func (r *reader) applied(n *xmltree.Node) string {
	return r.oneOf(n, "applied", r.must(n, "applied"), Encrypt, Decrypt, Both)
}

func (r *reader) equivalentPolicies(n *xmltree.Node) (list []EquivalentPolicy) {
	r.done(n)
	r.each(n, map[string]func(*xmltree.Node){
		"equivalentPolicy": func(c *xmltree.Node) {
			e := EquivalentPolicy{
				Name: r.name(c, "name"), ID: r.oid(c, "id"),
				UserRefURI: r.may(c, "userRefURI"), DocRefURI: r.may(c, "docRefURI"), Line: c.Line,
			}
			r.done(c)
			r.each(c, map[string]func(*xmltree.Node){"requiredCategory": r.group(&e.Required)})
			list = append(list, e)
		},
	})
	return list
}

func (r *reader) privacyMarks(n *xmltree.Node) *PrivacyMarks {
	p := &PrivacyMarks{MinSelection: r.selection(n, "minSelection", 0), MaxSelection: r.selection(n, "maxSelection", Unbounded), Line: n.Line}
	r.done(n)
	r.each(n, map[string]func(*xmltree.Node){
		"privacyMark": func(c *xmltree.Node) {
			m := PrivacyMark{Name: r.name(c, "name"), Obsolete: r.boolean(c, "obsolete"), Line: c.Line}
			r.done(c)
			r.each(c, map[string]func(*xmltree.Node){
				"markingData":      r.markingData(&m.Marking),
				"markingQualifier": r.markingQualifier(&m.Marking.Qualifiers),
			})
			p.Marks = append(p.Marks, m)
		},
		"markingData":      r.markingData(&p.Marking),
		"markingQualifier": r.markingQualifier(&p.Marking.Qualifiers),
	})
	return p
}

// group reads a requiredCategory into list.
func (r *reader) group(list *[]Group) func(*xmltree.Node) {
	return func(n *xmltree.Node) {
		g := Group{Operation: r.oneOf(n, "operation", r.must(n, "operation"), OnlyOne, OneOrMore, All), Line: n.Line}
		r.done(n)
		r.each(n, map[string]func(*xmltree.Node){"categoryGroup": r.reference(&g.References)})
		if len(g.References) == 0 {
			r.fail(n, ReasonMissing, "requiredCategory holds no categoryGroup")
		}
		*list = append(*list, g)
	}
}

// reference reads a categoryGroup or excludedCategory into list.
func (r *reader) reference(list *[]Reference) func(*xmltree.Node) {
	return func(n *xmltree.Node) {
		ref := Reference{TagSet: r.name(n, "tagSetRef"), Line: n.Line}
		var err error
		// The schema gives references no tag7Encoding: bits stand for both.
		if ref.Type, err = parseType(r.must(n, "tagType"), r.may(n, "enumType"), ""); err != nil {
			r.fail(n, ReasonValue, "%w", err)
		}
		lacv, one := n.Attr("lacv")
		all := r.boolean(n, "all")
		if _, number := Number(lacv); one && !number {
			r.fail(n, ReasonValue, "lacv of %s is %q, want a number from 0 to %d", n.Name, clip(lacv), MaxNumber)
		}
		if one && all {
			r.fail(n, ReasonValue, "%s has both lacv and all", n.Name)
		}
		if _, said := n.Attr("all"); said && !all && !one {
			r.fail(n, ReasonMissing, "%s has neither lacv nor all", n.Name)
		}
		ref.LACV = lacv
		r.leaf(n)
		if len(*list) == maxReferences {
			r.fail(n, ReasonTooLarge, "more than %d references", maxReferences)
			return
		}
		*list = append(*list, ref)
	}
}

// check holds what concerns several elements: names and numbers that must be
// the only ones, policies and classifications that must be declared.
func (d *Document) check() error {
	names, numbers := map[string]bool{}, map[int]bool{}
	for _, c := range d.Classifications {
		if names[c.Name] || numbers[c.LACV] {
			return Errorf(c.Line, ReasonDuplicate, "classification %q (lacv %d): name or number is used before", c.Name, c.LACV)
		}
		names[c.Name], numbers[c.LACV] = true, true
	}
	declared, ids := map[string]bool{}, map[string]bool{d.Policy.ID: true}
	for _, e := range d.EquivalentPolicies {
		if declared[e.Name] || ids[e.ID] {
			return Errorf(e.Line, ReasonDuplicate, "equivalent policy %q (%s): name or identifier is used before", e.Name, e.ID)
		}
		declared[e.Name], ids[e.ID] = true, true
	}
	for _, c := range d.Classifications {
		for _, e := range c.Equivalents {
			if !declared[e.PolicyRef] {
				return undeclared(e.Line, e.PolicyRef)
			}
		}
	}
	sets := map[string]bool{}
	for _, s := range d.TagSets {
		if sets[s.Name] || ids[s.ID] {
			return Errorf(s.Line, ReasonDuplicate, "tag set %q (%s): name or identifier is used before", s.Name, s.ID)
		}
		sets[s.Name], ids[s.ID] = true, true
		if err := s.check(names, declared); err != nil {
			return err
		}
	}
	return d.PrivacyMarks.check()
}

func undeclared(line int, ref string) error {
	return Errorf(line, ReasonUnresolved, "policy %q is not among the equivalent policies", clip(ref))
}

func (p *PrivacyMarks) check() error {
	if p == nil {
		return nil
	}
	marks := map[string]bool{}
	for _, m := range p.Marks {
		if marks[m.Name] {
			return Errorf(m.Line, ReasonDuplicate, "privacy mark %q is there before", m.Name)
		}
		marks[m.Name] = true
	}
	return nil
}

func (s *TagSet) check(classes, declared map[string]bool) error {
	for _, e := range s.Equivalents {
		if !declared[e.PolicyRef] {
			return undeclared(e.Line, e.PolicyRef)
		}
	}
	tags := map[string]bool{}
	for _, t := range s.Tags {
		// Labels name a tag by set and name: two of one name could not be told
		// apart.
		if tags[t.Name] {
			return Errorf(t.Line, ReasonDuplicate, "tag %q stands twice in tag set %q", t.Name, s.Name)
		}
		tags[t.Name] = true
		for _, c := range t.Categories {
			if err := c.check(classes, declared); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Category) check(classes, declared map[string]bool) error {
	for _, name := range c.ExcludedClass {
		if !classes[name] {
			return Errorf(c.Line, ReasonUnresolved, "category %q excludes classification %q, which is not there", c.Name, clip(name))
		}
	}
	if c.RequiredClass != "" && !classes[c.RequiredClass] {
		return Errorf(c.Line, ReasonUnresolved, "category %q requires classification %q, which is not there", c.Name, clip(c.RequiredClass))
	}
	for _, e := range c.Equivalents {
		if !declared[e.PolicyRef] {
			return undeclared(e.Line, e.PolicyRef)
		}
	}
	return nil
}
