// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"valise/policy/spif"
)

// phraseSet has one name in two tags, a name within another name, and markings in
// two languages.
func phraseSet(t testing.TB) *Set {
	return compile(t, spifText("TEST", testPolicy, 1, levels+tagSets(
		`<securityCategoryTag name="Release" tagType="permissive">
<tagCategory name="FRA" lacv="0"><markingData xml:lang="fr" phrase="France"><code>pageTopBottom</code></markingData></tagCategory>
<tagCategory name="GBR" lacv="1"/>
<tagCategory name="GBR AND FRA" lacv="2"/>
<markingQualifier><qualifier markingQualifier="REL TO " qualifierCode="prefix"/></markingQualifier>
</securityCategoryTag>`,
		`<securityCategoryTag name="Origin" tagType="restrictive">
<tagCategory name="FRA" lacv="0"/><tagCategory name="EYES ONLY" lacv="1"/><tagCategory name="OLD" lacv="2" obsolete="true"/>
</securityCategoryTag>`)+
		`<privacyMarks minSelection="0" maxSelection="1"><privacyMark name="PERSONAL"/><privacyMark name="STAFF"/></privacyMarks>`))
}

func TestPhrase(t *testing.T) {
	set, id := phraseSet(t), oid(t, testPolicy)
	for text, want := range map[string]*Label{
		"HIGH":                        label(t, "HIGH"),
		" high ":                      label(t, "HIGH"),
		"TEST HIGH":                   label(t, "HIGH"),
		"HIGH//EYES ONLY":             label(t, "HIGH", "2/Origin/EYES ONLY"),
		"high, eyes  only, Gbr":       label(t, "HIGH", "2/Origin/EYES ONLY", "1/Release/GBR"),
		"HIGH//Release: FRA, GBR":     label(t, "HIGH", "1/Release/FRA", "1/Release/GBR"),
		"HIGH REL TO FRA":             label(t, "HIGH", "1/Release/FRA"),
		"HIGH//France":                label(t, "HIGH", "1/Release/FRA"),
		"HIGH//Origin: FRA":           label(t, "HIGH", "2/Origin/FRA"),
		"HIGH//REL TO FRA/Origin=FRA": label(t, "HIGH", "1/Release/FRA", "2/Origin/FRA"),
		"HIGH EYES ONLY EYES ONLY":    label(t, "HIGH", "2/Origin/EYES ONLY"),
		"HIGH//OLD":                   label(t, "HIGH", "2/Origin/OLD"), // for Resolve to refuse
	} {
		got, err := set.Phrase(id, text, now)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		want.Edition = 1
		if !got.Equal(want) {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

// What cannot be understood, or in two ways, is refused with what could stand there;
// each choice is understood when it is written so.
func TestPhraseRefusals(t *testing.T) {
	set, id := phraseSet(t), oid(t, testPolicy)
	for _, test := range []struct {
		text      string
		ambiguous bool
		part      string
		choices   []string
	}{
		{"", false, "", []string{"LOW", "MIDDLE", "HIGH"}},
		{"SECRET", false, "secret", []string{"LOW", "MIDDLE", "HIGH"}},
		{"EYES ONLY", false, "eyes only", []string{"LOW", "MIDDLE", "HIGH"}},
		{"HIGHER", false, "higher", []string{"LOW", "MIDDLE", "HIGH"}},
		{"HIGH LOW", false, "low", []string{"PERSONAL", "STAFF", "Release: FRA", "Release: GBR", "Release: GBR AND FRA", "Origin: FRA", "Origin: EYES ONLY"}},
		{"HIGH//EYES", false, "eyes", []string{"PERSONAL", "STAFF", "Release: FRA", "Release: GBR", "Release: GBR AND FRA", "Origin: FRA", "Origin: EYES ONLY"}},
		{"HIGH//FRA", true, "high//fra", []string{"Release: FRA", "Origin: FRA"}},
		{"HIGH//Release: GBR; FRA", true, "high//release: gbr; fra", []string{"Release: FRA", "Origin: FRA"}},
	} {
		_, err := set.Phrase(id, test.text, now)
		refused, ok := errors.AsType[*PhraseError](err)
		if !ok || refused.Ambiguous != test.ambiguous || refused.Part != test.part || !slices.Equal(refused.Choices, test.choices) {
			t.Errorf("%q: %+v", test.text, err)
			continue
		}
		if refused.Hint() == "" || !strings.Contains(refused.Hint(), test.choices[0]) {
			t.Errorf("%q: hint %q", test.text, refused.Hint())
		}
		for _, choice := range test.choices {
			text := choice
			if !slices.Contains([]string{"LOW", "MIDDLE", "HIGH"}, choice) {
				text = "HIGH//" + choice
			}
			if _, err := set.Phrase(id, text, now); err != nil {
				t.Errorf("%q offers %q, which is refused: %v", test.text, choice, err)
			}
		}
	}
	want(t, "two privacy marks", second(set.Phrase(id, "HIGH PERSONAL STAFF", now)), ReasonTooMany)
	want(t, "one privacy mark", second(set.Phrase(id, "HIGH PERSONAL", now)), "")
	want(t, "another policy", second(set.Phrase(oid(t, otherPolicy), "HIGH", now)), ReasonUnknownPolicy)
	want(t, "too long", second(set.Phrase(id, strings.Repeat("HIGH ", 300), now)), ReasonMalformed)
	want(t, "not text", second(set.Phrase(id, "HIGH\xff", now)), ReasonMalformed)
}

func second(_ *Label, err error) error { return err }

// What a marking shows is understood again, in every language: for every label of one
// category of the policies that come with the program, and of two.
func TestPhraseReadsMarkings(t *testing.T) {
	var documents []*spif.Document
	for _, name := range []string{"france", "tlp", "coalition"} {
		data, err := os.ReadFile("../policies/" + name + ".xml")
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, document(t, string(data)))
	}
	set, err := Compile(documents...)
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, l := range set.lattices {
		e := l.current(now)
		lists := [][]Category{nil}
		for a := range e.values {
			for b := range e.values {
				lists = append(lists, []Category{a, b})
			}
		}
		for class := range e.classes {
			for _, categories := range lists {
				r, err := set.Resolve(&Label{Policy: l.id, Classification: class, Categories: categories}, New, now)
				if err != nil {
					continue // no such label
				}
				for _, lang := range []string{"", "fr", "en"} {
					got, err := set.Phrase(l.id, r.Marking(lang), now)
					if err != nil || !got.Equal(r.Label()) {
						t.Errorf("%q is read as %+v: %v", r.Marking(lang), got, err)
					}
					read++
				}
			}
		}
	}
	if read < 200 {
		t.Errorf("%d markings read", read)
	}
}

// A catalogue holds valid labels alone, and each can be written as it says.
func TestCatalogue(t *testing.T) {
	set, id := phraseSet(t), oid(t, testPolicy)
	var phrases []string
	for _, r := range set.Catalogue(id, now) {
		phrases = append(phrases, r.Phrase())
		again, err := set.Phrase(id, r.Phrase(), now)
		if err != nil || !again.Equal(r.Label()) {
			t.Errorf("%q is read as %+v: %v", r.Phrase(), again, err)
		}
	}
	if len(phrases) != 3*(1+5) || phrases[0] != "LOW" || phrases[17] != "HIGH//Origin: EYES ONLY" || slices.Contains(phrases, "LOW//Origin: OLD") {
		t.Errorf("catalogue: %q", phrases)
	}
	if set.Catalogue(oid(t, otherPolicy), now) != nil || !set.Has(id, 1) || set.Has(id, 2) || set.Has(oid(t, otherPolicy), 1) {
		t.Error("a policy is known that is not there")
	}
}

// Whatever is typed, a phrase becomes a label that says so again, or an error.
func FuzzPhrase(f *testing.F) {
	for _, seed := range []string{
		"HIGH", "HIGH//EYES ONLY", "TEST high rel to fra, gbr PERSONAL", "HIGH//Release: GBR; FRA", "HIGH//GBR AND FRA", "//", "HIGH HIGH", "high=fra",
	} {
		f.Add(seed)
	}
	set := phraseSet(f)
	id := oid(f, testPolicy)
	f.Fuzz(func(t *testing.T, text string) {
		l, err := set.Phrase(id, text, now)
		if err != nil {
			return
		}
		r, err := set.Resolve(l, Stored, now)
		if err != nil {
			if ReasonOf(err) == "" {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		again, err := set.Phrase(id, r.Phrase(), now)
		if err != nil || !again.Equal(l) {
			t.Fatalf("%q is read as %+v, and %q as %+v: %v", text, l, r.Phrase(), again, err)
		}
	})
}
