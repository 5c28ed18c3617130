// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"valise/identity"
	"valise/internal/testenv"
	"valise/policy/spif"
)

var now = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

// arcs of the policies that tests invent.
const (
	testPolicy  = "1.3.6.1.4.1.99999.1"
	otherPolicy = "1.3.6.1.4.1.99999.2"
)

// spifText is a SPIF around what a test is about.
func spifText(name, id string, edition int, inside string) string {
	return fmt.Sprintf(`<SPIF xmlns="http://www.xmlspif.org/spif" schemaVersion="2.1" version="%d" creationDate="20260101000000Z"
 originatorDN="O=Test" keyIdentifier="" privilegeId="2.16.840.1.101.2.1.8.3" rbacId="2.16.840.1.101.2.1.8.3">
<securityPolicyId name="%s" id="%s"/>
%s</SPIF>`, edition, name, id, inside)
}

// levels are the classifications of most tests: numbers run against the
// hierarchy, so that whoever orders by number fails.
const levels = `<securityClassifications>
<securityClassification name="LOW" lacv="9" hierarchy="1"/>
<securityClassification name="MIDDLE" lacv="5" hierarchy="2"/>
<securityClassification name="HIGH" lacv="3" hierarchy="3"/>
</securityClassifications>
`

// tagSets wraps tags into a tag set "Set 1", "Set 2" … each.
func tagSets(sets ...string) string {
	var b strings.Builder
	b.WriteString("<securityCategoryTagSets>\n")
	for i, tags := range sets {
		fmt.Fprintf(&b, "<securityCategoryTagSet name=\"Set %d\" id=\"%s.%d\">\n%s</securityCategoryTagSet>\n", i+1, testPolicy, i+1, tags)
	}
	b.WriteString("</securityCategoryTagSets>\n")
	return b.String()
}

func document(t testing.TB, text string) *spif.Document {
	t.Helper()
	d, err := spif.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return d
}

func compile(t testing.TB, texts ...string) *Set {
	t.Helper()
	var documents []*spif.Document
	for _, text := range texts {
		documents = append(documents, document(t, text))
	}
	s, err := Compile(documents...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// one compiles a single edition of the test policy.
func one(t testing.TB, tags ...string) *Set {
	t.Helper()
	return compile(t, spifText("TEST", testPolicy, 1, levels+tagSets(tags...)))
}

func oid(t testing.TB, dotted string) OID {
	t.Helper()
	id, err := ParseOID(dotted)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// in names a category as "set number/tag/name".
func in(t testing.TB, path string) Category {
	t.Helper()
	parts := strings.Split(path, "/")
	return Category{oid(t, testPolicy+"."+parts[0]), parts[1], parts[2]}
}

func label(t testing.TB, class string, paths ...string) *Label {
	t.Helper()
	l := &Label{Policy: oid(t, testPolicy), Classification: class}
	for _, path := range paths {
		l.Categories = append(l.Categories, in(t, path))
	}
	return l
}

func issue(t testing.TB, s *Set, upTo string, paths ...string) *identity.Clearance {
	t.Helper()
	g := Grant{Policy: oid(t, testPolicy), UpTo: upTo}
	for _, path := range paths {
		g.Categories = append(g.Categories, in(t, path))
	}
	c, err := s.Issue(g, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// want checks for a reason, or for no error where it is "".
func want(t testing.TB, what string, err error, reason Reason) {
	t.Helper()
	if ReasonOf(err) != reason || (err == nil) != (reason == "") {
		t.Errorf("%s: %v, want reason %q", what, err, reason)
	}
}

func vectorFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(testenv.Vectors(t, "labels", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
