// SPDX-License-Identifier: Apache-2.0

package policies_test

import (
	"os"
	"testing"
	"time"

	"valise/policy"
	"valise/policy/spif"
)

var now = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

const arc = "1.2.840.113556.1.8000.2554.18213.59516.26747.17558.47525.5520943.4926459.3"

func oid(t *testing.T, dotted string) policy.OID {
	t.Helper()
	id, err := policy.ParseOID(dotted)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func load(t *testing.T) *policy.Set {
	t.Helper()
	var documents []*spif.Document
	for _, name := range []string{"france.xml", "tlp.xml", "coalition.xml"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		d, err := spif.Parse(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		documents = append(documents, d)
	}
	set, err := policy.Compile(documents...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// french makes a label; a category is "tag/name".
func french(t *testing.T, class string, categories ...policy.Category) *policy.Label {
	return &policy.Label{Policy: oid(t, arc+".1"), Classification: class, Categories: categories}
}

func special(t *testing.T) policy.Category {
	return policy.Category{Set: oid(t, arc+".1.1"), Tag: "Mention", Name: "SPÉCIAL FRANCE"}
}

func releasable(t *testing.T, name string) policy.Category {
	return policy.Category{Set: oid(t, arc+".1.2"), Tag: "Communicable à", Name: name}
}

func precaution(t *testing.T) policy.Category {
	return policy.Category{Set: oid(t, arc+".1.3"), Tag: "Précaution", Name: "NE PAS IMPRIMER"}
}

func TestMarkings(t *testing.T) {
	set := load(t)
	tests := []struct {
		label *policy.Label
		lang  string
		want  string
	}{
		{french(t, "NON MARQUÉ"), "fr", "NON MARQUÉ"},
		{french(t, "NON MARQUÉ"), "en", "UNMARKED"},
		{french(t, "DIFFUSION RESTREINTE"), "", "DIFFUSION RESTREINTE"},
		{french(t, "TRÈS SECRET", special(t)), "fr", "TRÈS SECRET - SPÉCIAL FRANCE"},
		{french(t, "TRÈS SECRET", special(t)), "en-GB", "TOP SECRET - FRENCH EYES ONLY"},
		{french(t, "SECRET", releasable(t, "DEU"), releasable(t, "FRA")), "fr", "SECRET - COMMUNICABLE À France, Allemagne"},
		{french(t, "SECRET", releasable(t, "DEU"), releasable(t, "FRA")), "en", "SECRET - RELEASABLE TO France, Germany"},
		{french(t, "SECRET", precaution(t)), "en", "SECRET (DO NOT PRINT)"},
		{&policy.Label{Policy: oid(t, arc+".2"), Classification: "AMBER+STRICT"}, "fr", "TLP:AMBER+STRICT"},
		{&policy.Label{Policy: oid(t, arc+".3"), Classification: "UNMARKED"}, "", "COALITION UNMARKED"},
	}
	for _, test := range tests {
		r, err := set.Resolve(test.label, policy.New, now)
		if err != nil {
			t.Errorf("%s: %v", test.want, err)
		} else if got := r.Marking(test.lang); got != test.want {
			t.Errorf("marking in %q: %q, want %q", test.lang, got, test.want)
		}
	}
}

// What may be written under the national policy, and what may not.
func TestFrenchLabels(t *testing.T) {
	set := load(t)
	tests := []struct {
		name  string
		label *policy.Label
		use   policy.Use
		want  policy.Reason
	}{
		{"special", french(t, "SECRET", special(t)), policy.New, ""},
		{"special, unmarked", french(t, "NON MARQUÉ", special(t)), policy.New, policy.ReasonExcluded},
		{"special, but releasable", french(t, "SECRET", special(t), releasable(t, "DEU")), policy.New, policy.ReasonExcluded},
		{"a level of before", french(t, "CONFIDENTIEL DÉFENSE"), policy.New, policy.ReasonObsolete},
		{"a level of before, stored", french(t, "CONFIDENTIEL DÉFENSE"), policy.Stored, ""},
		{"a level that never was", french(t, "TOP SECRET"), policy.New, policy.ReasonUnknownClass},
	}
	for _, test := range tests {
		if _, err := set.Resolve(test.label, test.use, now); policy.ReasonOf(err) != test.want || (err == nil) != (test.want == "") {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// Who reads what: Diffusion Restreinte orders like a level, Spécial France
// does not depend on the level at all.
func TestFrenchClearances(t *testing.T) {
	set := load(t)
	grant := func(upTo string, categories ...policy.Category) policy.Grant {
		return policy.Grant{Policy: oid(t, arc+".1"), UpTo: upTo, Categories: categories}
	}
	tests := []struct {
		name  string
		grant policy.Grant
		label *policy.Label
		want  policy.Reason
	}{
		{"restricted, for secret", grant("SECRET"), french(t, "DIFFUSION RESTREINTE"), ""},
		{"secret, for restricted", grant("DIFFUSION RESTREINTE"), french(t, "SECRET"), policy.ReasonClassification},
		{"unmarked, for everybody", grant("NON MARQUÉ"), french(t, "NON MARQUÉ"), ""},
		{"special, for a foreigner at the top", grant("TRÈS SECRET"), french(t, "DIFFUSION RESTREINTE", special(t)), policy.ReasonRestrictive},
		{"special, for a Frenchman", grant("DIFFUSION RESTREINTE", special(t)), french(t, "DIFFUSION RESTREINTE", special(t)), ""},
		{"released to another", grant("SECRET", releasable(t, "ITA")), french(t, "SECRET", releasable(t, "DEU"), releasable(t, "FRA")), policy.ReasonPermissive},
		{"released to one of two", grant("SECRET", releasable(t, "DEU")), french(t, "SECRET", releasable(t, "DEU"), releasable(t, "FRA")), ""},
		{"a precaution asks for nothing", grant("SECRET"), french(t, "SECRET", precaution(t)), ""},
		{"stored, of a former level", grant("SECRET"), french(t, "CONFIDENTIEL DÉFENSE"), policy.ReasonObsolete},
	}
	for _, test := range tests {
		c, err := set.Issue(test.grant, now)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if err := set.Judge(test.label, c, policy.New, now); policy.ReasonOf(err) != test.want || (err == nil) != (test.want == "") {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	// The level that was given up lies below Secret, and is still read.
	c, _ := set.Issue(grant("SECRET"), now)
	if err := set.Judge(french(t, "CONFIDENTIEL DÉFENSE"), c, policy.Stored, now); err != nil {
		t.Error(err)
	}
}

func TestTLPLevels(t *testing.T) {
	set := load(t)
	levels := []string{"CLEAR", "GREEN", "AMBER", "AMBER+STRICT", "RED"}
	tlp := oid(t, arc+".2")
	for i, held := range levels {
		c, err := set.Issue(policy.Grant{Policy: tlp, UpTo: held}, now)
		if err != nil {
			t.Fatal(err)
		}
		for j, level := range levels {
			err := set.Judge(&policy.Label{Policy: tlp, Classification: level}, c, policy.New, now)
			if (err == nil) != (j <= i) {
				t.Errorf("up to %s, label %s: %v", held, level, err)
			}
		}
	}
}

// National labels go to the coalition only where they say to whom.
func TestCoalition(t *testing.T) {
	set := load(t)
	france, coalition := oid(t, arc+".1"), oid(t, arc+".3")
	tests := []struct {
		name  string
		label *policy.Label
		want  string // marking, or reason
	}{
		{"unmarked", french(t, "NON MARQUÉ"), "COALITION UNMARKED"},
		{"released", french(t, "SECRET", releasable(t, "FRA"), releasable(t, "DEU")), "COALITION SECRET RELEASABLE TO FRA, DEU"},
		{"released, with a precaution", french(t, "SECRET", releasable(t, "FRA"), precaution(t)), "COALITION SECRET RELEASABLE TO FRA"},
		{"released to nobody", french(t, "SECRET"), "required"},
		{"special", french(t, "SECRET", special(t)), "no_equivalent"},
		{"above what the coalition has", french(t, "TRÈS SECRET", releasable(t, "FRA")), "no_equivalent"},
	}
	for _, test := range tests {
		r, err := set.Resolve(test.label, policy.New, now)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		got := ""
		if out, err := set.Translate(r, coalition, policy.Outbound, now); err != nil {
			got = string(policy.ReasonOf(err))
		} else if got = out.Label.Marking(""); !out.Original.Equal(r.Label()) {
			t.Errorf("%s: the original changed", test.name)
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	// France translates outbound only; the coalition's own labels both ways.
	r, _ := set.Resolve(french(t, "SECRET", releasable(t, "FRA")), policy.New, now)
	if _, err := set.Translate(r, coalition, policy.Inbound, now); policy.ReasonOf(err) != policy.ReasonNoEquivalent {
		t.Errorf("inbound: %v", err)
	}
	label := &policy.Label{Policy: coalition, Classification: "SECRET", Categories: []policy.Category{
		{Set: oid(t, arc+".3.1"), Tag: "Releasable To", Name: "ITA"},
	}}
	r, err := set.Resolve(label, policy.New, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, direction := range []policy.Direction{policy.Outbound, policy.Inbound} {
		out, err := set.Translate(r, france, direction, now)
		if err != nil {
			t.Fatal(err)
		}
		if got := out.Label.Marking("fr"); got != "SECRET - COMMUNICABLE À Italie" {
			t.Errorf("%v: %q", direction, got)
		}
	}
}
