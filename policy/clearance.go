// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"valise/identity"
	"valise/policy/spif"
)

// A Clearance is what its holder may see, compiled against a Set. It does not
// change.
type Clearance struct {
	lattice *lattice
	classes [maxClasses / 64]uint64
	held    []uint64

	// Ignored lists what the clearance holds and the policy does not know, or
	// knows by a number that stands for two values. It opens nothing.
	Ignored []string
}

// Clearance compiles a clearance. What is not known in it holds nothing, so
// that a larger clearance never reaches less. The error is a *Denial.
func (s *Set) Clearance(c *identity.Clearance) (*Clearance, error) {
	if c == nil {
		return nil, deny(ReasonNoClearance, "there is none")
	}
	l := s.lattices[OIDOf(c.PolicyID)]
	if l == nil {
		return nil, deny(ReasonUnknownPolicy, "the clearance is of policy %s", clip(c.PolicyID.String()))
	}
	out := &Clearance{lattice: l, held: make([]uint64, (len(l.categories)+63)/64)}
	for _, n := range c.Classes() {
		place, known := l.byClass[n]
		if !known || place == ambiguous {
			out.ignore(known, "classification %d", n)
			continue
		}
		out.classes[place/64] |= 1 << (place % 64)
	}
	for _, category := range c.Categories {
		values, err := parseCategoryValue(category)
		if err != nil {
			out.ignore(false, "category of type %s", clip(category.Type.String()))
			continue
		}
		for _, lacv := range values.numbers {
			out.hold(number{values.set, values.kind, lacv})
		}
	}
	return out, nil
}

func (c *Clearance) hold(n number) {
	bit, known := c.lattice.numbers[n]
	if !known || bit == ambiguous {
		c.ignore(known, "%v category %d of tag set %s", n.kind, n.lacv, n.set)
		return
	}
	c.held[bit/64] |= 1 << (bit % 64)
}

func (c *Clearance) ignore(ambiguous bool, format string, args ...any) {
	if len(c.Ignored) == maxTypes {
		return
	}
	why := "unknown: "
	if ambiguous {
		why = "stands for two values: "
	}
	c.Ignored = append(c.Ignored, why+fmt.Sprintf(format, args...))
}

// Policy names the policy that the clearance is of.
func (c *Clearance) Policy() OID { return c.lattice.id }

// Names lists what the clearance holds, classifications first.
func (c *Clearance) Names() (classes []string, categories []Category) {
	for i, name := range c.lattice.classes {
		if c.classes[i/64]&(1<<(i%64)) != 0 {
			classes = append(classes, name)
		}
	}
	for i, m := range c.lattice.categories {
		if c.held[i/64]&(1<<(i%64)) != 0 {
			categories = append(categories, m.Category)
		}
	}
	return classes, categories
}

// A Grant is a clearance by name, as an officer gives it.
type Grant struct {
	Policy     OID
	UpTo       string   // this classification and all below it in the policy's hierarchy
	Classes    []string // more classifications, each for itself
	Categories []Category
}

// Issue writes a grant as a clearance for a certificate (RFC 5755, Section
// 4.4.6), by the edition in force at a time. "Up to" is expanded here, once: a decision
// never reasons about levels. A value whose number another one has too cannot
// be granted.
func (s *Set) Issue(g Grant, at time.Time) (*identity.Clearance, error) {
	l := s.lattices[g.Policy]
	if l == nil {
		return nil, deny(ReasonUnknownPolicy, "%s", g.Policy)
	}
	e := l.current(at)
	id, err := g.Policy.asn1()
	if err != nil {
		return nil, err
	}
	numbers, err := e.classNumbers(g)
	if err != nil {
		return nil, err
	}
	out := &identity.Clearance{PolicyID: id}
	if out.ClassList, err = identity.NewClassList(numbers...); err != nil {
		return nil, err
	}
	var values []*value
	for _, c := range g.Categories {
		v := e.values[c]
		if v == nil {
			return nil, deny(ReasonUnknownCategory, "%q of tag %q", clip(c.Name), clip(c.Tag))
		}
		if v.kind.Informs() {
			continue
		}
		values = append(values, v)
	}
	if out.Categories, err = l.encode(values); err != nil {
		return nil, err
	}
	return out, nil
}

func (e *edition) classNumbers(g Grant) (numbers []int, err error) {
	names := slices.Clone(g.Classes)
	if g.UpTo != "" {
		top := e.classes[g.UpTo]
		if top == nil {
			return nil, deny(ReasonUnknownClass, "%q", clip(g.UpTo))
		}
		for _, c := range e.classes {
			if c == top || c.Hierarchy < top.Hierarchy {
				names = append(names, c.Name)
			}
		}
	}
	for _, name := range names {
		c := e.classes[name]
		if c == nil {
			return nil, deny(ReasonUnknownClass, "%q", clip(name))
		}
		if e.lattice.byClass[c.LACV] == ambiguous {
			return nil, deny(ReasonAmbiguousNumber, "classification %q has number %d, as another edition's has", name, c.LACV)
		}
		numbers = append(numbers, c.LACV)
	}
	return numbers, nil
}

// Dominates reports whether classification a stands at or above b in the
// hierarchy of the edition in force; numbers say nothing about that.
func (s *Set) Dominates(policy OID, a, b string, at time.Time) (bool, error) {
	l := s.lattices[policy]
	if l == nil {
		return false, deny(ReasonUnknownPolicy, "%s", policy)
	}
	high, low := l.current(at).classes[a], l.current(at).classes[b]
	if high == nil || low == nil {
		return false, deny(ReasonUnknownClass, "%q or %q", clip(a), clip(b))
	}
	return high.Hierarchy >= low.Hierarchy, nil
}

// Lowest names a classification that stands lowest in the hierarchy of the
// edition in force, and that new messages may bear.
func (s *Set) Lowest(policy OID, at time.Time) (string, error) {
	l := s.lattices[policy]
	if l == nil {
		return "", deny(ReasonUnknownPolicy, "%s", policy)
	}
	var lowest *class
	for _, c := range l.current(at).classes {
		if c.Obsolete {
			continue
		}
		if lowest == nil || c.Hierarchy < lowest.Hierarchy || c.Hierarchy == lowest.Hierarchy && c.Name < lowest.Name {
			lowest = c
		}
	}
	if lowest == nil {
		return "", deny(ReasonObsolete, "every classification of %s", policy)
	}
	return lowest.Name, nil
}

// encode writes values by number, one security category for each tag set and
// type, in the syntaxes of ACP 145.
func (l *lattice) encode(values []*value) (out []identity.SecurityCategory, err error) {
	type key struct {
		set  OID
		kind spif.Type
	}
	lists := make(map[key][]int)
	for _, v := range values {
		if v.number < 0 || v.kind == spif.NotApplicable {
			return nil, deny(ReasonNotSelectable, "%q of tag %q has no number", v.Name, v.Tag)
		}
		if l.numbers[number{v.Set, v.kind, v.number}] == ambiguous {
			return nil, deny(ReasonAmbiguousNumber, "%q of tag %q: number %d stands for another value too", v.Name, v.Tag, v.number)
		}
		k := key{v.Set, v.kind}
		lists[k] = append(lists[k], v.number)
	}
	keys := make([]key, 0, len(lists))
	for k := range lists {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int { return cmp.Or(cmp.Compare(a.set, b.set), cmp.Compare(a.kind, b.kind)) })
	for _, k := range keys {
		slices.Sort(lists[k])
		category, err := (&categoryValue{k.set, k.kind, slices.Compact(lists[k])}).marshal()
		if err != nil {
			return nil, err
		}
		out = append(out, category)
	}
	return out, nil
}
