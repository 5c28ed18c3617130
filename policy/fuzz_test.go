// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"testing"

	"valise/policy/spif"
)

// fuzzSet has tags of every type.
func fuzzSet(t testing.TB) *Set {
	return compile(t, spifText("TEST", testPolicy, 1, levels+tagSets(decided, releases, communities)+
		`<privacyMarks><privacyMark name="PERSONAL"/></privacyMarks>`))
}

func fuzzLabels(t testing.TB) []*Label {
	marked := label(t, "HIGH", "1/R/A", "1/R/B", "1/E/C", "1/I/Z", "2/Release/X", "3/Releasable To/ARM")
	marked.Mark = "PERSONAL"
	return []*Label{label(t, "LOW"), marked}
}

// FuzzParseLabel: whatever is accepted is written back as the same bytes.
func FuzzParseLabel(f *testing.F) {
	for _, l := range samples(f) {
		data, err := l.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLabel(data)
		if err != nil {
			return
		}
		if again, err := l.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x was accepted and written back as %x (%v)", data, again, err)
		}
	})
}

// FuzzImportXML: an imported label that is valid comes back through every
// form.
func FuzzImportXML(f *testing.F) {
	s := fuzzSet(f)
	for _, l := range fuzzLabels(f) {
		r, err := s.Resolve(l, New, now)
		if err != nil {
			f.Fatal(err)
		}
		data, err := r.XML(XMLLabel{Created: now})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(plainXML))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := s.ImportXML(data, now)
		if err != nil {
			return
		}
		everyForm(t, s, x.Label)
	})
}

// FuzzImportESS does the same from BER.
func FuzzImportESS(f *testing.F) {
	s := fuzzSet(f)
	for _, l := range fuzzLabels(f) {
		r, err := s.Resolve(l, New, now)
		if err != nil {
			f.Fatal(err)
		}
		data, err := r.ESS()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(append(append([]byte{0x31, 0x80}, data[2:]...), 0, 0))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := s.ImportESS(data, now)
		if err != nil {
			return
		}
		everyForm(t, s, l)
	})
}

// everyForm writes a valid label in all forms and reads it again.
func everyForm(t *testing.T, s *Set, l *Label) {
	r, err := s.Resolve(l, New, now)
	if err != nil {
		return
	}
	canonical, err := r.Label().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	text, err := r.XML(XMLLabel{Created: now})
	if err != nil {
		t.Fatal(err)
	}
	forms := [][]byte{canonical, text}
	if der, err := r.ESS(); err == nil {
		forms = append(forms, der)
	} else if ReasonOf(err) != ReasonAmbiguousNumber {
		t.Fatal(err)
	}
	for _, form := range forms {
		back, err := s.Import(form, now)
		if err != nil {
			t.Fatalf("%q: %v", form, err)
		}
		again, err := s.Resolve(back, New, now)
		if err != nil || !again.Label().Equal(r.Label()) {
			t.Fatalf("%q came back as %+v, %v", form, back, err)
		}
		if again.Marking("fr") != r.Marking("fr") {
			t.Fatal("another marking")
		}
	}
}

// FuzzParseClearance: what is accepted can be written, and compiles.
func FuzzParseClearance(f *testing.F) {
	s := fuzzSet(f)
	c := issue(f, s, "HIGH", "1/R/A", "1/E/C", "2/Release/X")
	der, err := c.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	text, err := ClearanceXML(c)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add(text)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseClearance(data)
		if err != nil {
			return
		}
		der, err := c.Marshal()
		if err != nil {
			return // from XML: more than a certificate takes
		}
		back, err := ParseClearance(der)
		if err != nil {
			t.Fatalf("%x: %v", der, err)
		}
		if again, err := back.Marshal(); err != nil || !bytes.Equal(again, der) {
			t.Fatalf("%x came back as %x, %v", der, again, err)
		}
		if compiled, err := s.Clearance(c); err == nil {
			compiled.Names()
		}
	})
}

// FuzzParseConstraints: what is accepted is written back as the same bytes.
func FuzzParseConstraints(f *testing.F) {
	s := fuzzSet(f)
	der, err := Constraints{issue(f, s, "HIGH", "1/R/A")}.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseConstraints(data)
		if err != nil {
			return
		}
		if again, err := list.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x was accepted and written back as %x (%v)", data, again, err)
		}
		Intersect(list[0], list[len(list)-1])
	})
}

// FuzzCompile: a SPIF that is read compiles or says why, is written and read
// again, and shows its labels without panic.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(spifText("TEST", testPolicy, 1, levels+tagSets(decided, releases, communities))))
	f.Add([]byte(spifText("TEST", testPolicy, 1, levels+tagSets(ruled, releases))))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := spif.Parse(data)
		if err != nil {
			if spif.ReasonOf(err) == "" {
				t.Fatalf("no reason: %v", err)
			}
			return
		}
		if _, err := spif.Parse(spif.Marshal(d)); err != nil {
			t.Fatalf("written again it is refused: %v\n%s", err, spif.Marshal(d))
		}
		s, err := Compile(d)
		if err != nil {
			return
		}
		id, _ := ParseOID(d.Policy.ID)
		l := &Label{Policy: id, Classification: d.Classifications[0].Name}
		for c := range s.lattices[id].current(now).values {
			if len(l.Categories) < 3 {
				l.Categories = append(l.Categories, c)
			}
		}
		if r, err := s.Resolve(l, Stored, now); err == nil {
			r.Marking("fr")
		}
	})
}
