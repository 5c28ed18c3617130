// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"valise/policy/spif"
)

// A PhraseError says which part of a phrase is not understood, and what could
// stand there.
type PhraseError struct {
	Part      string   // as it was written; empty where something is missing
	Ambiguous bool     // Part, or the whole, can be read in two ways
	Choices   []string // what could stand there, each understood if written so
}

func (e *PhraseError) Error() string {
	switch {
	case e.Ambiguous:
		return fmt.Sprintf("label: %q can be read in more than one way", clip(e.Part))
	case e.Part == "":
		return "label: it names no classification"
	}
	return fmt.Sprintf("label: %q is not known", clip(e.Part))
}

// Hint lists what could stand there.
func (e *PhraseError) Hint() string {
	if len(e.Choices) == 0 {
		return "the policy has nothing that could stand there"
	}
	list, more := e.Choices, ""
	if len(list) > maxChoices {
		list, more = list[:maxChoices], fmt.Sprintf(" … and %d more", len(e.Choices)-maxChoices)
	}
	return "it takes: " + strings.Join(list, " | ") + more
}

// Phrase reads a label of one policy as a person writes it, under the edition in
// force at a time: the classification, then what stands beside it, divided by
// spaces, commas or slashes.
//
//	SECRET//PLANS//FRA, GBR
//	SECRET//Releasable To: FRA, GBR
//	COALITION SECRET PLANS RELEASABLE TO FRA, GBR
//
// Values go by the policy's names or by phrases of its markings in any language, in
// capital letters or small ones; what [Resolved.Marking] shows is understood. The name
// of a tag before values says that they are of this tag. What is not known and what can
// be read in two ways is refused with a *PhraseError: a label is never guessed. Whether
// the label is valid is for [Set.Resolve] to say.
func (s *Set) Phrase(policy OID, text string, at time.Time) (*Label, error) {
	l := s.lattices[policy]
	if l == nil {
		return nil, deny(ReasonUnknownPolicy, "%s", policy)
	}
	if len(text) > maxPhrase || !utf8.ValidString(text) {
		return nil, deny(ReasonMalformed, "a label's phrase is text of up to %d bytes", maxPhrase)
	}
	e := l.current(at)
	p := &phraser{
		edition: e, text: fold(text), words: make(map[byte][]phraseWord), known: make(map[phraseWord]bool),
		done: make(map[spot][]reading), farthest: spot{tag: anyTag},
	}
	p.learn()
	readings := p.read(spot{tag: anyTag})
	switch {
	case len(readings) == 1:
		return p.label(readings[0])
	case len(readings) > 1:
		return nil, p.ambiguous(readings)
	}
	return nil, p.unknown()
}

// fold makes texts comparable that differ in case and spaces only.
func fold(s string) string {
	return strings.Join(strings.Fields(strings.ToLower(s)), " ")
}

// What a word of a phrase means: one of these.
type meaning struct {
	class *class
	value *value
	mark  string
}

// anyTag stands for no particular tag.
const anyTag = -1

// separators may stand between words, as often as one likes.
const separators = " ,;:=/"

// A phraseWord is a text that a phrase may have, and what it means there.
type phraseWord struct {
	text  string
	means int  // in phraser.meanings; nothing: it stands around values
	early bool // it stands before the classification, or is one; all others stand after it
	tag   int  // of a value, or the one whose values follow; anyTag: of no tag
}

// nothing is what words around values mean.
const nothing = -1

// A spot is a state of reading.
type spot struct {
	at    int  // in the phrase
	class bool // a classification was read
	tag   int  // whose values are expected: they go before others of the same name
}

// A reading is what a phrase means from some spot on: sorted indexes of meanings.
type reading []int

// A phraser reads one phrase.
type phraser struct {
	edition  *edition
	text     string
	meanings []meaning
	words    map[byte][]phraseWord // by their first byte
	known    map[phraseWord]bool
	done     map[spot][]reading
	farthest spot
}

// learn gathers all words of the edition.
func (p *phraser) learn() {
	doc := p.edition.doc
	around := phraseWord{means: nothing, tag: anyTag}
	early := phraseWord{means: nothing, tag: anyTag, early: true}
	p.add(early, doc.Policy.Name)
	p.addMarking(early, &doc.Policy.Marking)
	p.addMarking(early, &doc.Marking)
	p.addQualifiers(early, doc.ClassMarking.Qualifiers)
	p.addQualifiers(around, doc.Marking.Qualifiers)
	p.addQualifiers(around, doc.ClassMarking.Qualifiers)
	for i := range doc.Classifications {
		c := p.edition.classes[doc.Classifications[i].Name]
		p.addValue(phraseWord{early: true, tag: anyTag}, meaning{class: c}, c.Name, &c.Marking)
		p.addQualifiers(around, c.Marking.Qualifiers)
	}
	if marks := doc.PrivacyMarks; marks != nil {
		p.addQualifiers(around, marks.Marking.Qualifiers)
		for i := range marks.Marks {
			m := &marks.Marks[i]
			p.addValue(around, meaning{mark: m.Name}, m.Name, &m.Marking)
		}
	}
	for _, t := range p.edition.tags {
		turn := phraseWord{means: nothing, tag: t.place}
		p.add(turn, t.Name)
		p.addQualifiers(turn, t.Qualifiers)
		for _, v := range t.values {
			for i := range v.alternatives {
				p.addValue(phraseWord{tag: t.place}, meaning{value: v}, v.Name, &v.alternatives[i].Marking)
				p.replaces(&v.alternatives[i].Marking)
			}
		}
	}
}

// addValue learns a value by its name and its phrases.
func (p *phraser) addValue(w phraseWord, m meaning, name string, marking *spif.Marking) {
	// Alternatives of one value come one after another.
	if n := len(p.meanings); n == 0 || p.meanings[n-1] != m {
		p.meanings = append(p.meanings, m)
	}
	w.means = len(p.meanings) - 1
	p.add(w, name)
	for _, d := range marking.Data {
		if d.HasPhrase && !slices.Contains(d.Codes, "replacePolicy") {
			p.add(w, d.Phrase)
		}
	}
	p.addQualifiers(phraseWord{means: nothing, early: w.early, tag: anyTag}, marking.Qualifiers)
}

// replaces learns what stands in the policy's place where a value says so.
func (p *phraser) replaces(marking *spif.Marking) {
	for _, d := range marking.Data {
		if d.HasPhrase && slices.Contains(d.Codes, "replacePolicy") {
			p.add(phraseWord{means: nothing, early: true, tag: anyTag}, d.Phrase)
		}
	}
}

func (p *phraser) addMarking(w phraseWord, marking *spif.Marking) {
	for _, d := range marking.Data {
		if d.HasPhrase {
			p.add(w, d.Phrase)
		}
	}
	p.addQualifiers(w, marking.Qualifiers)
}

func (p *phraser) addQualifiers(w phraseWord, list []spif.MarkingQualifier) {
	for _, q := range list {
		for _, each := range q.Qualifiers {
			p.add(w, each.Text)
		}
	}
}

// add learns a word, once for each meaning.
func (p *phraser) add(w phraseWord, text string) {
	w.text = strings.Trim(fold(text), separators)
	if w.text == "" || p.known[w] {
		return
	}
	p.known[w] = true
	p.words[w.text[0]] = append(p.words[w.text[0]], w)
}

// read returns what the phrase can mean from a spot on: nothing, one thing, or up to
// maxReadings of them.
func (p *phraser) read(s spot) []reading {
	if found, ok := p.done[s]; ok {
		return found
	}
	from := s
	if skipped := len(p.text[s.at:]) - len(strings.TrimLeft(p.text[s.at:], separators)); skipped > 0 {
		if strings.ContainsAny(p.text[s.at:s.at+skipped], ";") || strings.Contains(p.text[s.at:s.at+skipped], "//") {
			s.tag = anyTag
		}
		s.at += skipped
	}
	if s.at > p.farthest.at || s.at == p.farthest.at && s.class {
		p.farthest = s
	}
	var out []reading
	if s.at == len(p.text) && s.class {
		out = []reading{{}}
	}
	for _, w := range p.here(s) {
		next := spot{at: s.at + len(w.text), class: s.class, tag: w.tag}
		if w.means != nothing && p.meanings[w.means].class != nil {
			next.class = true
		}
		for _, rest := range p.read(next) {
			r := rest
			if at, have := slices.BinarySearch(rest, w.means); w.means != nothing && !have {
				r = slices.Insert(slices.Clone(rest), at, w.means)
			}
			same := func(o reading) bool { return slices.Equal(o, r) }
			if len(out) < maxReadings && !slices.ContainsFunc(out, same) {
				out = append(out, r)
			}
		}
	}
	p.done[from] = out
	return out
}

// here lists the words that can stand at a spot. Of values of one name, those of the
// tag that is expected leave no room for others.
func (p *phraser) here(s spot) (list []phraseWord) {
	if s.at == len(p.text) {
		return nil
	}
	for _, w := range p.words[p.text[s.at]] {
		if w.early != s.class && strings.HasPrefix(p.text[s.at:], w.text) && p.ends(s.at+len(w.text)) {
			list = append(list, w)
		}
	}
	if s.tag == anyTag {
		return list
	}
	expected := make(map[string]bool)
	for _, w := range list {
		expected[w.text] = expected[w.text] || w.means != nothing && w.tag == s.tag
	}
	return slices.DeleteFunc(list, func(w phraseWord) bool { return w.means != nothing && w.tag != s.tag && expected[w.text] })
}

// ends reports whether a word may end at a place: not within a longer one.
func (p *phraser) ends(at int) bool {
	inWord := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
	before, _ := utf8.DecodeLastRuneInString(p.text[:at])
	after, _ := utf8.DecodeRuneInString(p.text[at:])
	return at == len(p.text) || !inWord(before) || !inWord(after)
}

func (p *phraser) label(r reading) (*Label, error) {
	l := &Label{Policy: p.edition.lattice.id, Edition: p.edition.doc.Edition}
	for _, i := range r {
		switch m := p.meanings[i]; {
		case m.class != nil:
			l.Classification = m.class.Name
		case m.value != nil:
			l.Categories = append(l.Categories, m.value.Category)
		case l.Mark != "":
			return nil, deny(ReasonTooMany, "privacy marks %q and %q; a label has one", l.Mark, m.mark)
		default:
			l.Mark = m.mark
		}
	}
	return l.Normal(), nil
}

// ambiguous names what two readings differ in.
func (p *phraser) ambiguous(readings []reading) error {
	e := &PhraseError{Part: p.text, Ambiguous: true}
	for _, r := range readings {
		for _, i := range r {
			has := func(o reading) bool { return slices.Contains(o, i) }
			if name := p.name(i); !slices.Contains(e.Choices, name) && slices.ContainsFunc(readings, func(o reading) bool { return !has(o) }) {
				e.Choices = append(e.Choices, name)
			}
		}
	}
	return e
}

// unknown names the part that nothing stands for, and what could.
func (p *phraser) unknown() error {
	rest := p.text[p.farthest.at:]
	if i := strings.IndexAny(rest, ",;/"); i >= 0 {
		rest = rest[:i]
	}
	e := &PhraseError{Part: strings.TrimSpace(rest)}
	for i, m := range p.meanings {
		selectable := m.value == nil || m.value.number >= 0 && m.value.kind != spif.NotApplicable
		if (m.class != nil) != p.farthest.class && selectable && !m.obsolete() {
			e.Choices = append(e.Choices, p.name(i))
		}
	}
	return e
}

// obsolete reports whether no new label may have this.
func (m meaning) obsolete() bool {
	switch {
	case m.class != nil:
		return m.class.Obsolete
	case m.value != nil:
		return !slices.ContainsFunc(m.value.alternatives, func(a alternative) bool { return !a.Obsolete })
	}
	return false
}

// name is how a meaning can be written so that it stands for nothing else.
func (p *phraser) name(i int) string {
	switch m := p.meanings[i]; {
	case m.class != nil:
		return m.class.Name
	case m.value != nil:
		return m.value.tag.Name + ": " + m.value.Name
	default:
		return m.mark
	}
}
