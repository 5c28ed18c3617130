// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"time"

	"valise/policy/spif"
)

// A Direction says on whose side a label is translated.
type Direction int

const (
	// Outbound: by the originator's side, before sending; equivalences applied
	// "encrypt" or "both".
	Outbound Direction = iota
	// Inbound: by the recipient's side, before opening; "decrypt" or "both".
	Inbound
)

// A Translation is a label in another policy's words. It stands beside the
// original, signed by the translator, and never replaces it.
type Translation struct {
	Label     *Resolved
	Original  *Label
	Discarded []Category // what the policy says may be left out
}

// Translate writes a valid label in the words of another policy of the Set, as
// the original's SPIF says. Every value has an equivalent or is discarded by
// name; what is left is validated as a new label of the edition in
// force. The
// error is a *Denial.
//
// Two things a SPIF can say are not done. Where "one of these" is required and
// none is there, nobody chooses. And where every value of a permissive tag
// would be discarded, the label is refused: without the tag its message could
// go to everybody.
func (s *Set) Translate(r *Resolved, to OID, direction Direction, at time.Time) (*Translation, error) {
	if r == nil {
		return nil, deny(ReasonNoLabel, "there is nothing to translate")
	}
	target := s.lattices[to]
	if target == nil {
		return nil, deny(ReasonUnknownPolicy, "%s", to)
	}
	t := &translator{from: r, to: target.current(at), direction: direction}
	for i, e := range r.edition.doc.EquivalentPolicies {
		if id, err := ParseOID(e.ID); err == nil && id == to {
			t.policy = &r.edition.doc.EquivalentPolicies[i]
		}
	}
	if t.policy == nil {
		return nil, deny(ReasonNoEquivalent, "policy %q has no equivalences into %s", r.edition.doc.Policy.Name, to)
	}
	t.label = &Label{Policy: to, Edition: t.to.doc.Edition}
	if err := t.translate(); err != nil {
		return nil, err
	}
	out, err := s.Resolve(t.label, New, at)
	if err != nil {
		return nil, err
	}
	return &Translation{Label: out, Original: r.Label(), Discarded: t.discarded}, nil
}

type translator struct {
	from      *Resolved
	to        *edition
	policy    *spif.EquivalentPolicy
	direction Direction
	label     *Label
	discarded []Category
	required  []spif.Group // in the words of the target
}

// applies says whether an equivalence is for this policy and direction.
func (t *translator) applies(policyRef, applied string) bool {
	wanted := spif.Encrypt
	if t.direction == Inbound {
		wanted = spif.Decrypt
	}
	return policyRef == t.policy.Name && (applied == spif.Both || applied == wanted)
}

func (t *translator) translate() error {
	if t.from.mark != nil {
		return deny(ReasonNoEquivalent, "privacy mark %q", t.from.mark.Name)
	}
	t.required = append(t.required, t.policy.Required...)
	if err := t.classification(); err != nil {
		return err
	}
	kept, lost := make(map[*tagRule]bool), make(map[*tagRule]bool)
	for _, c := range t.from.chosen {
		mapped, err := t.category(c)
		if err != nil {
			return err
		}
		if mapped {
			kept[c.tag] = true
		} else {
			lost[c.tag] = true
			t.discarded = append(t.discarded, c.Category)
		}
	}
	for tag := range lost {
		if tag.Type.Permits() && !kept[tag] {
			return deny(ReasonReleaseLost, "every value of tag %q would be discarded", tag.Name)
		}
	}
	// What is added comes before what is only looked for.
	for _, adds := range []bool{true, false} {
		for _, g := range t.required {
			if err := t.require(g, adds); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *translator) classification() error {
	var found *spif.EquivalentClassification
	for i := range t.from.class.Equivalents {
		e := &t.from.class.Equivalents[i]
		if !t.applies(e.PolicyRef, e.Applied) {
			continue
		}
		if found != nil {
			return deny(ReasonAmbiguousEquivalent, "classification %q has two", t.from.class.Name)
		}
		found = e
	}
	if found == nil {
		return deny(ReasonNoEquivalent, "classification %q", t.from.class.Name)
	}
	t.required = append(t.required, found.Required...)
	var err error
	t.label.Classification, err = t.to.className(found.LACV)
	return err
}

// category adds a category's equivalents to the label. It is false where the
// category is discarded.
func (t *translator) category(c choice) (mapped bool, err error) {
	discard, any := false, false
	for _, e := range c.entry.Equivalents {
		if !t.applies(e.PolicyRef, e.Applied) {
			continue
		}
		any = true
		if e.Discard {
			discard = true
			continue
		}
		set, err := ParseOID(e.TagSetID)
		if err != nil {
			return false, deny(ReasonNoEquivalent, "category %q: %v", c.Name, err)
		}
		lacv, _ := spif.Number(e.LACV)
		equivalent, err := t.to.byNumber(set, t.to.kindOf(set, e.Type), lacv)
		if err != nil {
			return false, err
		}
		t.label.Categories = append(t.label.Categories, equivalent)
		mapped = true
	}
	if discard && mapped {
		return false, deny(ReasonAmbiguousEquivalent, "category %q is both mapped and discarded", c.Name)
	}
	if !any {
		return t.wholeTagSet(c)
	}
	return mapped, nil
}

// kindOf settles which encoding an informative reference means.
func (e *edition) kindOf(set OID, kind spif.Type) spif.Type {
	if kind.Informs() {
		for _, t := range e.tags {
			if t.set == set && t.Type.Informs() {
				return t.Type
			}
		}
	}
	return kind
}

// wholeTagSet maps a category to the one of the same name in a tag set that is
// equivalent as a whole.
func (t *translator) wholeTagSet(c choice) (bool, error) {
	var equivalent *spif.EquivalentTagSet
	for i := range c.tag.setRule.Equivalents {
		if e := &c.tag.setRule.Equivalents[i]; e.PolicyRef == t.policy.Name {
			if equivalent != nil {
				return false, deny(ReasonAmbiguousEquivalent, "tag set %q has two", c.tag.setRule.Name)
			}
			equivalent = e
		}
	}
	if equivalent == nil {
		return false, deny(ReasonNoEquivalent, "category %q of tag %q", c.Name, c.Tag)
	}
	var found []Category
	for _, tag := range t.to.tags {
		same := equivalent.ID == tag.setRule.ID || equivalent.ID == "" && equivalent.Name == tag.setRule.Name
		if !same || !sameEffect(tag.Type, c.kind) {
			continue
		}
		for _, v := range tag.values {
			if v.Name == c.Name {
				found = append(found, v.Category)
			}
		}
	}
	if len(found) != 1 {
		return false, deny(ReasonNoEquivalent, "category %q of tag %q: %d of that name in the equivalent tag set", c.Name, c.Tag, len(found))
	}
	t.label.Categories = append(t.label.Categories, found[0])
	t.required = append(t.required, equivalent.Required...)
	return true, nil
}

// sameEffect says whether two types decide alike.
func sameEffect(a, b spif.Type) bool {
	return a.Restricts() && b.Restricts() || a.Permits() && b.Permits() || a.Informs() && b.Informs()
}

// require adds categories that the translated label must have. Of "one of
// these", one must be there already or be the only one.
func (t *translator) require(g spif.Group, adds bool) error {
	var bits []int
	for _, ref := range g.References {
		more, err := t.to.find(ref)
		if err != nil {
			return deny(ReasonRequired, "%v", err)
		}
		bits = append(bits, more...)
	}
	slices.Sort(bits)
	bits = slices.Compact(bits)
	all := t.to.lattice.categories
	if (g.Operation == spif.All || len(bits) == 1) != adds {
		return nil
	}
	if adds {
		for _, bit := range bits {
			t.label.Categories = append(t.label.Categories, all[bit].Category)
		}
		return nil
	}
	selected := make(selection)
	for _, bit := range bits {
		selected[bit] = slices.Contains(t.label.Categories, all[bit].Category)
	}
	r := rule{g.Operation, bits}
	if !r.met(selected) {
		return deny(ReasonRequired, "the translation needs %s, and nobody chooses", t.to.lattice.describe(r))
	}
	return nil
}
