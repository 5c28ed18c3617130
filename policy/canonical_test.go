// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write spec/vectors/label.json anew")

// samples are labels in every shape that the encoding has.
func samples(t testing.TB) map[string]*Label {
	plain := label(t, "LOW")
	plain.Edition = 1
	marked := label(t, "TRÈS SECRET")
	marked.Edition, marked.Mark = 70_000, "MÉDICAL"
	four := label(t, "HIGH", "2/Release/Y", "1/Codeword/A", "2/Release/X", "1/Other/A")
	four.Edition = 3
	return map[string]*Label{"plain": plain, "privacy-mark": marked, "four-categories": four}
}

// The published vectors are what this code writes, and read back to the same.
func TestSpecVectors(t *testing.T) {
	path := filepath.Join("..", "spec", "vectors", "label.json")
	have := make(map[string]string)
	for name, l := range samples(t) {
		data, err := l.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		have[name] = hex.EncodeToString(data)
		back, err := ParseLabel(data)
		if err != nil || !back.Equal(l) || !slices.IsSortedFunc(back.Categories, compareCategories) {
			t.Errorf("%s came back as %+v, %v", name, back, err)
		}
	}
	if *update {
		data, _ := json.MarshalIndent(have, "", "  ")
		if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]string
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	if len(want) != len(have) {
		t.Errorf("%d vectors, %d samples", len(want), len(have))
	}
	for name := range have {
		if have[name] != want[name] {
			t.Errorf("%s: %s, published %s", name, have[name], want[name])
		}
	}
}

// spec/label.md, Section 3: one label, one encoding.
func TestParseLabelRefuses(t *testing.T) {
	tag := func(set, name string, values ...string) string {
		var names string
		for _, v := range values {
			names += string(rune(len(v))) + v
		}
		return "\x02" + set + string(rune(len(name))) + name + "\x00" + string(rune(len(names))) + names
	}
	whole := func(edition, class string, tags ...string) []byte {
		list := strings.Join(tags, "")
		return []byte("\x01\x02\x2a\x03" + edition + string(rune(len(class))) + class + "\x00\x00" + string(rune(len(list))) + list)
	}
	const first = "\x00\x00\x00\x01"
	honest := whole(first, "LOW", tag("\x2a\x04", "T", "A", "B"), tag("\x2a\x04", "U", "A"), tag("\x2a\x05", "T", "A"))
	if l, err := ParseLabel(honest); err != nil || len(l.Categories) != 4 {
		t.Fatalf("control: %+v, %v", l, err)
	}
	for name, data := range map[string][]byte{
		"empty":              {},
		"another version":    append([]byte{2}, honest[1:]...),
		"edition 0":          whole("\x00\x00\x00\x00", "LOW"),
		"no classification":  whole(first, ""),
		"names out of order": whole(first, "LOW", tag("\x2a\x04", "T", "B", "A")),
		"a name twice":       whole(first, "LOW", tag("\x2a\x04", "T", "A", "A")),
		"no names":           whole(first, "LOW", tag("\x2a\x04", "T")),
		"tags out of order":  whole(first, "LOW", tag("\x2a\x04", "U", "A"), tag("\x2a\x04", "T", "A")),
		"sets out of order":  whole(first, "LOW", tag("\x2a\x05", "T", "A"), tag("\x2a\x04", "T", "A")),
		"a tag cut in two":   whole(first, "LOW", tag("\x2a\x04", "T", "A"), tag("\x2a\x04", "T", "B")),
		"padded arc":         whole(first, "LOW", strings.Replace(tag("\x2a\x04", "T", "A"), "\x02\x2a\x04", "\x03\x2a\x80\x04", 1)),
		"trailing octet":     append(bytes.Clone(honest), 0),
		"cut":                honest[:len(honest)-1],
		"too long":           append(bytes.Clone(honest), make([]byte, MaxCanonical)...),
	} {
		if l, err := ParseLabel(data); err == nil {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

// What the encoding cannot carry is not written.
func TestMarshalRefuses(t *testing.T) {
	for name, edit := range map[string]func(*Label){
		"no edition":        func(l *Label) { l.Edition = 0 },
		"no policy":         func(l *Label) { l.Policy = "" },
		"no classification": func(l *Label) { l.Classification = "" },
		"long name":         func(l *Label) { l.Classification = strings.Repeat("x", 256) },
		"long mark":         func(l *Label) { l.Mark = strings.Repeat("x", 256) },
		"nameless category": func(l *Label) { l.Categories[0].Name = "" },
		"no tag set":        func(l *Label) { l.Categories[0].Set = "" },
		"many categories":   func(l *Label) { l.Categories = make([]Category, MaxLabelCategories+1) },
	} {
		l := label(t, "LOW", "1/T/A")
		l.Edition = 1
		if _, err := l.Marshal(); err != nil {
			t.Fatal(err)
		}
		edit(l)
		if data, err := l.Marshal(); err == nil {
			t.Errorf("%s: %x", name, data)
		}
	}
}

func TestOID(t *testing.T) {
	for _, dotted := range []string{"1.2.3", "2.999.3", "2.25.329800735698586629295641978511506172918", testPolicy} {
		id, err := ParseOID(dotted)
		if err != nil || id.String() != dotted || !id.valid() {
			t.Errorf("%s: %x, %v", dotted, string(id), err)
		}
	}
	for _, dotted := range []string{"", "1", "3.1.2", "1.40.1", "1.2.", "1..2", "x", strings.Repeat("1.", 80) + "1"} {
		if id, err := ParseOID(dotted); err == nil {
			t.Errorf("%q: %x", dotted, string(id))
		}
	}
	for _, id := range []OID{"", "\x80\x01", "\x2a\x80\x01", "\x2a\x81", OID(bytes.Repeat([]byte{1}, 65))} {
		if id.valid() {
			t.Errorf("%x is valid", string(id))
		}
	}
}
