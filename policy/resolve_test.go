// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"
	"time"

	"valise/identity"
)

const ruled = `<securityCategoryTag name="Codeword" tagType="restrictive" maxSelection="2">
<tagCategory name="A" lacv="0"/>
<tagCategory name="B" lacv="1"><excludedClass>LOW</excludedClass></tagCategory>
<tagCategory name="C" lacv="2" requiredClass="HIGH"/>
<tagCategory name="D" lacv="3" obsolete="true"/>
<tagCategory name="E" lacv="4"><requiredCategory operation="all"><categoryGroup tagSetRef="Set 2" tagType="permissive" lacv="0"/></requiredCategory></tagCategory>
<tagCategory name="F" lacv="5"><requiredCategory operation="onlyOne"><categoryGroup tagSetRef="Set 2" tagType="permissive" all="true"/></requiredCategory></tagCategory>
<tagCategory name="G" lacv="6"><requiredCategory operation="oneOrMore"><categoryGroup tagSetRef="Set 2" tagType="permissive"/></requiredCategory></tagCategory>
<tagCategory name="H" lacv="7"><requiredCategory operation="all"><categoryGroup tagSetRef="Set 2" tagType="permissive" all="true"/></requiredCategory></tagCategory>
<tagCategory name="I" lacv="8"><excludedCategory tagSetRef="Set 2" tagType="permissive" lacv="1"/></tagCategory>
<tagCategory name="J" lacv="9"><excludedCategory tagSetRef="Set 1" tagType="restrictive" all="true"/></tagCategory>
<tagCategory name="K" lacv="10" notBefore="2026-12-01T00:00:00Z"/>
<tagCategory name="L" lacv="11" notAfter="2026-11-01T00:00:00Z"/>
<tagCategory name="free" lacv="x" userInput="string"/>
</securityCategoryTag>
<securityCategoryTag name="Nothing" tagType="notApplicable"><tagCategory name="N" lacv="1"/></securityCategoryTag>
`

const releases = `<securityCategoryTag name="Release" tagType="permissive">
<tagCategory name="X" lacv="0"/><tagCategory name="Y" lacv="1"/>
</securityCategoryTag>
<securityCategoryTag name="Single" tagType="permissive" singleSelection="true">
<tagCategory name="P" lacv="2"/><tagCategory name="Q" lacv="3"/>
</securityCategoryTag>
`

// Each refusal stands beside a label that differs in one thing and is valid.
func TestResolve(t *testing.T) {
	s := one(t, ruled, releases)
	tests := []struct {
		name  string
		use   Use
		label *Label
		want  Reason
	}{
		{"plain", New, label(t, "LOW"), ""},
		{"unknown classification", New, label(t, "LOWER"), ReasonUnknownClass},
		{"classification in other letters", New, label(t, "Low"), ReasonUnknownClass},
		{"no classification", New, label(t, ""), ReasonNoClassification},
		{"unknown category", New, label(t, "LOW", "1/Codeword/Z"), ReasonUnknownCategory},
		{"known category in another tag", New, label(t, "LOW", "2/Single/X"), ReasonUnknownCategory},
		{"known category in another set", New, label(t, "LOW", "2/Codeword/A"), ReasonUnknownCategory},
		{"excluded classification", New, label(t, "LOW", "1/Codeword/B"), ReasonExcluded},
		{"other classification", New, label(t, "MIDDLE", "1/Codeword/B"), ""},
		{"required classification missing", New, label(t, "MIDDLE", "1/Codeword/C"), ReasonRequired},
		{"required classification", New, label(t, "HIGH", "1/Codeword/C"), ""},
		{"obsolete, new", New, label(t, "LOW", "1/Codeword/D"), ReasonObsolete},
		{"obsolete, stored", Stored, label(t, "LOW", "1/Codeword/D"), ""},
		{"required category missing", New, label(t, "LOW", "1/Codeword/E", "2/Release/Y"), ReasonRequired},
		{"required category", New, label(t, "LOW", "1/Codeword/E", "2/Release/X"), ""},
		{"only one of none", New, label(t, "LOW", "1/Codeword/F"), ReasonRequired},
		{"only one of one", New, label(t, "LOW", "1/Codeword/F", "2/Release/X"), ""},
		{"only one of two", New, label(t, "LOW", "1/Codeword/F", "2/Release/X", "2/Release/Y"), ReasonRequired},
		{"one or more of none", New, label(t, "LOW", "1/Codeword/G"), ReasonRequired},
		{"one or more of two", New, label(t, "LOW", "1/Codeword/G", "2/Release/X", "2/Single/P"), ""},
		{"all, one missing", New, label(t, "LOW", "1/Codeword/H", "2/Release/X", "2/Release/Y", "2/Single/P"), ReasonRequired},
		{"excluded category", New, label(t, "LOW", "1/Codeword/I", "2/Release/Y"), ReasonExcluded},
		{"another category", New, label(t, "LOW", "1/Codeword/I", "2/Release/X"), ""},
		{"all others excluded", New, label(t, "LOW", "1/Codeword/J", "1/Codeword/A"), ReasonExcluded},
		{"alone, not excluding itself", New, label(t, "LOW", "1/Codeword/J"), ""},
		{"too early", New, label(t, "LOW", "1/Codeword/K"), ReasonNotValid},
		{"too late", New, label(t, "LOW", "1/Codeword/L"), ReasonNotValid},
		{"too late, stored", Stored, label(t, "LOW", "1/Codeword/L"), ""},
		{"two of at most two", New, label(t, "MIDDLE", "1/Codeword/A", "1/Codeword/B"), ""},
		{"three of at most two", New, label(t, "MIDDLE", "1/Codeword/A", "1/Codeword/B", "1/Codeword/I"), ReasonTooMany},
		{"one twice counts once", New, label(t, "MIDDLE", "1/Codeword/A", "1/Codeword/A", "1/Codeword/B"), ""},
		{"two of a single selection", New, label(t, "LOW", "2/Single/P", "2/Single/Q"), ReasonTooMany},
		{"free text", New, label(t, "LOW", "1/Codeword/free"), ReasonNotSelectable},
		{"not applicable", New, label(t, "LOW", "1/Nothing/N"), ReasonNotSelectable},
		{"no privacy marks", New, &Label{Policy: oid(t, testPolicy), Classification: "LOW", Mark: "PERSONAL"}, ReasonUnknownMark},
		{"another policy", New, &Label{Policy: oid(t, otherPolicy), Classification: "LOW"}, ReasonUnknownPolicy},
		{"nil", New, nil, ReasonNoLabel},
	}
	for _, test := range tests {
		_, err := s.Resolve(test.label, test.use, now)
		want(t, test.name, err, test.want)
	}
}

func TestResolveMinimum(t *testing.T) {
	s := one(t, `<securityCategoryTag name="Release" tagType="permissive" minSelection="1"><tagCategory name="X" lacv="0"/></securityCategoryTag>
`)
	_, err := s.Resolve(label(t, "LOW"), New, now)
	want(t, "none of at least one", err, ReasonTooFew)
	_, err = s.Resolve(label(t, "LOW", "1/Release/X"), New, now)
	want(t, "one of at least one", err, "")
}

func TestResolveMarks(t *testing.T) {
	marks := func(limits string) *Set {
		return compile(t, spifText("TEST", testPolicy, 1, levels+`<privacyMarks`+limits+`><privacyMark name="PERSONAL"/><privacyMark name="OLD" obsolete="true"/></privacyMarks>`))
	}
	with := func(mark string) *Label {
		return &Label{Policy: oid(t, testPolicy), Classification: "LOW", Mark: mark}
	}
	tests := []struct {
		limits, mark string
		use          Use
		want         Reason
	}{
		{"", "", New, ""},
		{"", "PERSONAL", New, ""},
		{"", "OTHER", New, ReasonUnknownMark},
		{"", "OLD", New, ReasonObsolete},
		{"", "OLD", Stored, ""},
		{` minSelection="1"`, "", New, ReasonTooFew},
		{` minSelection="1"`, "PERSONAL", New, ""},
		{` maxSelection="0"`, "PERSONAL", New, ReasonTooMany},
	}
	for _, test := range tests {
		_, err := marks(test.limits).Resolve(with(test.mark), test.use, now)
		want(t, test.limits+" "+test.mark, err, test.want)
	}
}

func TestResolveValidity(t *testing.T) {
	d := document(t, spifText("TEST", testPolicy, 1, levels))
	d.NotBefore, d.NotAfter = now.Add(-time.Hour), now.Add(time.Hour)
	s, err := Compile(d)
	if err != nil {
		t.Fatal(err)
	}
	for offset, reason := range map[time.Duration]Reason{0: "", -2 * time.Hour: ReasonPolicyExpired, 2 * time.Hour: ReasonPolicyExpired} {
		_, err := s.Resolve(label(t, "LOW"), New, now.Add(offset))
		want(t, "new, "+offset.String(), err, reason)
		_, err = s.Resolve(label(t, "LOW"), Stored, now.Add(offset))
		want(t, "stored, "+offset.String(), err, "")
	}
}

func TestResolveObsoleteClass(t *testing.T) {
	s := compile(t, spifText("TEST", testPolicy, 1, `<securityClassifications>
<securityClassification name="LOW" lacv="1" hierarchy="1" obsolete="true"/></securityClassifications>`))
	_, err := s.Resolve(label(t, "LOW"), New, now)
	want(t, "new", err, ReasonObsolete)
	_, err = s.Resolve(label(t, "LOW"), Stored, now)
	want(t, "stored", err, "")
}

const decided = `<securityCategoryTag name="R" tagType="restrictive"><tagCategory name="A" lacv="0"/><tagCategory name="B" lacv="1"/></securityCategoryTag>
<securityCategoryTag name="E" tagType="enumerated" enumType="restrictive"><tagCategory name="C" lacv="0"/></securityCategoryTag>
<securityCategoryTag name="I" tagType="tagType7"><tagCategory name="Z" lacv="0"/></securityCategoryTag>
`

// Step by step what facts of the decision are: see Decide.
func TestDecide(t *testing.T) {
	s := one(t, decided, releases)
	tests := []struct {
		name      string
		label     *Label
		clearance *identity.Clearance
		want      Reason
	}{
		{"no clearance", label(t, "LOW"), nil, ReasonNoClearance},
		{"cleared", label(t, "LOW"), issue(t, s, "LOW"), ""},
		{"above the clearance", label(t, "MIDDLE"), issue(t, s, "LOW"), ReasonClassification},
		{"restrictive: all held", label(t, "LOW", "1/R/A", "1/R/B"), issue(t, s, "LOW", "1/R/A", "1/R/B"), ""},
		{"restrictive: one missing", label(t, "LOW", "1/R/A", "1/R/B"), issue(t, s, "LOW", "1/R/A"), ReasonRestrictive},
		{"enumerated restrictive: held", label(t, "LOW", "1/E/C"), issue(t, s, "LOW", "1/E/C"), ""},
		{"enumerated restrictive: same number, other type", label(t, "LOW", "1/E/C"), issue(t, s, "LOW", "1/R/A"), ReasonRestrictive},
		{"permissive: one of two", label(t, "LOW", "2/Release/X", "2/Release/Y"), issue(t, s, "LOW", "2/Release/Y"), ""},
		{"permissive: none", label(t, "LOW", "2/Release/X"), issue(t, s, "LOW", "2/Release/Y"), ReasonPermissive},
		{"permissive: nothing at all", label(t, "LOW", "2/Release/X"), issue(t, s, "LOW"), ReasonPermissive},
		{"permissive: all groups", label(t, "LOW", "2/Release/X", "2/Single/P"), issue(t, s, "LOW", "2/Release/X", "2/Single/P"), ""},
		{"permissive: one group of two", label(t, "LOW", "2/Release/X", "2/Single/P"), issue(t, s, "LOW", "2/Release/X"), ReasonPermissive},
		{"permissive: absent group imposes nothing", label(t, "LOW"), issue(t, s, "LOW"), ""},
		{"informative decides nothing", label(t, "LOW", "1/I/Z"), issue(t, s, "LOW"), ""},
	}
	for _, test := range tests {
		want(t, test.name, s.Judge(test.label, test.clearance, New, now), test.want)
	}
}

// Policies that differ are translated first, and compiled forms of another Set
// fit nothing.
func TestDecideElsewhere(t *testing.T) {
	both := compile(t, spifText("TEST", testPolicy, 1, levels), spifText("OTHER", otherPolicy, 1, levels))
	other, err := both.Issue(Grant{Policy: oid(t, otherPolicy), UpTo: "HIGH"}, now)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "clearance of another policy", both.Judge(label(t, "LOW"), other, New, now), ReasonOtherPolicy)
	want(t, "clearance of an unknown policy", one(t).Judge(label(t, "LOW"), other, New, now), ReasonUnknownPolicy)

	r, err := both.Resolve(label(t, "LOW"), New, now)
	if err != nil {
		t.Fatal(err)
	}
	again := compile(t, spifText("TEST", testPolicy, 1, levels))
	stale, err := again.Clearance(issue(t, again, "LOW"))
	if err != nil {
		t.Fatal(err)
	}
	fresh, _ := both.Clearance(issue(t, both, "LOW"))
	for _, test := range []struct {
		r    *Resolved
		c    *Clearance
		want Reason
	}{
		{r, fresh, ""},
		{r, stale, ReasonStaleClearance},
		{nil, fresh, ReasonNoLabel},
		{r, nil, ReasonNoClearance},
		{new(Resolved), fresh, ReasonNoLabel},
		{r, new(Clearance), ReasonNoClearance},
		{new(Resolved), new(Clearance), ReasonNoLabel},
	} {
		d := Decide(test.r, test.c)
		if d.Reason != test.want || d.Granted != (test.want == "") {
			t.Errorf("%+v, want %q", d, test.want)
		}
		want(t, "explained", d.Explain(test.r, test.c), test.want)
	}
	if (Decision{}).Granted || (Decision{}).Explain(r, fresh) == nil {
		t.Error("the zero decision grants")
	}
}
