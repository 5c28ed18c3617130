// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"valise/identity"
	"valise/internal/testenv"
	"valise/policy/spif"
)

// ukDemo compiles the published SPIFs.
func ukDemo(t testing.TB) *Set {
	t.Helper()
	var documents []*spif.Document
	for _, name := range []string{"uk-demo.xml", "tlp.xml", "tlp-plus.xml"} {
		d, err := spif.Parse(vectorFile(t, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		documents = append(documents, d)
	}
	s, err := Compile(documents...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const ukOID = "1.2.826.0.1.6726289.0.4"

func ukLabel(t testing.TB, class string, paths ...string) *Label {
	t.Helper()
	l := &Label{Policy: oid(t, ukOID), Classification: class}
	for _, path := range paths {
		parts := strings.Split(path, "/")
		l.Categories = append(l.Categories, Category{oid(t, ukOID+"."+parts[0]), parts[1], parts[2]})
	}
	return l
}

// Labels of published policies, of every type of tag.
func ukLabels(t testing.TB) []*Label {
	return []*Label{
		ukLabel(t, "SECRET"),
		ukLabel(t, "SECRET", "3/Eyes Only/UK", "3/Eyes Only/US"),
		ukLabel(t, "OFFICIAL", "1/Sensitive/SENSITIVE", "2/Informative Sensitive Descriptors/COMMERCIAL"),
		ukLabel(t, "TOP SECRET", "4/Mandatory Codewords/OVERLORD", "4/Informative Codewords/DYNAMO", "3/Eyes Only/NATO"),
	}
}

// The published clearance is read, written again and compared, and decides as
// its name says.
func TestVectorsClearance(t *testing.T) {
	s := ukDemo(t)
	c, err := ParseClearance(vectorFile(t, "uk-demo-secret-uk.xml"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := ClearanceXML(c)
	if err != nil {
		t.Fatal(err)
	}
	squeeze := func(b []byte) string {
		return strings.Join(strings.Fields(strings.ReplaceAll(string(b), "'", `"`)), " ")
	}
	// The class list of RFC 5755 is a set: its order is ours.
	sorted := strings.ReplaceAll(squeeze(vectorFile(t, "uk-demo-secret-uk.xml")),
		`<classification lacv="10"/> <classification lacv="4"/> <classification lacv="5"/>`,
		`<classification lacv="4"/> <classification lacv="5"/> <classification lacv="10"/>`)
	if got := squeeze(again); got != sorted {
		t.Errorf("written again:\n%s\nwant:\n%s", got, sorted)
	}
	der, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	fromDER, err := ParseClearance(der)
	if err != nil {
		t.Fatal(err)
	}
	if other, _ := ClearanceXML(fromDER); !bytes.Equal(again, other) {
		t.Errorf("by way of DER:\n%s", other)
	}
	for i, reason := range []Reason{"", "", "", ReasonRestrictive} {
		want(t, ukLabels(t)[i].Classification, s.Judge(ukLabels(t)[i], c, New, now), reason)
	}
	// Held are UK, NATO and EU; US is not, but UK stands beside it above.
	want(t, "US alone", s.Judge(ukLabel(t, "SECRET", "3/Eyes Only/US"), c, New, now), ReasonPermissive)
	want(t, "NATO", s.Judge(ukLabel(t, "SECRET", "3/Eyes Only/NATO"), c, New, now), "")
}

func TestVectorsMarkings(t *testing.T) {
	s := ukDemo(t)
	for i, text := range []string{
		"DEMO-UK SECRET",
		"DEMO-UK SECRET - UK / US EYES ONLY",
		"DEMO-UK OFFICIAL-SENSITIVE COMMERCIAL",
		"DEMO-UK TOP SECRET OVERLORD DYNAMO - NATO EYES ONLY",
	} {
		r, err := s.Resolve(ukLabels(t)[i], New, now)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Marking("en"); got != text {
			t.Errorf("marking %q, want %q", got, text)
		}
	}
}

// The rules of the published policy, refused beside an honest label.
func TestVectorsRules(t *testing.T) {
	s := ukDemo(t)
	tests := []struct {
		label *Label
		want  Reason
	}{
		{ukLabel(t, "OFFICIAL", "1/Sensitive/SENSITIVE"), ReasonRequired}, // one descriptor must be there
		{ukLabel(t, "SECRET", "1/Sensitive/SENSITIVE", "2/Mandatory Sensitive Descriptors/LOCSEN"), ReasonExcluded},
		{ukLabel(t, "OFFICIAL", "1/Sensitive/SENSITIVE", "2/Mandatory Sensitive Descriptors/LOCSEN"), ""},
		{ukLabel(t, "OFFICIAL", "1/Sensitive/SENSITIVE", "2/Mandatory Sensitive Descriptors/LOCSEN", "2/Informative Sensitive Descriptors/PERSONAL"), ReasonRequired},
		{ukLabel(t, "OFFICIAL", "2/Informative Sensitive Descriptors/PERSONAL"), ReasonRequired},
		{ukLabel(t, "OFFICIAL", "3/Eyes Only/UK"), ReasonExcluded},
	}
	for i, test := range tests {
		_, err := s.Resolve(test.label, New, now)
		want(t, string(rune('1'+i)), err, test.want)
	}
}

// Exported labels are valid against the published schema, and come back as
// they were.
func TestVectorsXMLExport(t *testing.T) {
	xmllint := testenv.Need(t, "xmllint", "libxml2-utils")
	xsd := testenv.Vectors(t, "labels", "nl-cl.xsd")
	s := ukDemo(t)
	lint := func(data []byte) ([]byte, error) {
		path := filepath.Join(t.TempDir(), "label.xml")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return exec.Command(xmllint, "--nonet", "--noout", "--schema", xsd, path).CombinedOutput()
	}
	var last []byte
	for i, l := range ukLabels(t) {
		r, err := s.Resolve(l, New, now)
		if err != nil {
			t.Fatal(err)
		}
		x := XMLLabel{
			Element: []string{"", AlternativeLabel, MetadataLabel, PlainLabel}[i], Created: now, Review: now.AddDate(1, 0, 0),
			Originator: "alice@interieur.example", OriginatorID: "rfc822Name",
		}
		if last, err = r.XML(x); err != nil {
			t.Fatal(err)
		}
		if out, err := lint(last); err != nil {
			t.Errorf("label %d: %v\n%s\n%s", i, err, out, last)
		}
		back, err := s.ImportXML(last, now)
		if err != nil {
			t.Fatalf("label %d: %v", i, err)
		}
		if !back.Label.Equal(l) || back.Originator != x.Originator || !back.Created.Equal(now) || !back.Review.Equal(x.Review) {
			t.Errorf("label %d came back as %+v, %+v", i, back, back.Label)
		}
		again, err := r.XML(*back)
		if err != nil || !bytes.Equal(again, last) {
			t.Errorf("label %d written again: %v\n%s", i, err, again)
		}
	}
	// The control: without its policy the same label is refused.
	cut := bytes.Replace(last, []byte("PolicyIdentifier"), []byte("PolicyIdentity"), 2)
	if out, err := lint(cut); err == nil {
		t.Errorf("xmllint accepts anything\n%s", out)
	}
}

// ESS labels come back as they were, and openssl reads the same structure.
func TestVectorsESS(t *testing.T) {
	openssl := testenv.Need(t, "openssl", "openssl")
	s := ukDemo(t)
	for i, l := range ukLabels(t) {
		r, err := s.Resolve(l, New, now)
		if err != nil {
			t.Fatal(err)
		}
		der, err := r.ESS()
		if err != nil {
			t.Fatal(err)
		}
		back, err := s.Import(der, now)
		if err != nil || !back.Equal(l) {
			t.Errorf("label %d came back as %+v, %v", i, back, err)
		}
		cmd := exec.Command(openssl, "asn1parse", "-inform", "DER")
		cmd.Stdin = bytes.NewReader(der)
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(":"+ukOID)) || bytes.Count(out, []byte("cont [ 0 ]")) != len(categoryTypes(l)) {
			t.Errorf("label %d: %v\n%s", i, err, out)
		}
	}
}

// categoryTypes counts what becomes a security category each.
func categoryTypes(l *Label) map[string]bool {
	types := make(map[string]bool)
	for _, c := range l.Categories {
		types[string(c.Set)+c.Tag] = true
	}
	return types
}

// An ESS label in BER as others may write it: members in another order, padded
// and open lengths.
func TestImportBER(t *testing.T) {
	s := one(t, project)
	der := ess(t, 9, categoryValue{oid(t, testPolicy+".1"), spif.Restrictive, []int{1}})
	honest, err := s.ImportESS(der, now)
	if err != nil {
		t.Fatal(err)
	}
	content := der[2:]
	class, rest := content[:3], content[3:]
	id, categories := rest[:2+rest[1]], rest[2+rest[1]:]
	variants := map[string][]byte{
		"order":  append([]byte{0x31, byte(len(content))}, bytes.Join([][]byte{categories, id, class}, nil)...),
		"padded": append([]byte{0x31, 0x83, 0, 0, byte(len(content))}, content...),
		"open":   append(append([]byte{0x31, 0x80}, content...), 0, 0),
		"open inside": func() []byte {
			open := append(append([]byte{0x31, 0x80}, categories[2:]...), 0, 0)
			body := bytes.Join([][]byte{class, id, open}, nil)
			return append([]byte{0x31, byte(len(body))}, body...)
		}(),
	}
	for name, data := range variants {
		l, err := s.Import(data, now)
		if err != nil || !l.Equal(honest) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	broken := map[string][]byte{
		"second classification": append([]byte{0x31, byte(len(content) + 3)}, append(bytes.Clone(class), content...)...),
		"no policy":             append([]byte{0x31, 3}, class...),
		"trailing octet":        append(bytes.Clone(der), 0),
		"cut":                   der[:len(der)-1],
		"never closed":          append([]byte{0x31, 0x80}, content...),
		"a member more":         append([]byte{0x31, byte(len(content) + 2)}, append(bytes.Clone(content), 0x05, 0)...),
	}
	for name, data := range broken {
		if l, err := s.Import(data, now); err == nil {
			t.Errorf("%s: %+v", name, l)
		}
	}
	_, err = s.Import(append([]byte{0x31, byte(len(id))}, id...), now)
	want(t, "no classification", err, ReasonNoClassification)
}

// A privacy mark is a PrintableString where it can be, and a UTF8String where
// it cannot.
func TestESSMark(t *testing.T) {
	s := compile(t, spifText("TEST", testPolicy, 1, levels+`<privacyMarks><privacyMark name="PERSONAL"/><privacyMark name="MÉDICAL"/></privacyMarks>`))
	for mark, tag := range map[string]byte{"PERSONAL": 0x13, "MÉDICAL": 0x0c} {
		r, err := s.Resolve(&Label{Policy: oidOfTest, Classification: "LOW", Mark: mark}, New, now)
		if err != nil {
			t.Fatal(err)
		}
		der, err := r.ESS()
		if err != nil || !bytes.Contains(der, append([]byte{tag, byte(len(mark))}, mark...)) {
			t.Errorf("%s: %x, %v", mark, der, err)
		}
		if back, err := s.Import(der, now); err != nil || back.Mark != mark {
			t.Errorf("%s: %+v, %v", mark, back, err)
		}
		data, err := r.XML(XMLLabel{Created: now})
		if err != nil {
			t.Fatal(err)
		}
		if back, err := s.Import(data, now); err != nil || back.Mark != mark {
			t.Errorf("%s: %+v, %v", mark, back, err)
		}
	}
}

const plainXML = `<ConfidentialityLabel xmlns="urn:nato:stanag:4774:confidentialitymetadatalabel:1:0">
<ConfidentialityInformation><PolicyIdentifier>TEST</PolicyIdentifier><Classification>LOW</Classification>
<Category Type="RESTRICTIVE" TagName="Project"><GenericValue>ALPHA</GenericValue></Category>
</ConfidentialityInformation><CreationDateTime>2026-01-01T00:00:00Z</CreationDateTime></ConfidentialityLabel>`

// What a reader that skips would not see makes the label invalid.
func TestImportXML(t *testing.T) {
	s := one(t, project)
	tests := []struct {
		name, old, new string
		want           Reason
	}{
		{"control", "", "", ""},
		{"identifier beside the name", "<PolicyIdentifier>", `<PolicyIdentifier URI="urn:oid:` + testPolicy + `">`, ""},
		{"identifier of another policy", "<PolicyIdentifier>", `<PolicyIdentifier URI="urn:oid:` + otherPolicy + `">`, ReasonUnknownPolicy},
		{"unknown policy", "TEST", "TSET", ReasonUnknownPolicy},
		{"tag set beside the tag", `TagName=`, `URI="urn:oid:` + testPolicy + `.1" TagName=`, ""},
		{"another tag set", `TagName=`, `URI="urn:oid:` + testPolicy + `.2" TagName=`, ReasonUnknownCategory},
		{"name of the tag set", `TagName="Project"`, `TagName="Set 1"`, ""},
		{"number", "<GenericValue>ALPHA</GenericValue>", "<IntegerValue>01</IntegerValue>", ""},
		{"bits", "<GenericValue>ALPHA</GenericValue>", "<BitStringValue>010</BitStringValue>", ""},
		{"unknown number", "<GenericValue>ALPHA</GenericValue>", "<IntegerValue>2</IntegerValue>", ReasonUnknownCategory},
		{"unknown value", "ALPHA", "BETA", ReasonNone},
		{"unknown kind of value", "GenericValue", "AgeValue", ReasonUnrecognised},
		{"element of another namespace", "</ConfidentialityInformation>", `<x xmlns="urn:x"/></ConfidentialityInformation>`, ReasonUnrecognised},
		{"unknown element", "</ConfidentialityInformation>", "<Caveat/></ConfidentialityInformation>", ReasonUnrecognised},
		{"unknown attribute", "<Classification>", `<Classification Scope="part">`, ReasonUnrecognised},
		{"text between", "<Classification>", "and<Classification>", ReasonUnrecognised},
		{"second classification", "</Classification>", "</Classification><Classification>HIGH</Classification>", ReasonMalformed},
		{"no classification", "<Classification>LOW</Classification>", "", ReasonNoClassification},
		{"empty category", "<GenericValue>ALPHA</GenericValue>", "", ReasonMalformed},
	}
	for _, test := range tests {
		data := strings.ReplaceAll(plainXML, test.old, test.new)
		if test.old == "" {
			data = plainXML
		}
		x, err := s.ImportXML([]byte(data), now)
		if test.want == ReasonNone { // names are looked up when the label is resolved
			if err == nil {
				_, err = s.Resolve(x.Label, New, now)
			}
			want(t, test.name, err, ReasonUnknownCategory)
			continue
		}
		want(t, test.name, err, test.want)
		if err == nil && !x.Label.Equal(label(t, "LOW", "1/Project/ALPHA")) {
			t.Errorf("%s: %+v", test.name, x.Label)
		}
	}
	for name, data := range map[string]string{
		"entities":            "<!DOCTYPE x [<!ENTITY a 'LOW'>]>" + plainXML,
		"instruction":         strings.Replace(plainXML, "<Classification>", "<?x?><Classification>", 1),
		"attribute twice":     strings.Replace(plainXML, "<Category ", `<Category Type="INFORMATIVE" `, 1),
		"undeclared prefix":   strings.Replace(plainXML, "<Classification>", "<Classification p:x='1'>", 1),
		"another root":        strings.ReplaceAll(plainXML, "ConfidentialityLabel", "Label"),
		"another encoding":    `<?xml version="1.0" encoding="UTF-16"?>` + plainXML,
		"a second root":       plainXML + plainXML,
		"mismatched elements": strings.Replace(plainXML, "</Classification>", "</classification>", 1),
	} {
		if _, err := s.ImportXML([]byte(data), now); err == nil || ReasonOf(err) != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// ReasonNone marks, in the table above, what only Resolve sees.
const ReasonNone Reason = "-"

func TestParseClearance(t *testing.T) {
	s := one(t, decided, releases)
	c := issue(t, s, "HIGH", "1/R/A", "1/E/C", "2/Release/X")
	der, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	text, err := ClearanceXML(c)
	if err != nil {
		t.Fatal(err)
	}
	// Others write trailing zero bits and open lengths.
	loose := append(append([]byte{0x30, 0x80}, der[2:]...), 0, 0)
	for name, data := range map[string][]byte{"DER": der, "XML": text, "BER": loose} {
		back, err := ParseClearance(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if again, _ := back.Marshal(); !bytes.Equal(again, der) {
			t.Errorf("%s came back as %x", name, again)
		}
		strict, err := identity.ParseClearance(der)
		if err != nil || len(strict.Categories) != len(back.Categories) {
			t.Errorf("%s: package identity reads %+v, %v", name, strict, err)
		}
	}
	for name, edit := range map[string][2]string{
		"unknown attribute": {`<tag `, `<tag name="A" `},
		"unknown element":   {`<tag `, `<tog `},
		"unknown type":      {`"restrictive"`, `"optional"`},
		"no number":         {`lacv="0"`, `lacv="x"`},
		"second policy":     {`<classification `, `<policy id="1.2.3"/><classification `},
		"text":              {`<classification `, `all <classification `},
		"another root":      {`clearance`, `label`},
	} {
		if got, err := ParseClearance([]byte(strings.ReplaceAll(string(text), edit[0], edit[1]))); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// Time zones of dates do not matter, dates that are none do.
func TestDates(t *testing.T) {
	s := one(t, project)
	for text, ok := range map[string]bool{
		"2026-01-01T00:00:00Z": true, "2026-01-01T01:00:00+01:00": true, "2026-01-01T00:00:00": true, "2026-01-01": false, "soon": false,
	} {
		x, err := s.ImportXML([]byte(strings.ReplaceAll(plainXML, "2026-01-01T00:00:00Z", text)), now)
		if (err == nil) != ok || ok && !x.Created.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%s: %+v, %v", text, x, err)
		}
	}
}
