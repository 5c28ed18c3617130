// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"reflect"
	"slices"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	data, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// RFC 5755, Section 4.4.6, byte by byte: { 1.2.3, {restricted, secret} }.
func TestClearanceBytes(t *testing.T) {
	list, err := NewClassList(4, 2)
	if err != nil {
		t.Fatal(err)
	}
	c := &Clearance{PolicyID: asn1.ObjectIdentifier{1, 2, 3}, ClassList: list}
	der, err := c.Marshal()
	if want := "3008" + "06022a03" + "03020328"; err != nil || hex.EncodeToString(der) != want {
		t.Errorf("%x, %v, want %s", der, err, want)
	}
	// The default class list is left out.
	if c.ClassList, err = NewClassList(1); err != nil {
		t.Fatal(err)
	}
	der, err = c.Marshal()
	if want := "3004" + "06022a03"; err != nil || hex.EncodeToString(der) != want {
		t.Errorf("%x, %v, want %s", der, err, want)
	}
	back, err := ParseClearance(der)
	if err != nil || !slices.Equal(back.Classes(), []int{1}) {
		t.Errorf("%+v, %v", back, err)
	}
	// A category: [0] IMPLICIT type, [1] EXPLICIT value.
	c.Categories = []SecurityCategory{{Type: asn1.ObjectIdentifier{1, 2, 4}, Value: []byte{2, 1, 7}}}
	der, err = c.Marshal()
	if want := "3011" + "06022a03" + "310b" + "3009" + "80022a04" + "a103020107"; err != nil || hex.EncodeToString(der) != want {
		t.Errorf("%x, %v, want %s", der, err, want)
	}
}

func TestClearanceRoundTrip(t *testing.T) {
	c := clearance(t)
	der, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseClearance(der)
	if err != nil || !reflect.DeepEqual(back, c) {
		t.Errorf("%+v comes back as %+v, %v", c, back, err)
	}
	slices.Reverse(c.Categories)
	if again, err := c.Marshal(); err != nil || !bytes.Equal(again, der) {
		t.Errorf("the order of categories changes the encoding: %x, %v", again, err)
	}
}

func TestClearanceRefuses(t *testing.T) {
	for name, s := range map[string]string{
		"empty":                "",
		"no policy":            "3000",
		"trailing":             "300406022a0300",
		"default written out":  "3008" + "06022a03" + "03020640",
		"trailing zero bits":   "3008" + "06022a03" + "03020028",
		"padding bits set":     "3008" + "06022a03" + "0302032f",
		"category unsorted":    "301c" + "06022a03" + "3116" + "3009" + "80022a05" + "a103020107" + "3009" + "80022a04" + "a103020107",
		"category twice":       "301c" + "06022a03" + "3116" + "3009" + "80022a04" + "a103020107" + "3009" + "80022a04" + "a103020107",
		"empty set":            "3006" + "06022a03" + "3100",
		"two values":           "3014" + "06022a03" + "310e" + "300c" + "80022a04" + "a106020107020108",
		"no value":             "300e" + "06022a03" + "3108" + "3006" + "80022a04" + "a100",
		"something behind":     "3007" + "06022a03" + "020107",
		"indefinite length":    "308006022a030000",
		"class beyond the end": "302a" + "06022a03" + "0322" + "07" + "80" + "00000000000000000000000000000000" + "00000000000000000000000000000000" + "80",
	} {
		if c, err := ParseClearance(unhex(t, s)); err == nil {
			t.Errorf("%s: accepted as %+v", name, c)
		}
	}
	if _, err := ParseClearance(unhex(t, "3008"+"06022a03"+"03020328")); err != nil {
		t.Errorf("honest control: %v", err)
	}
	if _, err := ParseClearance(make([]byte, maxClearanceSize+1)); err == nil {
		t.Error("beyond the bound: no error")
	}
	many := clearance(t)
	for i := range maxCategories + 1 {
		many.Categories = append(many.Categories, SecurityCategory{asn1.ObjectIdentifier{1, 2, i}, []byte{5, 0}})
	}
	if _, err := many.Marshal(); err == nil {
		t.Error("too many categories: no error")
	}
	for _, class := range []int{-1, maxClassBit + 1} {
		if _, err := NewClassList(class); err == nil {
			t.Errorf("class %d: no error", class)
		}
	}
}

func TestAppraisalRoundTrip(t *testing.T) {
	for _, a := range []Appraisal{
		{TierHardware, [32]byte{1}, [32]byte{31: 2}},
		{Tier: TierWitnessed},
		{Tier: TierWitnessed, PolicyHash: [32]byte{9}},
	} {
		der, err := a.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseAppraisal(der); err != nil || back != a {
			t.Errorf("%+v comes back as %+v, %v", a, back, err)
		}
	}
	der, err := Appraisal{Tier: TierWitnessed}.Marshal()
	if want := "300a" + "020101" + "0a0102" + "0400" + "0400"; err != nil || hex.EncodeToString(der) != want {
		t.Errorf("%x, %v, want %s", der, err, want)
	}
}

func TestAppraisalRefuses(t *testing.T) {
	hash := "0420" + "01" + "00000000000000000000000000000000000000000000000000000000000000"
	zero := "0420" + "00" + "00000000000000000000000000000000000000000000000000000000000000"
	for name, s := range map[string]string{
		"empty":             "",
		"empty sequence":    "3000",
		"version 2":         "300a" + "020102" + "0a0102" + "0400" + "0400",
		"tier 3":            "300a" + "020101" + "0a0103" + "0400" + "0400",
		"tier 0":            "300a" + "020101" + "0a0100" + "0400" + "0400",
		"hardware, nothing": "300a" + "020101" + "0a0101" + "0400" + "0400",
		"hardware, half":    "302a" + "020101" + "0a0101" + hash + "0400",
		"zero written out":  "302a" + "020101" + "0a0102" + zero + "0400",
		"short hash":        "300b" + "020101" + "0a0102" + "040101" + "0400",
		"trailing":          "300a" + "020101" + "0a0102" + "0400" + "0400" + "00",
		"more in it":        "300c" + "020101" + "0a0102" + "0400" + "0400" + "0500",
		"long form":         "30810a" + "020101" + "0a0102" + "0400" + "0400",
	} {
		if a, err := ParseAppraisal(unhex(t, s)); err == nil || a != (Appraisal{}) && a.Tier == TierHardware {
			t.Errorf("%s: accepted as %+v", name, a)
		}
	}
	if _, err := ParseAppraisal(unhex(t, "304a"+"020101"+"0a0101"+hash+hash)); err != nil {
		t.Errorf("honest control: %v", err)
	}
}

func FuzzClearance(f *testing.F) {
	der, err := clearance(f).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add([]byte{0x30, 0x04, 0x06, 0x02, 0x2a, 0x03})
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseClearance(data)
		if err != nil {
			return
		}
		again, err := c.Marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%x comes back as %x, %v", data, again, err)
		}
		if wrapped, err := marshalDirectoryAttributes(c); err != nil {
			t.Error(err)
		} else if back, err := parseDirectoryAttributes(wrapped); err != nil || !reflect.DeepEqual(back, c) {
			t.Errorf("in the extension it comes back as %+v, %v", back, err)
		}
	})
}

func FuzzAppraisal(f *testing.F) {
	for _, a := range []Appraisal{{TierHardware, [32]byte{1}, [32]byte{2}}, {Tier: TierWitnessed}} {
		der, err := a.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ParseAppraisal(data)
		if err != nil {
			return
		}
		if again, err := a.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%x comes back as %x, %v", data, again, err)
		}
	})
}

func FuzzDirectoryAttributes(f *testing.F) {
	der, err := marshalDirectoryAttributes(clearance(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseDirectoryAttributes(data)
		if err != nil {
			return
		}
		if again, err := marshalDirectoryAttributes(c); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%x comes back as %x, %v", data, again, err)
		}
	})
}
