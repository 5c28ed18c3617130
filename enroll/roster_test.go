// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"valise/identity"
)

const testDomain = "interieur.example"

func TestReadRoster(t *testing.T) {
	const header = "address,name,unit,clearance\n"
	people, err := ReadRoster(strings.NewReader("\ufeff"+header+
		"alice@interieur.example,\"Alice, Comtesse\",Cabinet,1.3.6.1.4.1.99999.1:unclassified+secret\r\n"+
		"bob@interieur.example,Bob,,1.2.3:7\n"), testDomain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(people) != 2 || people[0].Name != "Alice, Comtesse" || people[1].Unit != "" {
		t.Errorf("got %+v", people)
	}
	for i, want := range []string{"1.3.6.1.4.1.99999.1:unclassified+secret", "1.2.3:7"} {
		if got := ClearanceText(people[i].Clearance); got != want {
			t.Errorf("clearance %q, want %q", got, want)
		}
	}
	for name, c := range map[string]struct{ csv, want string }{
		"no header":      {"alice@interieur.example,Alice,,\n", "line 1: want the header"},
		"other header":   {"address,name,clearance,unit\n", "line 1: want the header"},
		"empty":          {"", "line 1: want the header"},
		"columns":        {header + "alice@interieur.example,Alice\n", "line 2"},
		"upper case":     {header + "Alice@interieur.example,Alice,,\n", "line 2"},
		"another domain": {header + "\n\nalice@finances.example,Alice,,\n", "line 4: alice@finances.example is outside"},
		"twice":          {header + "a@interieur.example,A,,\nb@interieur.example,B,,\na@interieur.example,A,,\n", "line 4: a@interieur.example stands in line 2"},
		"no name":        {header + "a@interieur.example,,,\n", "line 2: a@interieur.example has no name"},
		"spaces":         {header + "a@interieur.example, A,,\n", "line 2: name"},
		"escape codes":   {header + "a@interieur.example,A\x1b[2J,,\n", "line 2: name"},
		"two lines":      {header + "a@interieur.example,\"A\nB\",,\n", "line 2: name"},
		"not UTF-8":      {header + "a@interieur.example,A\xff,,\n", "line 2: name"},
		"long":           {header + "a@interieur.example,A," + strings.Repeat("x", 201) + ",\n", "line 2: unit"},
		"bad quote":      {header + "a@interieur.example,\"A\"B,,\n", "line 2"},
		"no class":       {header + "a@interieur.example,A,,1.2.3\n", "line 2: clearance"},
		"bad class":      {header + "a@interieur.example,A,,1.2.3:cosmic\n", "line 2: clearance: \"cosmic\""},
		"class twice":    {header + "a@interieur.example,A,,1.2.3:secret+4\n", "line 2: clearance: \"4\" stands twice"},
		"bad policy":     {header + "a@interieur.example,A,,1.02.3:4\n", "line 2: clearance"},
		"no policy":      {header + "a@interieur.example,A,,9.2.3:4\n", "line 2: clearance"},
		"too large":      {header + strings.Repeat("\n", maxRosterBytes), "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ReadRoster(strings.NewReader(c.csv), testDomain, time.Now()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzReadRoster(f *testing.F) {
	f.Add([]byte("address,name,unit,clearance\na@interieur.example,A,,1.2.3:secret\n"))
	f.Fuzz(func(t *testing.T, csv []byte) {
		people, err := ReadRoster(bytes.NewReader(csv), testDomain, time.Now())
		if err != nil {
			return
		}
		for _, p := range people {
			if p.Address.Domain() != testDomain || p.Name == "" {
				t.Errorf("accepted %+v", p)
			}
			if again, err := ParseClearanceText(ClearanceText(p.Clearance)); err != nil || ClearanceText(again) != ClearanceText(p.Clearance) {
				t.Errorf("clearance %q: %v", ClearanceText(p.Clearance), err)
			}
		}
	})
}

// A subjectAltName that is accepted holds nothing but this person and this device.
func FuzzAltName(f *testing.F) {
	address, err := identity.ParseAddress("alice@interieur.example")
	if err != nil {
		f.Fatal(err)
	}
	device := identity.DeviceID{1, 2, 3}
	f.Add([]byte{0x30, 0})
	f.Add(append([]byte{0x30, 25, 0x81, 23}, "alice@interieur.example"...))
	f.Add(append([]byte{0x30, 25, 0x82, 23}, "alice@interieur.example"...))
	f.Fuzz(func(t *testing.T, der []byte) {
		if checkAltName(der, address, device) != nil {
			return
		}
		rest := bytes.ReplaceAll(der, []byte(address.String()), nil)
		rest = bytes.ReplaceAll(rest, []byte(device.URL().String()), nil)
		rest = bytes.ReplaceAll(rest, []byte(device.String()), nil)
		if bytes.Contains(rest, []byte("@")) || bytes.Contains(rest, []byte(".example")) {
			t.Errorf("accepted %x", der)
		}
	})
}
