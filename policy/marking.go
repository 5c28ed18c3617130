// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"valise/policy/spif"
)

// Marking returns the label as people read it, in a language ("fr", "en-GB";
// "" for the policy's own words): policy, classification, privacy mark, then
// the categories in the order of the SPIF, with the prefixes, suffixes and
// separators that it gives. A phrase takes the place of a name.
//
// Phrases meant for one place alone (a subject, a header, a water mark) are
// left out, and a phrase that may not be displayed leaves the name, so that a
// value never vanishes unless the SPIF says that its name does.
func (r *Resolved) Marking(lang string) string {
	m := marker{lang: lang}
	doc := r.edition.doc
	// Any value of the label may replace the name of its policy.
	policy, replaced := m.phrase(&doc.Marking, "replacePolicy")
	for _, marking := range r.markings() {
		if phrase, ok := m.phrase(marking, "replacePolicy"); ok {
			policy, replaced = phrase, true
		}
	}
	if !replaced {
		policy = m.value(&doc.Policy.Marking, doc.Policy.Name)
	}
	classification := m.value(&r.class.Marking, r.class.Name)
	if r.suppressesClass() {
		classification = ""
	}
	parts := []string{policy, m.around(doc.ClassMarking.Qualifiers, classification)}
	if r.mark != nil {
		parts = append(parts, m.around(doc.PrivacyMarks.Marking.Qualifiers, m.value(&r.mark.Marking, r.mark.Name)))
	}
	for i := 0; i < len(r.chosen); {
		tag, values := r.chosen[i].tag, []string(nil)
		for ; i < len(r.chosen) && r.chosen[i].tag == tag; i++ {
			values = append(values, m.value(&r.chosen[i].entry.Marking, r.chosen[i].entry.Name))
		}
		parts = append(parts, m.around(tag.Qualifiers, m.join(tag.Qualifiers, values)))
	}
	return m.around(doc.Marking.Qualifiers, m.join(doc.Marking.Qualifiers, parts))
}

// markings returns those of the label's classification and categories.
func (r *Resolved) markings() []*spif.Marking {
	list := []*spif.Marking{&r.class.Marking}
	for _, c := range r.chosen {
		list = append(list, &c.entry.Marking)
	}
	return list
}

func (r *Resolved) suppressesClass() bool {
	for _, c := range r.chosen {
		for _, d := range c.entry.Marking.Data {
			if slices.Contains(d.Codes, "suppressClassName") {
				return true
			}
		}
	}
	return false
}

// elsewhere are places that a line of text beside a message is not.
var elsewhere = []string{"subject", "xHeader", "portionMarking", "inputTitle", "waterMark", "replacePolicy"}

// A marker chooses phrases in one language.
type marker struct{ lang string }

// rank orders languages: the one asked for, the same language elsewhere, none,
// any. Less is better.
func (m marker) rank(lang string) int {
	primary := func(s string) string {
		s, _, _ = strings.Cut(strings.ToLower(s), "-")
		return s
	}
	switch {
	case strings.EqualFold(lang, m.lang):
		return 0
	case m.lang != "" && primary(lang) == primary(m.lang):
		return 1
	case lang == "":
		return 2
	}
	return 3
}

// phrase returns the best phrase that has a code.
func (m marker) phrase(marking *spif.Marking, code string) (phrase string, ok bool) {
	best := 4
	for _, d := range marking.Data {
		if slices.Contains(d.Codes, code) && d.HasPhrase && m.rank(d.Lang) < best {
			best, phrase, ok = m.rank(d.Lang), d.Phrase, true
		}
	}
	return phrase, ok
}

// value returns a value as shown: its best phrase, or else its name, with what
// stands around it.
func (m marker) value(marking *spif.Marking, name string) string {
	best, shown := 3, name
	for _, d := range marking.Data {
		if slices.Contains(d.Codes, "noNameDisplay") && !d.HasPhrase {
			shown = ""
		}
		hidden := slices.Contains(d.Codes, "noMarkingDisplay") || onlyElsewhere(d.Codes)
		// A phrase in a third language is worse than the name.
		if d.HasPhrase && !hidden && m.rank(d.Lang) < best {
			best, shown = m.rank(d.Lang), d.Phrase
		}
	}
	return m.around(marking.Qualifiers, shown)
}

// onlyElsewhere reports whether all codes name other places.
func onlyElsewhere(codes []string) bool {
	for _, code := range codes {
		if !slices.Contains(elsewhere, code) {
			return false
		}
	}
	return len(codes) > 0
}

// qualifier returns the best one of "prefix", "suffix" or "separator".
func (m marker) qualifier(list []spif.MarkingQualifier, code string) (text string, ok bool) {
	best := 4
	for _, q := range list {
		if q.Code != "" && onlyElsewhere([]string{q.Code}) {
			continue
		}
		for _, each := range q.Qualifiers {
			if each.Code == code && m.rank(q.Lang) < best {
				best, text, ok = m.rank(q.Lang), each.Text, true
			}
		}
	}
	return text, ok
}

func (m marker) around(list []spif.MarkingQualifier, text string) string {
	if text == "" {
		return ""
	}
	prefix, _ := m.qualifier(list, "prefix")
	suffix, _ := m.qualifier(list, "suffix")
	return prefix + text + suffix
}

// join puts the separator between what is there; a space where none is given.
func (m marker) join(list []spif.MarkingQualifier, parts []string) string {
	separator, ok := m.qualifier(list, "separator")
	if !ok {
		separator = " "
	}
	return strings.Join(slices.DeleteFunc(slices.Clone(parts), func(s string) bool { return s == "" }), separator)
}
