// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"valise/policy/spif"
)

// A Set holds every policy that is known, each in all its editions, compiled.
// It does not change: build a new one to learn a new edition. It is safe for
// concurrent use.
type Set struct {
	lattices map[OID]*lattice
	named    map[string][]*lattice // by the name of any edition
}

// A lattice is one policy. Its editions share one numbering of categories, so
// that a clearance is compiled once and decides for labels of any edition.
type lattice struct {
	set        *Set
	id         OID
	editions   []*edition // ascending
	classes    []string   // names over all editions; the index is a class's place in a clearance
	categories []member   // over all editions; the index is a category's bit
	index      map[typed]int
	numbers    map[number]int // category by number, ambiguous if there are two
	byClass    map[int]int    // class by number, ambiguous if there are two
}

// A member is one category of a lattice.
type member struct {
	Category
	kind   spif.Type
	number int // -1: none
}

// A typed category is what a bit stands for: a tag may change its type from one
// edition to the next, and is then held anew.
type typed struct {
	Category
	kind spif.Type
}

// A number is how ASN.1 names a category. Tags of one set and type share their
// numbers.
type number struct {
	set  OID
	kind spif.Type
	lacv int
}

// ambiguous stands for a number that two values have, in one edition or in
// two of them.
const ambiguous = -1

// An edition is one SPIF, compiled.
type edition struct {
	lattice *lattice
	doc     *spif.Document
	classes map[string]*class
	tags    []*tagRule
	values  map[Category]*value
	marks   map[string]*spif.PrivacyMark
	refers  int // values that required and excluded references come to
}

// A class is a classification in one edition.
type class struct {
	*spif.Classification
	index    int // in lattice.classes
	required []rule
}

// A tagRule is a tag in one edition.
type tagRule struct {
	*spif.Tag
	set     OID
	setRule *spif.TagSet
	place   int // in edition.tags
	values  []*value
}

// A value is a category in one edition: alternatives, of which a label has to
// meet one.
type value struct {
	member
	bit          int // in lattice.categories
	place        int // in tag.values
	tag          *tagRule
	alternatives []alternative
}

// An alternative is one entry of a category.
type alternative struct {
	*spif.Category
	required []rule
	excluded []int // bits
}

// A rule is a required group, its references resolved.
type rule struct {
	operation string
	bits      []int
}

// Compile builds a Set from SPIFs: any number of policies, each in any number
// of editions. An error is a *spif.Error, or says which two files clash.
func Compile(documents ...*spif.Document) (*Set, error) {
	s := &Set{lattices: make(map[OID]*lattice), named: make(map[string][]*lattice)}
	for _, d := range documents {
		id, err := ParseOID(d.Policy.ID)
		if err != nil {
			return nil, spif.Errorf(d.Policy.Line, spif.ReasonValue, "%w", err)
		}
		l := s.lattices[id]
		if l == nil {
			if len(s.lattices) == MaxPolicies {
				return nil, fmt.Errorf("policy: more than %d policies", MaxPolicies)
			}
			l = &lattice{
				set: s, id: id, index: make(map[typed]int),
				numbers: make(map[number]int), byClass: make(map[int]int),
			}
			s.lattices[id] = l
		}
		if err := l.add(d); err != nil {
			return nil, fmt.Errorf("policy %q, edition %d: %w", d.Policy.Name, d.Edition, err)
		}
		if !slices.Contains(s.named[d.Policy.Name], l) {
			s.named[d.Policy.Name] = append(s.named[d.Policy.Name], l)
		}
	}
	for _, l := range s.lattices {
		slices.SortFunc(l.editions, func(a, b *edition) int { return cmp.Compare(a.doc.Edition, b.doc.Edition) })
	}
	return s, nil
}

// add compiles one more edition.
func (l *lattice) add(d *spif.Document) error {
	if len(l.editions) == MaxEditions {
		return fmt.Errorf("more than %d editions", MaxEditions)
	}
	for _, have := range l.editions {
		if have.doc.Edition == d.Edition {
			return spif.Errorf(d.Line, spif.ReasonDuplicate, "this edition is there already")
		}
	}
	e := &edition{
		lattice: l, doc: d, classes: make(map[string]*class),
		values: make(map[Category]*value), marks: make(map[string]*spif.PrivacyMark),
	}
	for i := range d.Classifications {
		c := &d.Classifications[i]
		e.classes[c.Name] = &class{Classification: c, index: l.class(c)}
		if len(l.classes) > maxClasses {
			return fmt.Errorf("more than %d classifications over all editions", maxClasses)
		}
	}
	for i := range d.TagSets {
		if err := e.addSet(&d.TagSets[i]); err != nil {
			return err
		}
	}
	if d.PrivacyMarks != nil {
		for i := range d.PrivacyMarks.Marks {
			e.marks[d.PrivacyMarks.Marks[i].Name] = &d.PrivacyMarks.Marks[i]
		}
	}
	if err := e.link(); err != nil {
		return err
	}
	l.editions = append(l.editions, e)
	return nil
}

// class returns the place of a classification and books its number.
func (l *lattice) class(c *spif.Classification) int {
	at := slices.Index(l.classes, c.Name)
	if at < 0 {
		at = len(l.classes)
		l.classes = append(l.classes, c.Name)
	}
	if have, ok := l.byClass[c.LACV]; ok && have != at {
		l.byClass[c.LACV] = ambiguous
	} else {
		l.byClass[c.LACV] = at
	}
	return at
}

func (e *edition) addSet(s *spif.TagSet) error {
	id, err := ParseOID(s.ID)
	if err != nil {
		return spif.Errorf(s.Line, spif.ReasonValue, "%w", err)
	}
	for i := range s.Tags {
		t := &tagRule{Tag: &s.Tags[i], set: id, setRule: s, place: len(e.tags)}
		e.tags = append(e.tags, t)
		for j := range t.Categories {
			if err := e.addCategory(t, &t.Categories[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *edition) addCategory(t *tagRule, c *spif.Category) error {
	key := Category{t.set, t.Name, c.Name}
	lacv, ok := spif.Number(c.LACV)
	if !ok || c.UserInput != "" {
		lacv = -1
	}
	if v := e.values[key]; v != nil {
		// An entry of the same name is an alternative to the first one, and
		// not a union of what both exclude.
		if v.number != lacv {
			return spif.Errorf(c.Line, spif.ReasonDuplicate, "category %q has number %q, and another one above", c.Name, c.LACV)
		}
		v.alternatives = append(v.alternatives, alternative{Category: c})
		return nil
	}
	m := member{key, t.Type, lacv}
	bit, err := e.lattice.member(m)
	if err != nil {
		return err
	}
	v := &value{member: m, bit: bit, place: len(t.values), tag: t, alternatives: []alternative{{Category: c}}}
	e.values[key] = v
	t.values = append(t.values, v)
	return nil
}

// member returns the bit of a category and books its number.
func (l *lattice) member(m member) (int, error) {
	bit, known := l.index[typed{m.Category, m.kind}]
	if !known {
		if len(l.categories) == spif.MaxCategories {
			return 0, fmt.Errorf("more than %d categories over all editions", spif.MaxCategories)
		}
		bit = len(l.categories)
		l.categories = append(l.categories, m)
		l.index[typed{m.Category, m.kind}] = bit
	}
	if m.number < 0 {
		return bit, nil
	}
	n := number{m.Set, m.kind, m.number}
	if have, taken := l.numbers[n]; taken && have != bit {
		l.numbers[n] = ambiguous
	} else {
		l.numbers[n] = bit
	}
	return bit, nil
}

// link resolves required and excluded references, once all values are known.
func (e *edition) link() error {
	for i := range e.doc.Classifications {
		c := e.classes[e.doc.Classifications[i].Name]
		var err error
		if c.required, err = e.rules(c.Required); err != nil {
			return err
		}
	}
	for _, t := range e.tags {
		for _, v := range t.values {
			for i := range v.alternatives {
				a := &v.alternatives[i]
				var err error
				if a.required, err = e.rules(a.Required); err != nil {
					return err
				}
				for _, ref := range a.Excluded {
					bits, err := e.resolve(ref)
					if err != nil {
						return err
					}
					for _, bit := range bits {
						// "All of this tag set" means all others.
						if bit != v.bit || ref.LACV != "" {
							a.excluded = append(a.excluded, bit)
						}
					}
				}
			}
		}
	}
	return nil
}

func (e *edition) rules(groups []spif.Group) (rules []rule, err error) {
	for _, g := range groups {
		r := rule{operation: g.Operation}
		for _, ref := range g.References {
			bits, err := e.resolve(ref)
			if err != nil {
				return nil, err
			}
			r.bits = append(r.bits, bits...)
		}
		slices.Sort(r.bits)
		r.bits = slices.Compact(r.bits)
		rules = append(rules, r)
	}
	return rules, nil
}

// sameKind compares types as references write them: for informative tags they
// do not say which encoding is meant.
func sameKind(a, b spif.Type) bool { return a == b || a.Informs() && b.Informs() }

// resolve is find, counted against maxReferred.
func (e *edition) resolve(ref spif.Reference) ([]int, error) {
	bits, err := e.find(ref)
	if e.refers += len(bits); e.refers > maxReferred {
		return nil, spif.Errorf(ref.Line, spif.ReasonTooLarge, "required and excluded references come to more than %d values", maxReferred)
	}
	return bits, err
}

// find returns the bits that a reference means. It decides what is valid, so a
// number that two categories have is refused.
func (e *edition) find(ref spif.Reference) (bits []int, err error) {
	lacv, one := spif.Number(ref.LACV)
	for _, t := range e.tags {
		if t.setRule.Name != ref.TagSet || !sameKind(t.Type, ref.Type) {
			continue
		}
		for _, v := range t.values {
			if !one || v.number == lacv {
				bits = append(bits, v.bit)
			}
		}
	}
	switch {
	case len(bits) == 0:
		return nil, spif.Errorf(ref.Line, spif.ReasonUnresolved, "tag set %q has no %v category with number %q", ref.TagSet, ref.Type, ref.LACV)
	case one && len(bits) > 1:
		return nil, spif.Errorf(ref.Line, spif.ReasonAmbiguous, "number %q stands for %d categories of tag set %q", ref.LACV, len(bits), ref.TagSet)
	}
	return bits, nil
}

// current returns the edition in force at a time: the newest one that is valid
// then, so that the next one can be handed out before its day. Where none is
// valid it is the newest, which Resolve then refuses.
func (l *lattice) current(at time.Time) *edition {
	for _, e := range slices.Backward(l.editions) {
		if within(e.doc.NotBefore, e.doc.NotAfter, at) {
			return e
		}
	}
	return l.editions[len(l.editions)-1]
}

// edition returns the edition with a number.
func (l *lattice) edition(n uint32) *edition {
	for _, e := range l.editions {
		if e.doc.Edition == n {
			return e
		}
	}
	return nil
}

// within reports whether at lies in a period; zero times are no bounds.
func within(notBefore, notAfter, at time.Time) bool {
	return (notBefore.IsZero() || !at.Before(notBefore)) && (notAfter.IsZero() || !at.After(notAfter))
}
