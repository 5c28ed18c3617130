// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
)

// equivalence of the test policy's entries into OTHER.
func equivalent(kind, set, lacv, applied, more string) string {
	return `<equivalentSecCategoryTag policyRef="OTHER" tagSetId="` + otherPolicy + "." + set + `" ` + kind + ` lacv="` + lacv + `" applied="` + applied + `"` + more + `/>`
}

const (
	bits    = `tagType="restrictive"`
	release = `tagType="permissive"`
)

// twoPolicies has TEST, which knows its way into OTHER, and OTHER.
func twoPolicies(t *testing.T) *Set {
	from := spifText("TEST", testPolicy, 1, `<securityClassifications>
<securityClassification name="LOW" lacv="1" hierarchy="1"><equivalentClassification policyRef="OTHER" lacv="1" applied="both"/></securityClassification>
<securityClassification name="OUT" lacv="2" hierarchy="1"><equivalentClassification policyRef="OTHER" lacv="1" applied="encrypt"/></securityClassification>
<securityClassification name="IN" lacv="3" hierarchy="1"><equivalentClassification policyRef="OTHER" lacv="1" applied="decrypt"/></securityClassification>
<securityClassification name="TWO" lacv="4" hierarchy="1"><equivalentClassification policyRef="OTHER" lacv="1" applied="both"/><equivalentClassification policyRef="OTHER" lacv="2" applied="encrypt"/></securityClassification>
<securityClassification name="HANDLED" lacv="5" hierarchy="1"><equivalentClassification policyRef="OTHER" lacv="1" applied="both">
<requiredCategory operation="all"><categoryGroup tagSetRef="Codes" tagType="restrictive" lacv="0"/></requiredCategory></equivalentClassification></securityClassification>
<securityClassification name="CHOICE" lacv="6" hierarchy="1"><equivalentClassification policyRef="OTHER" lacv="1" applied="both">
<requiredCategory operation="oneOrMore"><categoryGroup tagSetRef="Codes" tagType="restrictive" all="true"/></requiredCategory></equivalentClassification></securityClassification>
<securityClassification name="STRICT" lacv="7" hierarchy="1"><equivalentClassification policyRef="OTHER" lacv="2" applied="both"/></securityClassification>
<securityClassification name="ALONE" lacv="8" hierarchy="1"/>
</securityClassifications>
`+tagSets(`<securityCategoryTag name="R" tagType="restrictive">
<tagCategory name="MAPPED" lacv="0">`+equivalent(bits, "1", "0", "both", "")+`</tagCategory>
<tagCategory name="DROPPED" lacv="1">`+equivalent(bits, "1", "", "both", ` action="discard"`)+`</tagCategory>
<tagCategory name="FORGOTTEN" lacv="2"/>
<tagCategory name="BOTHWAYS" lacv="3">`+equivalent(bits, "1", "0", "both", "")+equivalent(bits, "1", "", "both", ` action="discard"`)+`</tagCategory>
<tagCategory name="NOWHERE" lacv="4">`+equivalent(bits, "1", "99", "both", "")+`</tagCategory>
<tagCategory name="WRONGTYPE" lacv="5">`+equivalent(release, "1", "0", "both", "")+`</tagCategory>
<tagCategory name="EXCLUDED" lacv="6">`+equivalent(bits, "1", "1", "both", "")+`</tagCategory>
</securityCategoryTag>
`, `<securityCategoryTag name="P" tagType="permissive">
<tagCategory name="KEPT" lacv="0">`+equivalent(release, "2", "0", "both", "")+equivalent(release, "2", "1", "both", "")+`</tagCategory>
<tagCategory name="LOST" lacv="1">`+equivalent(release, "2", "", "both", ` action="discard"`)+`</tagCategory>
</securityCategoryTag>
`, `<securityCategoryTag name="Q" tagType="permissive"><tagCategory name="Y" lacv="0"/><tagCategory name="Z" lacv="1"/></securityCategoryTag>
<equivalentSecurityCategoryTagSet policyRef="OTHER" id="`+otherPolicy+`.2"/>
`)+`<equivalentPolicies><equivalentPolicy name="OTHER" id="`+otherPolicy+`"/></equivalentPolicies>
`)
	to := spifText("other by its own name", otherPolicy, 1, `<securityClassifications>
<securityClassification name="ONE" lacv="1" hierarchy="1"/><securityClassification name="TWO" lacv="2" hierarchy="2"/>
</securityClassifications>
<securityCategoryTagSets><securityCategoryTagSet name="Codes" id="`+otherPolicy+`.1">
<securityCategoryTag name="C" tagType="restrictive"><tagCategory name="C0" lacv="0"/><tagCategory name="C1" lacv="1"><excludedClass>TWO</excludedClass></tagCategory></securityCategoryTag>
</securityCategoryTagSet><securityCategoryTagSet name="To" id="`+otherPolicy+`.2">
<securityCategoryTag name="To" tagType="permissive"><tagCategory name="X" lacv="0"/><tagCategory name="Y" lacv="1"/></securityCategoryTag>
</securityCategoryTagSet></securityCategoryTagSets>
`)
	return compile(t, from, to)
}

func TestTranslate(t *testing.T) {
	s := twoPolicies(t)
	tests := []struct {
		name  string
		label *Label
		out   string // outbound: "class category …", or a reason
		in    string // inbound
	}{
		{"both directions", label(t, "LOW"), "ONE", "ONE"},
		{"outbound alone", label(t, "OUT"), "ONE", "no_equivalent"},
		{"inbound alone", label(t, "IN"), "no_equivalent", "ONE"},
		{"two equivalents outbound", label(t, "TWO"), "ambiguous_equivalent", "ONE"},
		{"no equivalent", label(t, "ALONE"), "no_equivalent", "no_equivalent"},
		{"required is added", label(t, "HANDLED"), "ONE C0", "ONE C0"},
		{"nobody chooses", label(t, "CHOICE"), "required", "required"},
		{"the choice is there already", label(t, "CHOICE", "1/R/MAPPED"), "ONE C0", "ONE C0"},
		{"mapped", label(t, "LOW", "1/R/MAPPED"), "ONE C0", "ONE C0"},
		{"discarded", label(t, "LOW", "1/R/DROPPED"), "ONE", "ONE"},
		{"neither", label(t, "LOW", "1/R/FORGOTTEN"), "no_equivalent", "no_equivalent"},
		{"both mapped and discarded", label(t, "LOW", "1/R/BOTHWAYS"), "ambiguous_equivalent", "ambiguous_equivalent"},
		{"mapped to nothing", label(t, "LOW", "1/R/NOWHERE"), "unknown_category", "unknown_category"},
		{"mapped to another type", label(t, "LOW", "1/R/WRONGTYPE"), "wrong_type", "wrong_type"},
		{"valid there", label(t, "LOW", "1/R/EXCLUDED"), "ONE C1", "ONE C1"},
		{"invalid there", label(t, "STRICT", "1/R/EXCLUDED"), "excluded", "excluded"},
		{"one becomes two", label(t, "LOW", "2/P/KEPT"), "ONE X Y", "ONE X Y"},
		{"one of two is lost", label(t, "LOW", "2/P/KEPT", "2/P/LOST"), "ONE X Y", "ONE X Y"},
		{"the last one is lost", label(t, "LOW", "2/P/LOST"), "release_lost", "release_lost"},
		{"tag set as a whole", label(t, "LOW", "3/Q/Y"), "ONE Y", "ONE Y"},
		{"tag set as a whole, without it", label(t, "LOW", "3/Q/Z"), "no_equivalent", "no_equivalent"},
	}
	for _, test := range tests {
		r, err := s.Resolve(test.label, New, now)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		for direction, want := range []string{test.out, test.in} {
			got := ""
			out, err := s.Translate(r, oid(t, otherPolicy), Direction(direction), now)
			if err != nil {
				got = string(ReasonOf(err))
			} else {
				got = out.Label.label.Classification
				for _, c := range out.Label.chosen {
					got += " " + c.Name
				}
			}
			if got != want {
				t.Errorf("%s, direction %d: %q (%v), want %q", test.name, direction, got, err, want)
			}
		}
	}
}

// The translation is a second label; what was left out is listed.
func TestTranslateKeepsOriginal(t *testing.T) {
	s := twoPolicies(t)
	l := label(t, "LOW", "1/R/DROPPED", "2/P/KEPT", "2/P/LOST")
	r, err := s.Resolve(l, New, now)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Translate(r, oid(t, otherPolicy), Outbound, now)
	if err != nil {
		t.Fatal(err)
	}
	if !out.Original.Equal(r.Label()) || out.Label.Label().Policy != oid(t, otherPolicy) {
		t.Errorf("original %+v, translation %+v", out.Original, out.Label.Label())
	}
	var lost []string
	for _, c := range out.Discarded {
		lost = append(lost, c.Name)
	}
	if strings.Join(lost, " ") != "DROPPED LOST" {
		t.Errorf("discarded %q", lost)
	}
	data, err := out.Label.XML(XMLLabel{Element: AlternativeLabel, Created: now})
	if err != nil || !strings.Contains(string(data), "<alternativeConfidentialityLabel ") {
		t.Errorf("%s, %v", data, err)
	}
	_, err = s.Translate(r, oid(t, otherPolicy+".9"), Outbound, now)
	want(t, "to an unknown policy", err, ReasonUnknownPolicy)
	_, err = s.Translate(out.Label, oid(t, testPolicy), Outbound, now)
	want(t, "back, where nothing leads", err, ReasonNoEquivalent)
	_, err = s.Translate(nil, oid(t, otherPolicy), Outbound, now)
	want(t, "nothing", err, ReasonNoLabel)
}

// A privacy mark has no equivalent, and is not dropped.
func TestTranslateMark(t *testing.T) {
	from := spifText("TEST", testPolicy, 1, `<securityClassifications><securityClassification name="LOW" lacv="1" hierarchy="1">
<equivalentClassification policyRef="OTHER" lacv="1" applied="both"/></securityClassification></securityClassifications>
<privacyMarks><privacyMark name="PERSONAL"/></privacyMarks><equivalentPolicies><equivalentPolicy name="OTHER" id="`+otherPolicy+`"/></equivalentPolicies>`)
	to := spifText("OTHER", otherPolicy, 1, `<securityClassifications><securityClassification name="LOW" lacv="1" hierarchy="1"/></securityClassifications>`)
	s := compile(t, from, to)
	for mark, reason := range map[string]Reason{"": "", "PERSONAL": ReasonNoEquivalent} {
		r, err := s.Resolve(&Label{Policy: oidOfTest, Classification: "LOW", Mark: mark}, New, now)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Translate(r, oid(t, otherPolicy), Outbound, now)
		want(t, "mark "+mark, err, reason)
	}
}

// The published policies translate as they say.
func TestVectorsTranslate(t *testing.T) {
	s := ukDemo(t)
	tlp, tlpx := oid(t, "1.2.826.0.1.6726289.0.2"), oid(t, "1.2.826.0.1.6726289.0.1")
	r, err := s.Resolve(ukLabel(t, "OFFICIAL"), New, now)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Translate(r, tlp, Outbound, now)
	if err != nil || out.Label.Marking("") != "TLP:GREEN" {
		t.Errorf("UK OFFICIAL in TLP: %v", err)
	}
	_, err = s.Translate(r, tlp, Inbound, now)
	want(t, "applied outbound only", err, ReasonNoEquivalent)
	eu := &Label{Policy: tlpx, Classification: "AMBER", Categories: []Category{{oid(t, "1.2.826.0.1.6726289.0.1.1"), "Jurisdiction", "EU"}}}
	if r, err = s.Resolve(eu, New, now); err != nil {
		t.Fatal(err)
	}
	// The policy adds "Imported Data", the classification "Additional Handling".
	out, err = s.Translate(r, tlp, Outbound, now)
	if err != nil {
		t.Fatal(err)
	}
	if got := out.Label.Marking(""); got != "TLP:AMBER [REGION=EU] [Additional Handling May Apply] [Imported Data]" {
		t.Errorf("%q", got)
	}
}
