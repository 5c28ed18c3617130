// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
	"time"

	"valise/policy/spif"
)

// A Use says what a label stands on.
type Use int

const (
	// New: a message that is being sent. Its label must be of the edition in
	// force, and nothing in it may be obsolete.
	New Use = iota
	// Stored: a message that was sent when its label was in order.
	Stored
)

// A Resolved is a valid label, ready for decisions. It does not change.
type Resolved struct {
	label   *Label
	edition *edition
	class   *class
	chosen  []choice // in the order of the SPIF
	mark    *spif.PrivacyMark

	// What Decide reads.
	lattice *lattice
	place   uint8  // of the classification
	all     []word // restrictive: every bit must be held
	groups  []group
}

// A word is part of a set of bits.
type word struct {
	at   uint32
	bits uint64
}

// A group is a permissive tag: one bit of it must be held.
type group []word

// A choice is one value of the label and the entry of it that the label meets.
type choice struct {
	*value
	entry *alternative
}

// Resolve checks a label against its policy's edition; at is the present time,
// or that of a stored message. A label that passes is valid: exactly one known
// classification, every category known, everything required there, nothing
// excluded. The error is a *Denial.
func (s *Set) Resolve(l *Label, use Use, at time.Time) (*Resolved, error) {
	if l == nil {
		return nil, deny(ReasonNoLabel, "the message has none")
	}
	e, err := s.editionOf(l, use, at)
	if err != nil {
		return nil, err
	}
	n := l.Normal()
	n.Edition = e.doc.Edition
	r := &Resolved{label: n, edition: e, lattice: e.lattice}
	if l.Classification == "" {
		return nil, deny(ReasonNoClassification, "the label has none")
	}
	if r.class = e.classes[l.Classification]; r.class == nil {
		return nil, deny(ReasonUnknownClass, "%q is not in policy %q, edition %d", clip(l.Classification), e.doc.Policy.Name, e.doc.Edition)
	}
	if use == New && r.class.Obsolete {
		return nil, deny(ReasonObsolete, "classification %q", r.class.Name)
	}
	selected, err := r.selectValues(n)
	if err != nil {
		return nil, err
	}
	if err := r.checkMark(n.Mark, use); err != nil {
		return nil, err
	}
	if err := r.checkRules(selected, use, at); err != nil {
		return nil, err
	}
	r.compile()
	return r, nil
}

// editionOf finds the SPIF that a label is judged by.
func (s *Set) editionOf(l *Label, use Use, at time.Time) (*edition, error) {
	lattice := s.lattices[l.Policy]
	if lattice == nil {
		return nil, deny(ReasonUnknownPolicy, "%s", l.Policy)
	}
	current := lattice.current(at)
	e := current
	if l.Edition != 0 {
		if e = lattice.edition(l.Edition); e == nil {
			return nil, deny(ReasonUnknownEdition, "edition %d of policy %q", l.Edition, current.doc.Policy.Name)
		}
	}
	if use == Stored {
		return e, nil
	}
	if !within(e.doc.NotBefore, e.doc.NotAfter, at) {
		return nil, deny(ReasonPolicyExpired, "edition %d of policy %q", e.doc.Edition, e.doc.Policy.Name)
	}
	if e != current {
		return nil, deny(ReasonOldEdition, "edition %d of policy %q; in force is %d", e.doc.Edition, e.doc.Policy.Name, current.doc.Edition)
	}
	return e, nil
}

// A selection is the set of bits that a label names.
type selection map[int]bool

// selectValues looks up every category by tag set, tag and name.
func (r *Resolved) selectValues(l *Label) (selection, error) {
	if len(l.Categories) > MaxLabelCategories {
		return nil, deny(ReasonTooMany, "%d categories, at most %d are allowed", len(l.Categories), MaxLabelCategories)
	}
	selected := make(selection, len(l.Categories))
	for _, c := range l.Categories {
		v := r.edition.values[c]
		if v == nil {
			return nil, deny(ReasonUnknownCategory, "%q of tag %q in tag set %s", clip(c.Name), clip(c.Tag), c.Set)
		}
		if v.kind == spif.NotApplicable || v.number < 0 {
			return nil, deny(ReasonNotSelectable, "%q of tag %q", v.Name, v.Tag)
		}
		selected[v.bit] = true
		r.chosen = append(r.chosen, choice{value: v})
	}
	slices.SortFunc(r.chosen, func(a, b choice) int {
		return cmp.Or(a.tag.place-b.tag.place, a.value.place-b.value.place)
	})
	return selected, nil
}

// checkMark checks the privacy mark. A label has one at most.
func (r *Resolved) checkMark(name string, use Use) error {
	marks := r.edition.doc.PrivacyMarks
	if name == "" {
		if marks != nil && marks.MinSelection > 0 {
			return deny(ReasonTooFew, "a privacy mark is required")
		}
		return nil
	}
	if r.mark = r.edition.marks[name]; r.mark == nil {
		return deny(ReasonUnknownMark, "%q", clip(name))
	}
	if marks.MaxSelection == 0 || marks.MinSelection > 1 {
		return deny(ReasonTooMany, "policy %q wants %d to %d privacy marks", r.edition.doc.Policy.Name, marks.MinSelection, marks.MaxSelection)
	}
	if use == New && r.mark.Obsolete {
		return deny(ReasonObsolete, "privacy mark %q", name)
	}
	return nil
}

// checkRules checks limits, and what must and must not stand together.
func (r *Resolved) checkRules(selected selection, use Use, at time.Time) error {
	counts := make([]int, len(r.edition.tags))
	for _, c := range r.chosen {
		counts[c.tag.place]++
	}
	for i, t := range r.edition.tags {
		if counts[i] < t.MinSelection {
			return deny(ReasonTooFew, "%d of tag %q, at least %d are required", counts[i], t.Name, t.MinSelection)
		}
		if t.MaxSelection != spif.Unbounded && counts[i] > t.MaxSelection {
			return deny(ReasonTooMany, "%d of tag %q, at most %d are allowed", counts[i], t.Name, t.MaxSelection)
		}
	}
	for _, rule := range r.class.required {
		if !rule.met(selected) {
			return deny(ReasonRequired, "classification %q requires %s", r.class.Name, r.lattice.describe(rule))
		}
	}
	for i := range r.chosen {
		entry, err := r.choose(r.chosen[i].value, selected, use, at)
		if err != nil {
			return err
		}
		r.chosen[i].entry = entry
	}
	return nil
}

// choose returns the first alternative of a value that the label meets, or why
// it does not meet the last one that may be used at all.
func (r *Resolved) choose(v *value, selected selection, use Use, at time.Time) (*alternative, error) {
	var why error
	for i := range v.alternatives {
		a := &v.alternatives[i]
		err := r.fits(a, selected, use, at)
		if err == nil {
			return a, nil
		}
		if why == nil || ReasonOf(why) == ReasonObsolete {
			why = err
		}
	}
	return nil, why
}

func (r *Resolved) fits(a *alternative, selected selection, use Use, at time.Time) error {
	if use == New && a.Obsolete {
		return deny(ReasonObsolete, "category %q", a.Name)
	}
	if use == New && !within(a.NotBefore, a.NotAfter, at) {
		return deny(ReasonNotValid, "category %q", a.Name)
	}
	if slices.Contains(a.ExcludedClass, r.class.Name) {
		return deny(ReasonExcluded, "category %q excludes classification %q", a.Name, r.class.Name)
	}
	if a.RequiredClass != "" && a.RequiredClass != r.class.Name {
		return deny(ReasonRequired, "category %q requires classification %q", a.Name, a.RequiredClass)
	}
	for _, rule := range a.required {
		if !rule.met(selected) {
			return deny(ReasonRequired, "category %q requires %s", a.Name, r.lattice.describe(rule))
		}
	}
	for _, bit := range a.excluded {
		if selected[bit] {
			return deny(ReasonExcluded, "category %q excludes %q", a.Name, r.lattice.categories[bit].Name)
		}
	}
	return nil
}

// met counts the values of a group that are there: the schema's words are
// about values, not about references.
func (g *rule) met(selected selection) bool {
	n := 0
	for _, bit := range g.bits {
		if selected[bit] {
			n++
		}
	}
	switch g.operation {
	case spif.OnlyOne:
		return n == 1
	case spif.OneOrMore:
		return n >= 1
	case spif.All:
		return n == len(g.bits)
	}
	return false
}

// compile lays the label out as bits.
func (r *Resolved) compile() {
	r.place = uint8(r.class.index)
	tag := -1
	for _, c := range r.chosen {
		at, bit := uint32(c.bit/64), uint64(1)<<(c.bit%64)
		switch {
		case c.kind.Restricts():
			r.all = addBit(r.all, at, bit)
		case c.kind.Permits():
			// Values are sorted by tag: a new tag is a new group.
			if c.tag.place != tag {
				tag = c.tag.place
				r.groups = append(r.groups, nil)
			}
			last := len(r.groups) - 1
			r.groups[last] = addBit(r.groups[last], at, bit)
		}
	}
}

func addBit(words []word, at uint32, bit uint64) []word {
	for i := range words {
		if words[i].at == at {
			words[i].bits |= bit
			return words
		}
	}
	return append(words, word{at, bit})
}

// describe names the values of a group for a message.
func (l *lattice) describe(g rule) string {
	text := g.operation + " of"
	for i, bit := range g.bits {
		if i == 5 {
			return text + " …"
		}
		text += " " + l.categories[bit].Name
	}
	return text
}

// Of reports whether the label is of a policy, given as headers carry it.
func (r *Resolved) Of(policy []byte) bool { return string(r.lattice.id) == string(policy) }

// Label returns the label with its edition stated, in normal form.
func (r *Resolved) Label() *Label { return r.label.Normal() }

// Classification returns the name of the label's classification.
func (r *Resolved) Classification() string { return r.class.Name }
