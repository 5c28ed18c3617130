// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Policies lists the policies of the set, in ascending order.
func (s *Set) Policies() []OID {
	list := make([]OID, 0, len(s.lattices))
	for id := range s.lattices {
		list = append(list, id)
	}
	slices.Sort(list)
	return list
}

// Has reports whether the set holds an edition of a policy.
func (s *Set) Has(policy OID, edition uint32) bool {
	l := s.lattices[policy]
	return l != nil && l.edition(edition) != nil
}

// Catalogue lists labels that new messages may have under the edition in force at
// a time: every valid one with no category or one, classifications from the lowest
// up, categories in the order of the SPIF. It ends at maxCatalogue of them; more can
// be written than what it lists.
func (s *Set) Catalogue(policy OID, at time.Time) []*Resolved {
	l := s.lattices[policy]
	if l == nil {
		return nil
	}
	e := l.current(at)
	classes := make([]*class, 0, len(e.classes))
	for _, c := range e.classes {
		classes = append(classes, c)
	}
	slices.SortFunc(classes, func(a, b *class) int {
		return cmp.Or(cmp.Compare(a.Hierarchy, b.Hierarchy), cmp.Compare(a.Name, b.Name))
	})
	var list []*Resolved
	add := func(c *class, categories ...Category) {
		r, err := s.Resolve(&Label{Policy: policy, Classification: c.Name, Categories: categories}, New, at)
		if err == nil && len(list) < maxCatalogue {
			list = append(list, r)
		}
	}
	for _, c := range classes {
		add(c)
		for _, t := range e.tags {
			for _, v := range t.values {
				if len(list) == maxCatalogue {
					return list
				}
				add(c, v.Category)
			}
		}
	}
	return list
}

// Phrase is the label as [Set.Phrase] reads it, whatever names its policy has:
// "SECRET//Releasable To: FRA, GBR".
func (r *Resolved) Phrase() string {
	var b strings.Builder
	b.WriteString(r.class.Name)
	if r.mark != nil {
		b.WriteString("//" + r.mark.Name)
	}
	var tag *tagRule
	for _, c := range r.chosen {
		if c.tag == tag {
			b.WriteString(", " + c.Name)
			continue
		}
		tag = c.tag
		b.WriteString("//" + tag.Name + ": " + c.Name)
	}
	return b.String()
}

// Color is how the policy colours the classification, as its SPIF writes it: a
// name or "#RRGGBB"; empty where it gives none.
func (r *Resolved) Color() string { return r.class.Color }

// Policy names the label's policy as its SPIF does.
func (r *Resolved) Policy() string { return r.edition.doc.Policy.Name }
