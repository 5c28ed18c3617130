// SPDX-License-Identifier: Apache-2.0

package spif_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"valise/policy/spif"
)

// whole is a small SPIF with one of everything that the table below breaks;
// line numbers count from its first line.
const whole = `<SPIF xmlns="http://www.xmlspif.org/spif" schemaVersion="2.1" version="3" creationDate="20260101000000Z" originatorDN="O=T" keyIdentifier="" privilegeId="2.16.840.1.101.2.1.8.3" rbacId="2.16.840.1.101.2.1.8.3">
<securityPolicyId name="TEST" id="1.2.3"/>
<securityClassifications>
<securityClassification name="LOW" lacv="1" hierarchy="1"/>
<securityClassification name="HIGH" lacv="2" hierarchy="2" obsolete="true"><requiredCategory operation="all"><categoryGroup tagSetRef="S" tagType="restrictive" lacv="1"/></requiredCategory></securityClassification>
</securityClassifications>
<securityCategoryTagSets>
<securityCategoryTagSet name="S" id="1.2.3.1">
<securityCategoryTag name="R" tagType="restrictive" minSelection="0" maxSelection="4">
<tagCategory name="A" lacv="01"><excludedClass>LOW</excludedClass></tagCategory>
<tagCategory name="B" lacv="2" requiredClass="HIGH"/>
</securityCategoryTag>
<securityCategoryTag name="E" tagType="enumerated" enumType="permissive"><tagCategory name="C" lacv="1"/></securityCategoryTag>
<securityCategoryTag name="I" tagType="tagType7" tag7Encoding="securityAttributes"><tagCategory name="D" lacv="1"/></securityCategoryTag>
</securityCategoryTagSet>
<securityCategoryTagSet name="T" id="1.2.3.2"><securityCategoryTag tagType="permissive"/></securityCategoryTagSet>
</securityCategoryTagSets>
<privacyMarks><privacyMark name="P"/></privacyMarks>
<equivalentPolicies><equivalentPolicy name="OTHER" id="1.2.4"/></equivalentPolicies>
<markingData xml:lang="fr" phrase="essai"><code>pageTop</code></markingData>
<markingQualifier><qualifier markingQualifier="-" qualifierCode="prefix"/></markingQualifier>
<extensions><anything xmlns="urn:x">goes</anything></extensions>
</SPIF>
`

func TestParse(t *testing.T) {
	d, err := spif.Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if d.Edition != 3 || d.Policy.ID != "1.2.3" || len(d.Classifications) != 2 || !d.Classifications[1].Obsolete {
		t.Errorf("%+v", d)
	}
	var types []spif.Type
	for _, s := range d.TagSets {
		for _, tag := range s.Tags {
			types = append(types, tag.Type)
		}
	}
	if want := []spif.Type{spif.Restrictive, spif.EnumeratedPermissive, spif.InformativeList, spif.Permissive}; !reflect.DeepEqual(types, want) {
		t.Errorf("types %v, want %v", types, want)
	}
	if tag := d.TagSets[1].Tags[0]; tag.Name != "T" || tag.MaxSelection != spif.Unbounded {
		t.Errorf("a tag without name: %+v", tag)
	}
	if d.Classifications[1].Line != 5 || d.TagSets[0].Tags[0].Categories[1].Line != 11 {
		t.Errorf("lines %d and %d", d.Classifications[1].Line, d.TagSets[0].Tags[0].Categories[1].Line)
	}
	if d.Marking.Data[0].Lang != "fr" || d.PrivacyMarks.MaxSelection != spif.Unbounded {
		t.Errorf("%+v, %+v", d.Marking, d.PrivacyMarks)
	}
	// A byte order mark, and a prefix for the namespace, change nothing.
	prefixed := "\ufeff" + strings.NewReplacer(`xmlns=`, `xmlns:s=`, "</", "</s:", "<", "<s:").Replace(strings.Split(whole, "<extensions>")[0]+"</SPIF>")
	if other, err := spif.Parse([]byte(prefixed)); err != nil || !reflect.DeepEqual(other, d) {
		t.Errorf("with a prefix: %v", err)
	}
}

// Each is whole with one thing changed: refused with its line and reason.
func TestParseRefuses(t *testing.T) {
	tests := []struct {
		old, new string
		line     int // 0: where the change is
		reason   spif.Reason
	}{
		{"</SPIF>", "", 24, spif.ReasonXML},
		{`<SPIF `, `<!DOCTYPE a><SPIF `, 0, spif.ReasonXML},
		{`name="LOW" lacv="1"`, `name="LOW" name="LOW" lacv="1"`, 0, spif.ReasonXML},
		{"<SPIF ", "<spif ", 23, spif.ReasonXML}, // no longer closed by its name
		{"http://www.xmlspif.org/spif", "urn:x", 0, spif.ReasonUnknown},
		{`<privacyMark name="P"/>`, `<privateMark name="P"/>`, 0, spif.ReasonUnknown},
		{`obsolete="true"`, `obsolet="true"`, 0, spif.ReasonUnknown},
		{`obsolete="true"`, `obsolete="yes"`, 0, spif.ReasonValue},
		{`obsolete="true"`, `x:obsolete="true" xmlns:x="urn:x"`, 0, spif.ReasonUnknown},
		{`schemaVersion="2.1"`, `schemaVersion="3.0"`, 0, spif.ReasonValue},
		{`version="3"`, `version="0"`, 0, spif.ReasonValue},
		{`<securityPolicyId name="TEST" id="1.2.3"/>`, ``, 1, spif.ReasonMissing},
		{`id="1.2.3"/>`, `id="1.2.x"/>`, 0, spif.ReasonValue},
		{`<securityPolicyId `, `<securityPolicyId name="A" id="1.2.9"/><securityPolicyId `, 0, spif.ReasonDuplicate},
		{` hierarchy="2"`, ``, 0, spif.ReasonMissing},
		{`hierarchy="2"`, `hierarchy="two"`, 0, spif.ReasonValue},
		{`lacv="2" hierarchy`, `lacv="256" hierarchy`, 0, spif.ReasonValue},
		{`lacv="2" hierarchy`, `lacv="1" hierarchy`, 0, spif.ReasonDuplicate},
		{`name="HIGH"`, `name="LOW"`, 0, spif.ReasonDuplicate},
		{`name="HIGH"`, `name="HI  GH"`, 0, spif.ReasonValue},
		{`name="HIGH"`, "name=\"HI\u202eGH\"", 0, spif.ReasonValue},
		{`name="HIGH"`, `name=""`, 0, spif.ReasonValue},
		{`name="HIGH"`, `name="` + strings.Repeat("x", 256) + `"`, 0, spif.ReasonValue},
		{`operation="all"`, `operation="some"`, 0, spif.ReasonValue},
		{`<categoryGroup tagSetRef="S" tagType="restrictive" lacv="1"/>`, ``, 0, spif.ReasonMissing},
		{`tagType="restrictive" lacv="1"/>`, `tagType="restrictive" lacv="1" all="true"/>`, 0, spif.ReasonValue},
		{`tagType="restrictive" lacv="1"/>`, `tagType="restrictive" all="false"/>`, 0, spif.ReasonMissing},
		{`tagType="restrictive" lacv="1"/>`, `tagType="restrictive" lacv="one"/>`, 0, spif.ReasonValue},
		{`tagType="restrictive" min`, `tagType="restricting" min`, 0, spif.ReasonValue},
		{`tagType="restrictive" min`, `tagType="restrictive" enumType="permissive" min`, 0, spif.ReasonValue},
		{`maxSelection="4"`, `maxSelection="some"`, 0, spif.ReasonValue},
		{`minSelection="0" maxSelection="4"`, `minSelection="5" maxSelection="4"`, 0, spif.ReasonValue},
		{`minSelection="0"`, `minSelection="2" singleSelection="true"`, 0, spif.ReasonValue},
		{`<excludedClass>LOW`, `<excludedClass>LOWER`, 0, spif.ReasonUnresolved},
		{`<excludedClass>LOW`, `<excludedClass>`, 0, spif.ReasonUnresolved},
		{`<excludedClass>`, `text<excludedClass>`, 0, spif.ReasonUnknown},
		{`requiredClass="HIGH"`, `requiredClass="HIGHER"`, 0, spif.ReasonUnresolved},
		{`name="A" lacv="01"`, `name="A" lacv="0x1"`, 0, spif.ReasonValue},
		{`name="A" lacv="01"`, `name="A" lacv="65536"`, 0, spif.ReasonValue},
		{`name="A" lacv="01"`, `name="A" lacv="01" userInput="anything"`, 0, spif.ReasonValue},
		{`name="A" lacv="01"`, `name="A" lacv="01" notAfter="tomorrow"`, 0, spif.ReasonValue},
		{`name="E" tagType`, `name="R" tagType`, 0, spif.ReasonDuplicate},
		{`name="T" id`, `name="S" id`, 0, spif.ReasonDuplicate},
		{`id="1.2.3.2"`, `id="1.2.3.1"`, 0, spif.ReasonDuplicate},
		{`<privacyMark name="P"/>`, `<privacyMark name="P"/><privacyMark name="P"/>`, 0, spif.ReasonDuplicate},
		{`name="OTHER" id="1.2.4"`, `name="OTHER" id="1.2.3"`, 0, spif.ReasonDuplicate},
		{`<excludedClass>LOW`, `<equivalentSecCategoryTag policyRef="NOBODY" tagSetId="1.2.5" tagType="restrictive" lacv="1" applied="both"/><excludedClass>LOW`, 0, spif.ReasonUnresolved},
		{`<excludedClass>LOW`, `<equivalentSecCategoryTag policyRef="OTHER" tagSetId="1.2.5" tagType="restrictive" lacv="" applied="both"/><excludedClass>LOW`, 0, spif.ReasonValue},
		{`<excludedClass>LOW`, `<equivalentSecCategoryTag policyRef="OTHER" tagSetId="1.2.5" tagType="restrictive" lacv="1" applied="always"/><excludedClass>LOW`, 0, spif.ReasonValue},
		{`<code>pageTop</code>`, `<code>pageLeft</code>`, 0, spif.ReasonValue},
		{`qualifierCode="prefix"`, `qualifierCode="infix"`, 0, spif.ReasonValue},
	}
	for _, test := range tests {
		broken := strings.Replace(whole, test.old, test.new, 1)
		if broken == whole {
			t.Fatalf("%q is not in the file", test.old)
		}
		_, err := spif.Parse([]byte(broken))
		e, ok := err.(*spif.Error)
		if !ok || e.Reason != test.reason {
			t.Errorf("%s -> %s: %v, want reason %s", test.old, test.new, err, test.reason)
			continue
		}
		line := test.line
		if line == 0 {
			before, _, _ := strings.Cut(whole, test.old)
			line = strings.Count(before, "\n") + 1
		}
		if e.Line != line {
			t.Errorf("%s -> %s: %v, want line %d", test.old, test.new, err, line)
		}
	}
	if _, err := spif.Parse(make([]byte, spif.MaxFileSize+1)); spif.ReasonOf(err) != spif.ReasonTooLarge {
		t.Errorf("too large: %v", err)
	}
}

// Bounds hold.
func TestParseBounds(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	tests := []struct{ name, old, new string }{
		{"classifications", `<securityClassification name="LOW"`, many(spif.MaxClassifications, `<securityClassification name="L%d" lacv="9" hierarchy="1"/>`) + `<securityClassification name="LOW"`},
		{"categories", `<tagCategory name="A"`, many(spif.MaxCategories, `<tagCategory name="L%d" lacv="9"/>`) + `<tagCategory name="A"`},
		{"tag sets", `<securityCategoryTagSet name="T"`, many(spif.MaxTagSets, `<securityCategoryTagSet name="L%d" id="1.2.9"/>`) + `<securityCategoryTagSet name="T"`},
		{"references", `<categoryGroup `, many(1024, `<categoryGroup tagSetRef="S%d" tagType="restrictive"/>`) + `<categoryGroup `},
		{"phrase", `phrase="essai"`, `phrase="` + strings.Repeat("x", 257) + `"`},
	}
	for _, test := range tests {
		if _, err := spif.Parse([]byte(strings.Replace(whole, test.old, test.new, 1))); spif.ReasonOf(err) != spif.ReasonTooLarge {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// FuzzParse: what is accepted is written, read and written to the same bytes.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := spif.Parse(data)
		if err != nil {
			if spif.ReasonOf(err) == "" {
				t.Fatalf("no reason: %v", err)
			}
			return
		}
		text := spif.Marshal(d)
		again, err := spif.Parse(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if string(spif.Marshal(again)) != string(text) {
			t.Fatalf("a second writing differs\n%s", text)
		}
	})
}
