// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/asn1"
	"fmt"
	"strings"
	"testing"
	"time"

	"valise/identity"
	"valise/policy/spif"
)

// clearance makes one by number, as somebody else's authority might.
func clearance(t *testing.T, classes []int, values ...categoryValue) *identity.Clearance {
	t.Helper()
	list, err := identity.NewClassList(classes...)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := oid(t, testPolicy).asn1()
	c := &identity.Clearance{PolicyID: id, ClassList: list}
	for _, v := range values {
		category, err := v.marshal()
		if err != nil {
			t.Fatal(err)
		}
		c.Categories = append(c.Categories, category)
	}
	return c
}

// ess writes an ESS label by number.
func ess(t *testing.T, class int, values ...categoryValue) []byte {
	t.Helper()
	type label struct {
		Class  int
		Policy asn1.ObjectIdentifier
	}
	id, _ := oid(t, testPolicy).asn1()
	body, err := asn1.Marshal(label{class, id})
	if err != nil {
		t.Fatal(err)
	}
	var set []byte
	for _, v := range values {
		c, err := v.marshal()
		if err != nil {
			t.Fatal(err)
		}
		typed := []byte(OIDOf(c.Type))
		inner := append([]byte{0x80, byte(len(typed))}, typed...)
		inner = append(append(inner, 0xa1, byte(len(c.Value))), c.Value...)
		set = append(append(set, 0x30, byte(len(inner))), inner...)
	}
	content := body[2:]
	if len(set) > 0 {
		content = append(append(content, 0x31, byte(len(set))), set...)
	}
	return append([]byte{0x31, byte(len(content))}, content...)
}

const communities = `<securityCategoryTag name="Releasable To" tagType="enumerated" enumType="permissive">
<tagCategory name="OCCAR" lacv="1001"/>
<tagCategory name="NATO" lacv="1001"/>
<tagCategory name="ARM" lacv="051"/>
</securityCategoryTag>
`

// One number for two communities: the name decides, and the number opens
// neither's data to the other.
func TestTrapSharedNumber(t *testing.T) {
	s := one(t, communities)
	byNumber := func(n int) categoryValue {
		return categoryValue{oid(t, testPolicy+".1"), spif.EnumeratedPermissive, []int{n}}
	}
	_, err := s.ImportESS(ess(t, 5, byNumber(1001)), now)
	want(t, "label with the shared number", err, ReasonAmbiguousNumber)
	l, err := s.ImportESS(ess(t, 5, byNumber(51)), now)
	want(t, "label with a number of its own", err, "")
	if err == nil && !l.Equal(label(t, "MIDDLE", "1/Releasable To/ARM")) {
		t.Errorf("number 51 became %+v", l)
	}

	holder := clearance(t, []int{5, 9}, byNumber(1001))
	for _, name := range []string{"NATO", "OCCAR"} {
		want(t, name+" for a holder of 1001", s.Judge(label(t, "MIDDLE", "1/Releasable To/"+name), holder, New, now), ReasonPermissive)
		_, err := s.Issue(Grant{Policy: oid(t, testPolicy), Categories: []Category{in(t, "1/Releasable To/"+name)}}, now)
		want(t, "granting "+name, err, ReasonAmbiguousNumber)
		r, err := s.Resolve(label(t, "MIDDLE", "1/Releasable To/"+name), New, now)
		want(t, "label of "+name+" by name", err, "")
		_, err = r.ESS()
		want(t, "writing "+name+" by number", err, ReasonAmbiguousNumber)
	}
	want(t, "ARM for a holder of 51", s.Judge(label(t, "MIDDLE", "1/Releasable To/ARM"), clearance(t, []int{5}, byNumber(51)), New, now), "")
	compiled, err := s.Clearance(holder)
	if err != nil || len(compiled.Ignored) != 1 || !strings.Contains(compiled.Ignored[0], "two values") {
		t.Errorf("ignored %q, %v", compiled.Ignored, err)
	}
}

// A shared number in a rule would decide what is valid: the SPIF is refused.
func TestTrapSharedNumberInRule(t *testing.T) {
	rule := func(lacv string) string {
		return `<securityCategoryTag name="Handling" tagType="restrictive"><tagCategory name="H" lacv="0">
<requiredCategory operation="all"><categoryGroup tagSetRef="Set 1" tagType="enumerated" enumType="permissive" lacv="` + lacv + `"/></requiredCategory>
</tagCategory></securityCategoryTag>
`
	}
	_, err := Compile(document(t, spifText("TEST", testPolicy, 1, levels+tagSets(communities, rule("1001")))))
	if spif.ReasonOf(err) != spif.ReasonAmbiguous {
		t.Errorf("ambiguous reference: %v", err)
	}
	if _, err := Compile(document(t, spifText("TEST", testPolicy, 1, levels+tagSets(communities, rule("51"))))); err != nil {
		t.Errorf("control: %v", err)
	}
}

// References to whole tag sets multiply: the sum is bounded.
func TestCompileBounds(t *testing.T) {
	excluding := func(n int) *spif.Document {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `<tagCategory name="C%d" lacv="%d"><excludedCategory tagSetRef="Set 1" tagType="restrictive" all="true"/></tagCategory>`, i, i)
		}
		return document(t, spifText("TEST", testPolicy, 1, levels+tagSets(`<securityCategoryTag name="T" tagType="restrictive">`+b.String()+"</securityCategoryTag>\n")))
	}
	if _, err := Compile(excluding(1024)); err != nil {
		t.Errorf("1024 x 1024: %v", err)
	}
	if _, err := Compile(excluding(1025)); spif.ReasonOf(err) != spif.ReasonTooLarge {
		t.Errorf("1025 x 1025: %v", err)
	}
}

// Two entries of one name are alternatives: the label has to meet one of them,
// not both.
func TestTrapDuplicateEntries(t *testing.T) {
	s := one(t, `<securityCategoryTag name="Special" tagType="restrictive">
<tagCategory name="X" lacv="1"><excludedClass>LOW</excludedClass><excludedClass>MIDDLE</excludedClass></tagCategory>
<tagCategory name="X" lacv="1"><excludedClass>LOW</excludedClass><excludedClass>HIGH</excludedClass></tagCategory>
</securityCategoryTag>
`)
	for class, reason := range map[string]Reason{"HIGH": "", "MIDDLE": "", "LOW": ReasonExcluded} {
		_, err := s.Resolve(label(t, class, "1/Special/X"), New, now)
		want(t, class, err, reason)
	}
}

// One name with two numbers is no alternative: which one would be written?
func TestTrapDuplicateEntriesDiffer(t *testing.T) {
	text := spifText("TEST", testPolicy, 1, levels+tagSets(`<securityCategoryTag name="Special" tagType="restrictive">
<tagCategory name="X" lacv="1"/><tagCategory name="X" lacv="2"/></securityCategoryTag>
`))
	if _, err := Compile(document(t, text)); spif.ReasonOf(err) != spif.ReasonDuplicate {
		t.Errorf("one name, two numbers: %v", err)
	}
}

// "051" is fifty-one, and never forty-one.
func TestTrapLeadingZero(t *testing.T) {
	for text, want := range map[string]int{"051": 51, "0": 0, "000": 0, "65535": 65535} {
		if n, ok := spif.Number(text); !ok || n != want {
			t.Errorf("%q is %d, %v", text, n, ok)
		}
	}
	for _, text := range []string{"", "65536", "-1", "+5", "0x33", "5 1", "٥١", "99999999999999999999"} {
		if n, ok := spif.Number(text); ok {
			t.Errorf("%q is a number: %d", text, n)
		}
	}
}

// Tag sets change between editions: a label resolves by its own, an old one
// stays for stored messages, and a number that was given away opens nothing.
func TestTrapEditions(t *testing.T) {
	tags := func(second string) string {
		return tagSets(`<securityCategoryTag name="Project" tagType="restrictive">
<tagCategory name="ALPHA" lacv="1"/><tagCategory name="` + second + `" lacv="2"/></securityCategoryTag>
`)
	}
	s := compile(t, spifText("TEST", testPolicy, 2, levels+tags("GAMMA")), spifText("TEST", testPolicy, 1, levels+tags("BETA")))
	of := func(edition uint32, name string) *Label {
		l := label(t, "LOW", "1/Project/"+name)
		l.Edition = edition
		return l
	}
	tests := []struct {
		name  string
		label *Label
		use   Use
		want  Reason
	}{
		{"old name, old edition, stored", of(1, "BETA"), Stored, ""},
		{"old name, old edition, new message", of(1, "BETA"), New, ReasonOldEdition},
		{"old name, new edition", of(2, "BETA"), Stored, ReasonUnknownCategory},
		{"new name, old edition", of(1, "GAMMA"), Stored, ReasonUnknownCategory},
		{"new name, new edition", of(2, "GAMMA"), New, ""},
		{"not stated: the newest", of(0, "GAMMA"), New, ""},
		{"an edition that nobody has", of(3, "GAMMA"), Stored, ReasonUnknownEdition},
	}
	for _, test := range tests {
		_, err := s.Resolve(test.label, test.use, now)
		want(t, test.name, err, test.want)
	}
	// Who was cleared for 2 when it was BETA must not read GAMMA now.
	two := clearance(t, []int{9}, categoryValue{oid(t, testPolicy+".1"), spif.Restrictive, []int{1, 2}})
	want(t, "number that changed hands", s.Judge(of(2, "GAMMA"), two, New, now), ReasonRestrictive)
	want(t, "number that did not", s.Judge(of(2, "ALPHA"), two, New, now), "")
	_, err := s.ImportESS(ess(t, 9, categoryValue{oid(t, testPolicy+".1"), spif.Restrictive, []int{2}}), now)
	want(t, "label by a number that changed hands", err, ReasonAmbiguousNumber)
}

// The next edition can be handed out before its day: until then the one before
// it is in force, and on its day the other way round.
func TestTrapEditionsAhead(t *testing.T) {
	text := func(edition int, name string) *spif.Document {
		return document(t, spifText("TEST", testPolicy, edition, levels+tagSets(`<securityCategoryTag name="Project" tagType="restrictive"><tagCategory name="`+name+`" lacv="1"/></securityCategoryTag>
`)))
	}
	first, second := text(1, "ALPHA"), text(2, "ALPHA")
	day := now.AddDate(0, 1, 0)
	second.NotBefore = day
	s, err := Compile(first, second)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		edition uint32
		at      time.Time
		want    Reason
	}{
		{1, now, ""},
		{2, now, ReasonPolicyExpired},
		{0, now, ""},
		{1, day, ReasonOldEdition},
		{2, day, ""},
		{0, day, ""},
	} {
		l := label(t, "LOW", "1/Project/ALPHA")
		l.Edition = test.edition
		r, err := s.Resolve(l, New, test.at)
		want(t, "edition in force", err, test.want)
		if inForce := uint32(1); err == nil {
			if test.at.Equal(day) {
				inForce = 2
			}
			if r.Label().Edition != inForce {
				t.Errorf("edition %d became %d", test.edition, r.Label().Edition)
			}
		}
	}
}

// A tag may change its type too. A label keeps the one of its edition, and what
// was held under one type is not held under the other.
func TestTrapEditionsType(t *testing.T) {
	tag := func(kind string) string {
		return levels + tagSets(`<securityCategoryTag name="Project" tagType="`+kind+`"><tagCategory name="ALPHA" lacv="1"/><tagCategory name="BETA" lacv="2"/></securityCategoryTag>
`)
	}
	s := compile(t, spifText("TEST", testPolicy, 1, tag("restrictive")), spifText("TEST", testPolicy, 2, tag("permissive")))
	held := func(kind spif.Type) *identity.Clearance {
		return clearance(t, []int{9}, categoryValue{oid(t, testPolicy+".1"), kind, []int{1}})
	}
	for edition, reasons := range map[uint32]map[spif.Type]Reason{
		1: {spif.Restrictive: ReasonRestrictive, spif.Permissive: ReasonRestrictive},
		2: {spif.Restrictive: ReasonPermissive, spif.Permissive: ""},
	} {
		l := label(t, "LOW", "1/Project/ALPHA", "1/Project/BETA")
		l.Edition = edition
		for kind, reason := range reasons {
			want(t, kind.String(), s.Judge(l, held(kind), Stored, now), reason)
		}
	}
	l := label(t, "LOW", "1/Project/ALPHA")
	l.Edition = 1
	want(t, "control", s.Judge(l, held(spif.Restrictive), Stored, now), "")
	for kind, reason := range map[spif.Type]Reason{spif.Restrictive: ReasonWrongType, spif.Permissive: ""} {
		_, err := s.ImportESS(ess(t, 9, categoryValue{oid(t, testPolicy+".1"), kind, []int{1}}), now)
		want(t, "label by the type of before", err, reason)
	}
}

const withSuccession = `<ConfidentialityLabel xmlns="urn:nato:stanag:4774:confidentialitymetadatalabel:1:0">
<ConfidentialityInformation><PolicyIdentifier>TEST</PolicyIdentifier><Classification>HIGH</Classification></ConfidentialityInformation>
<CreationDateTime>2026-01-01T00:00:00Z</CreationDateTime>%s</ConfidentialityLabel>`

const succession = `<SuccessionHandling><SuccessionDateTime>2027-01-01T00:00:00Z</SuccessionDateTime>
<SuccessorConfidentialityLabel><ConfidentialityInformation><PolicyIdentifier>TEST</PolicyIdentifier><Classification>LOW</Classification></ConfidentialityInformation>
<CreationDateTime>2026-01-01T00:00:00Z</CreationDateTime></SuccessorConfidentialityLabel></SuccessionHandling>`

// A label that asks to be downgraded later is refused, not read without that.
func TestTrapSuccession(t *testing.T) {
	s := one(t)
	_, err := s.ImportXML([]byte(strings.Replace(withSuccession, "%s", succession, 1)), now)
	want(t, "succession", err, ReasonSuccession)
	_, err = s.ImportXML([]byte(strings.Replace(withSuccession, "%s", "", 1)), now)
	want(t, "control", err, "")
}

const project = `<securityCategoryTag name="Project" tagType="restrictive"><tagCategory name="ALPHA" lacv="1"/></securityCategoryTag>
`

const claimed = `<ConfidentialityLabel xmlns="urn:nato:stanag:4774:confidentialitymetadatalabel:1:0">
<ConfidentialityInformation><PolicyIdentifier>TEST</PolicyIdentifier><Classification>LOW</Classification>
<Category Type="%s" TagName="Project"><GenericValue>ALPHA</GenericValue></Category></ConfidentialityInformation>
<CreationDateTime>2026-01-01T00:00:00Z</CreationDateTime></ConfidentialityLabel>`

// The type of a tag comes from the SPIF: a restrictive category that is
// claimed to be informative would decide nothing.
func TestTrapClaimedType(t *testing.T) {
	s := one(t, project)
	for claim, reason := range map[string]Reason{
		"RESTRICTIVE": "", "INFORMATIVE": ReasonWrongType, "PERMISSIVE": ReasonWrongType, "": ReasonWrongType,
	} {
		_, err := s.ImportXML([]byte(strings.Replace(claimed, "%s", claim, 1)), now)
		want(t, "XML, "+claim, err, reason)
	}
	for kind, reason := range map[spif.Type]Reason{
		spif.Restrictive: "", spif.InformativeBits: ReasonWrongType, spif.InformativeList: ReasonWrongType,
		spif.Permissive: ReasonWrongType, spif.EnumeratedRestrictive: ReasonWrongType,
	} {
		_, err := s.ImportESS(ess(t, 9, categoryValue{oid(t, testPolicy+".1"), kind, []int{1}}), now)
		want(t, "BER, "+kind.String(), err, reason)
	}
}

// Numbers of classifications order nothing: LOW has 9, HIGH has 3.
func TestTrapHierarchy(t *testing.T) {
	s := one(t)
	for _, test := range []struct {
		upTo    string
		reaches []string
	}{{"LOW", []string{"LOW"}}, {"MIDDLE", []string{"LOW", "MIDDLE"}}, {"HIGH", []string{"LOW", "MIDDLE", "HIGH"}}} {
		c := issue(t, s, test.upTo)
		for _, class := range []string{"LOW", "MIDDLE", "HIGH"} {
			reason := ReasonClassification
			if strings.Contains(strings.Join(test.reaches, " "), class) {
				reason = ""
			}
			want(t, "up to "+test.upTo+", "+class, s.Judge(label(t, class), c, New, now), reason)
		}
	}
	if above, err := s.Dominates(oid(t, testPolicy), "HIGH", "LOW", now); err != nil || !above {
		t.Error("HIGH does not dominate LOW", err)
	}
	if above, err := s.Dominates(oid(t, testPolicy), "LOW", "HIGH", now); err != nil || above {
		t.Error("LOW dominates HIGH", err)
	}
	// The class list is a set: HIGH alone does not reach what lies below.
	want(t, "a set, not a ceiling", s.Judge(label(t, "LOW"), clearance(t, []int{3}), New, now), ReasonClassification)
}
