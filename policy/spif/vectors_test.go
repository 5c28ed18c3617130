// SPDX-License-Identifier: Apache-2.0

package spif_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"valise/internal/testenv"
	"valise/policy/spif"
)

// withoutLines clears every field Line, wherever it is.
func withoutLines(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			withoutLines(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			withoutLines(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.Name == "Line" {
				v.Field(i).SetInt(0)
			} else if field.IsExported() {
				withoutLines(v.Field(i))
			}
		}
	}
}

func parse(t *testing.T, data []byte) *spif.Document {
	t.Helper()
	d, err := spif.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	withoutLines(reflect.ValueOf(d))
	return d
}

// published are SPIFs that others wrote.
var published = []string{"uk-demo.xml", "tlp.xml", "tlp-plus.xml"}

// Published SPIFs are read, written again and compared.
func TestVectorsRoundTrip(t *testing.T) {
	for _, name := range published {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(testenv.Vectors(t, "labels", name))
			if err != nil {
				t.Fatal(err)
			}
			first := parse(t, data)
			again := spif.Marshal(first)
			second := parse(t, again)
			if !reflect.DeepEqual(first, second) {
				t.Errorf("written again:\n%s", again)
			}
			if !bytes.Equal(again, spif.Marshal(second)) {
				t.Error("a second writing differs from the first")
			}
			if len(first.TagSets) == 0 || len(first.Classifications) < 3 || len(first.EquivalentPolicies) == 0 {
				t.Errorf("read too little: %+v", first)
			}
		})
	}
}

// xmlLang declares the one attribute that SPIFs take from the xml namespace,
// since the schema imports a file that is not beside it.
const xmlLang = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="http://www.w3.org/XML/1998/namespace">
<xs:attribute name="lang" type="xs:language"/></xs:schema>`

// What Marshal writes is valid against the published schema, and what Parse
// reads out of order is put in order.
func TestVectorsSchema(t *testing.T) {
	xmllint := testenv.Need(t, "xmllint", "libxml2-utils")
	schema, err := os.ReadFile(testenv.Vectors(t, "labels", "xmlspif.xsd"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	xsd := write("xmlspif.xsd", schema)
	write("xml.xsd", []byte(xmlLang))
	lint := func(path string) ([]byte, error) {
		return exec.Command(xmllint, "--nonet", "--noout", "--schema", xsd, path).CombinedOutput()
	}
	root := testenv.Root(t)
	for _, name := range []string{
		testenv.Vectors(t, "labels", "uk-demo.xml"), filepath.Join(root, "policies/france.xml"),
		filepath.Join(root, "policies/tlp.xml"), filepath.Join(root, "policies/coalition.xml"),
	} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := lint(write("out.xml", spif.Marshal(parse(t, data)))); err != nil {
			t.Errorf("%s written again: %v\n%s", name, err, out)
		}
	}
	// The control: the published file itself has its elements out of order.
	if out, err := lint(testenv.Vectors(t, "labels", "uk-demo.xml")); err == nil {
		t.Errorf("xmllint accepts elements out of order: it checks nothing\n%s", out)
	}
}
