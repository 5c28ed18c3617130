// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"valise/enroll/enrolltest"
	"valise/identity"
)

const plan = `name   = "Founding of interieur.example"
date   = "2026-11-22"
domain = "interieur.example"

[tokens]
root    = "valise-root"
issuing = "valise"

[[officers]]
address     = "olga@interieur.example"
role        = "officer"
application = "olga.json"

[[officers]]
address     = "omar@interieur.example"
role        = "officer"
application = "omar.json"
`

func TestPlanDefaults(t *testing.T) {
	p, err := ParsePlan([]byte(plan))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Profiles) != 1 || p.Hash != sha256.Sum256([]byte(plan)) || !p.Endorsements.UseBuiltIn() {
		t.Errorf("plan = %+v", p)
	}
	f := p.Profiles[0]
	if f.Name != DeviceProfile || f.Version != 1 || f.Approvals != 2 || f.Validity != 168*time.Hour || f.Grace != 720*time.Hour ||
		len(f.Tiers) != 1 || f.Tiers[0] != identity.TierHardware {
		t.Errorf("profile = %+v", f)
	}
	if p.Officers[1].Address.String() != "omar@interieur.example" || p.Occasion() != Founding("Founding of interieur.example") {
		t.Errorf("officers = %+v", p.Officers)
	}
	if err := checkOfficerPolicy(&p.OfficerAppraisal); err != nil {
		t.Error(err)
	}
}

func TestPlanIsRefused(t *testing.T) {
	officer := func(who, role string) string {
		return "\n[[officers]]\naddress = \"" + who + "@interieur.example\"\nrole = \"" + role + "\"\napplication = \"f\"\n"
	}
	replace := func(old, new string) string {
		if !strings.Contains(plan, old) {
			t.Fatalf("nothing to replace: %s", old)
		}
		return strings.Replace(plan, old, new, 1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"no TOML":               {"name", "line 1"},
		"unknown key":           {"nam = 1\n" + plan, "unknown key"},
		"not UTF-8":             {plan + "# \xff", "UTF-8"},
		"too long":              {plan + "#" + strings.Repeat("x", MaxPlanSize), "at most"},
		"no name":               {replace(`"Founding of interieur.example"`, `""`), "name"},
		"date":                  {replace("2026-11-22", "22.11.2026"), "date"},
		"domain":                {replace(`domain = "i`, `domain = "I`), "domain"},
		"no token":              {replace(`root    = "valise-root"`, ``), "tokens.root"},
		"one officer":           {replace(`role        = "officer"`, `role = "auditor"`), "at least 2"},
		"one administrator":     {plan + officer("ada", "administrator"), "administrator"},
		"two roles":             {plan + officer("olga", "auditor"), "twice"},
		"unknown role":          {plan + officer("ada", "chief"), "role"},
		"outside":               {replace("olga@interieur", "olga@exterieur"), "outside"},
		"no application":        {replace(`"olga.json"`, `""`), "application"},
		"one approval":          {plan + "[[profiles]]\nname = \"device\"\napprovals = 1\n", "nobody alone"},
		"no device profile":     {plan + "[[profiles]]\nname = \"other\"\n", `no profile "device"`},
		"profile's name":        {plan + "[[profiles]]\nname = \"Device\"\n", "a-z"},
		"profile twice":         {plan + strings.Repeat("[[profiles]]\nname = \"device\"\n", 2), "twice"},
		"long validity":         {plan + "[[profiles]]\nname = \"device\"\nvalidity = \"20000h\"\n", "validity"},
		"short validity":        {plan + "[[profiles]]\nname = \"device\"\nvalidity = \"1ns\"\n", "validity"},
		"negative grace":        {plan + "[[profiles]]\nname = \"device\"\ngrace = \"-1h\"\n", "grace"},
		"unknown tier":          {plan + "[[profiles]]\nname = \"device\"\ntiers = [\"gold\"]\n", "tiers"},
		"no endorsements":       {plan + "[endorsements]\nbuilt-in = false\n", "nobody can enroll"},
		"appraisal":             {plan + "[appraisal]\nslots = [\"f9\"]\n", "slots"},
		"officers' PIN":         {plan + "[officer-appraisal]\npin_policies = [\"once\"]\n", "every time"},
		"unknown appraisal key": {plan + "[officer-appraisal]\nslot = \"9c\"\n", "unknown key"},
	} {
		if _, err := ParsePlan([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	two := plan + officer("ada", "administrator") + officer("alan", "administrator") + officer("aude", "auditor") // control
	if p, err := ParsePlan([]byte(two)); err != nil || len(p.Officers) != 5 {
		t.Errorf("two administrators and an auditor: %v", err)
	}
}

func TestPlanIsForItsDay(t *testing.T) {
	p, err := ParsePlan([]byte(plan))
	if err != nil {
		t.Fatal(err)
	}
	for day, ok := range map[int]bool{20: false, 21: true, 22: true, 23: true, 24: false} {
		if err := p.Today(time.Date(2026, 11, day, 12, 0, 0, 0, time.UTC)); (err == nil) != ok {
			t.Errorf("on the %d: %v", day, err)
		}
	}
}

func TestApplicationsFitThePlan(t *testing.T) {
	p, err := ParsePlan([]byte(plan))
	if err != nil {
		t.Fatal(err)
	}
	v := enrolltest.NewVendor(t)
	a := application(t, officerCard(t, v, nil))
	if err := p.Officers[0].Match(a); err != nil {
		t.Error(err)
	}
	if err := p.Officers[1].Match(a); err == nil {
		t.Error("olga's application was taken for omar's")
	}
	b := *a
	b.Role = identity.RoleAuditor
	if err := p.Officers[0].Match(&b); err == nil {
		t.Error("an auditor's application was taken for an officer's")
	}
	if err := DistinctKeys([]*Application{a, application(t, officerCard(t, v, nil))}); err != nil {
		t.Error(err)
	}
	b.Address = p.Officers[1].Address
	if err := DistinctKeys([]*Application{a, &b}); err == nil {
		t.Error("two people with one key")
	}
}

func TestRecordIsSealedByItsHash(t *testing.T) {
	p, err := ParsePlan([]byte(plan))
	if err != nil {
		t.Fatal(err)
	}
	r := &Record{
		Plan: p, Time: now, Root: [32]byte{1}, Founding: [32]byte{2}, LedgerSize: 4, Endorsements: "v",
		Tokens:   []RecordToken{{Label: "valise", Serial: "17", Keys: []RecordKey{{Use: "root", Label: "valise-root", Algorithm: "P-384", SPKI: [32]byte{3}}}}},
		Officers: []RecordOfficer{{Address: p.Officers[0].Address, Role: identity.RoleOfficer, Key: identity.DeviceID{4}, Until: now}},
	}
	text := r.Text()
	sum, err := CheckRecord(text)
	if err != nil || len(sum) != 64 {
		t.Fatalf("%q, %v\n%s", sum, err, text)
	}
	for _, want := range []string{"Founding of interieur.example", "0100000000", "0200000000", "0300000000", "0400000000", "olga@interieur.example, officer", "2 approvals"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in it:\n%s", want, text)
		}
	}
	for name, bad := range map[string][]byte{
		"a role":      bytes.Replace(text, []byte("officer"), []byte("auditor"), 1),
		"a line more": append(bytes.Clone(text), "and more\n"...),
		"no hash":     text[:len(text)-80],
		"nothing":     nil,
	} {
		if _, err := CheckRecord(bad); err == nil {
			t.Errorf("%s: the change was not seen", name)
		}
	}
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte(plan))
	f.Add([]byte(plan + "[[profiles]]\nname = \"device\"\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePlan(data)
		if err != nil {
			return
		}
		if len(p.Officers) < minOfficers || p.Profiles[0].Approvals < minOfficers {
			t.Errorf("accepted: %+v", p)
		}
	})
}
