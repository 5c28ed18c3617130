// SPDX-License-Identifier: Apache-2.0

package spif

import (
	"strings"

	"valise/policy/spif/xmltree"
)

func (r *reader) tagSets(n *xmltree.Node) (sets []TagSet) {
	r.done(n)
	tags := 0
	r.each(n, map[string]func(*xmltree.Node){
		"securityCategoryTagSet": func(c *xmltree.Node) {
			s := r.tagSet(c)
			if tags += len(s.Tags); len(sets) == MaxTagSets || tags > MaxTags {
				r.fail(c, ReasonTooLarge, "more than %d tag sets or %d tags", MaxTagSets, MaxTags)
				return
			}
			sets = append(sets, s)
		},
	})
	return sets
}

func (r *reader) tagSet(n *xmltree.Node) TagSet {
	s := TagSet{Name: r.name(n, "name"), ID: r.oid(n, "id"), Line: n.Line}
	r.done(n)
	r.each(n, map[string]func(*xmltree.Node){
		"securityCategoryTag": func(c *xmltree.Node) { s.Tags = append(s.Tags, r.tag(c, s.Name)) },
		"equivalentSecurityCategoryTagSet": func(c *xmltree.Node) {
			e := EquivalentTagSet{PolicyRef: r.name(c, "policyRef"), Name: r.may(c, "name"), Line: c.Line}
			if _, ok := c.Attr("id"); ok {
				e.ID = r.oid(c, "id")
			}
			r.done(c)
			r.each(c, map[string]func(*xmltree.Node){"requiredCategory": r.group(&e.Required)})
			s.Equivalents = append(s.Equivalents, e)
		},
	})
	return s
}

func (r *reader) tag(n *xmltree.Node, setName string) Tag {
	t := Tag{Name: setName, MinSelection: r.selection(n, "minSelection", 0), MaxSelection: r.selection(n, "maxSelection", Unbounded), Line: n.Line}
	if _, ok := n.Attr("name"); ok {
		t.Name = r.name(n, "name")
	}
	var err error
	if t.Type, err = parseType(r.must(n, "tagType"), r.may(n, "enumType"), r.may(n, "tag7Encoding")); err != nil {
		r.fail(n, ReasonValue, "%w", err)
	}
	if r.boolean(n, "singleSelection") && (t.MaxSelection == Unbounded || t.MaxSelection > 1) {
		t.MaxSelection = 1
	}
	if t.MaxSelection != Unbounded && t.MinSelection > t.MaxSelection {
		r.fail(n, ReasonValue, "minSelection %d is above maxSelection %d", t.MinSelection, t.MaxSelection)
	}
	r.done(n)
	r.each(n, map[string]func(*xmltree.Node){
		"tagCategory": func(c *xmltree.Node) {
			if r.categories++; r.categories > MaxCategories {
				r.fail(c, ReasonTooLarge, "more than %d categories", MaxCategories)
				return
			}
			t.Categories = append(t.Categories, r.category(c))
		},
		"markingQualifier": r.markingQualifier(&t.Qualifiers),
	})
	return t
}

func (r *reader) category(n *xmltree.Node) Category {
	c := Category{
		Name: r.name(n, "name"), LACV: r.must(n, "lacv"),
		UserInput: r.may(n, "userInput"), DateFormat: r.may(n, "dateFormat"), RequiredClass: r.may(n, "requiredClass"),
		Obsolete: r.boolean(n, "obsolete"), NotBefore: r.date(n, "notBefore"), NotAfter: r.date(n, "notAfter"), Line: n.Line,
	}
	if c.UserInput != "" {
		r.oneOf(n, "userInput", c.UserInput, "string", "integer", "date")
	} else if _, ok := Number(c.LACV); !ok {
		r.fail(n, ReasonValue, "lacv of category %q is %q, want a number from 0 to %d", clip(c.Name), clip(c.LACV), MaxNumber)
	}
	r.done(n)
	r.each(n, map[string]func(*xmltree.Node){
		"equivalentSecCategoryTag": func(e *xmltree.Node) { c.Equivalents = append(c.Equivalents, r.equivalentCategory(e)) },
		"markingData":              r.markingData(&c.Marking),
		"markingQualifier":         r.markingQualifier(&c.Marking.Qualifiers),
		"excludedClass": func(e *xmltree.Node) {
			r.done(e)
			if len(e.Children) > 0 {
				r.fail(e, ReasonUnknown, "excludedClass holds an element")
			}
			c.ExcludedClass = append(c.ExcludedClass, strings.TrimSpace(e.Text))
		},
		"requiredCategory": r.group(&c.Required),
		"excludedCategory": r.reference(&c.Excluded),
	})
	return c
}

func (r *reader) equivalentCategory(n *xmltree.Node) EquivalentCategory {
	e := EquivalentCategory{
		PolicyRef: r.name(n, "policyRef"), TagSetID: r.oid(n, "tagSetId"), LACV: r.must(n, "lacv"),
		Applied: r.applied(n), Line: n.Line,
	}
	var err error
	if e.Type, err = parseType(r.must(n, "tagType"), r.may(n, "enumType"), ""); err != nil {
		r.fail(n, ReasonValue, "%w", err)
	}
	if action, ok := n.Attr("action"); ok {
		e.Discard = r.oneOf(n, "action", action, "discard") != ""
	}
	if _, ok := Number(e.LACV); !ok && !e.Discard {
		r.fail(n, ReasonValue, "lacv of %s is %q, want a number from 0 to %d", n.Name, clip(e.LACV), MaxNumber)
	}
	r.leaf(n)
	return e
}

// codes are the schema's marking codes.
var codes = []string{
	"pageTop", "pageBottom", "pageTopBottom", "documentStart", "documentEnd", "noNameDisplay", "noMarkingDisplay",
	"suppressClassName", "firstLineOfText", "lastLineOfText", "subject", "xHeader", "portionMarking", "inputTitle",
	"waterMark", "replacePolicy",
}

func (r *reader) markingData(m *Marking) func(*xmltree.Node) {
	return func(n *xmltree.Node) {
		d := MarkingData{Lang: n.Lang()}
		d.Phrase, d.HasPhrase = n.Attr("phrase")
		if len(d.Phrase) > MaxName {
			r.fail(n, ReasonTooLarge, "phrase of %d octets, at most %d are allowed", len(d.Phrase), MaxName)
		}
		r.done(n)
		r.each(n, map[string]func(*xmltree.Node){
			"code": func(c *xmltree.Node) {
				r.done(c)
				if len(c.Children) > 0 {
					r.fail(c, ReasonUnknown, "code holds an element")
				}
				d.Codes = append(d.Codes, r.oneOf(c, "text", strings.TrimSpace(c.Text), codes...))
			},
		})
		m.Data = append(m.Data, d)
	}
}

func (r *reader) markingQualifier(list *[]MarkingQualifier) func(*xmltree.Node) {
	return func(n *xmltree.Node) {
		q := MarkingQualifier{Lang: n.Lang()}
		if code, ok := n.Attr("markingCode"); ok {
			q.Code = r.oneOf(n, "markingCode", code, codes...)
		}
		r.done(n)
		r.each(n, map[string]func(*xmltree.Node){
			"qualifier": func(c *xmltree.Node) {
				text := r.must(c, "markingQualifier")
				if len(text) > MaxName {
					r.fail(c, ReasonTooLarge, "markingQualifier of %d octets, at most %d are allowed", len(text), MaxName)
				}
				code := r.oneOf(c, "qualifierCode", r.must(c, "qualifierCode"), "prefix", "suffix", "separator")
				r.leaf(c)
				q.Qualifiers = append(q.Qualifiers, Qualifier{text, code})
			},
		})
		*list = append(*list, q)
	}
}
