// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/pem"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"valise/identity"
)

// Every kind is signed, read back and verified, on both curves (spec/statement.md,
// Sections 2 to 5).
func TestSignAndVerify(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		h := newHouse(t, curve)
		for kind, body := range bodies(t) {
			p := h.signer(kind)
			raw := h.sign(p, body)
			s, err := Verify(raw, h.trust(), h.root, noon.Add(time.Minute))
			if err != nil {
				t.Errorf("%s: %v", kind, err)
				continue
			}
			if s.Body.Kind() != kind || !reflect.DeepEqual(s.Body, body) {
				t.Errorf("%s: %+v came back as %+v", kind, body, s.Body)
			}
			if s.Signer.Address != at(t, "olga") || s.Head.Authority != h.root || !s.Head.Time.Equal(noon) || string(s.Raw) != string(raw) {
				t.Errorf("%s: %+v by %+v", kind, s.Head, s.Signer)
			}
			parsed, err := Parse(raw)
			if err != nil || parsed.Signer != nil {
				t.Errorf("%s: parsed %+v, %v", kind, parsed, err)
			}
			text, err := MarshalBody(body)
			must(t, err)
			again, err := ParseBody(kind, text)
			if err != nil || !reflect.DeepEqual(again, body) || BodyDigest(again) != BodyDigest(body) {
				t.Errorf("%s: body %s came back as %+v, %v", kind, text, again, err)
			}
		}
	}
}

// There is one row for each kind that the specification lists, and each body
// names its own.
func TestKinds(t *testing.T) {
	all := bodies(t)
	for _, kind := range Kinds() {
		if b := kinds[kind].body(); b.Kind() != kind || all[kind] == nil {
			t.Errorf("%s makes a %s", kind, b.Kind())
		}
	}
	if len(all) != len(Kinds()) {
		t.Errorf("%d kinds, %d samples", len(Kinds()), len(all))
	}
}

// spec/statement.md, Section 6: how many must sign, and who may.
func TestWhoSigns(t *testing.T) {
	for _, test := range []struct {
		kind  Kind
		needs int // if nothing is raised
		roles string
	}{
		{KindApproval, 2, "officer"},
		{KindRefusal, 1, "officer"},
		{KindSuspension, 1, "officer administrator"},
		{KindResumption, 2, "officer"},
		{KindRevocation, 1, "officer"},
		{KindInvitation, 1, "officer"},
		{KindRoster, 1, "officer"},
		{KindRemoval, 1, "officer"},
		{KindEndorsements, 2, "administrator"},
		{KindAppraisal, 2, "administrator"},
		{KindProfile, 2, "administrator"},
		{KindAppointment, 2, "administrator"},
		{KindDismissal, 1, "administrator"},
		{KindBundle, 2, "officer administrator"},
		{KindSession, 1, "officer administrator auditor"},
		{"strange", 0, ""},
	} {
		var roles []string
		for _, role := range Allowed(test.kind) {
			roles = append(roles, string(role))
		}
		if got := strings.Join(roles, " "); got != test.roles || Needs(test.kind, false) != test.needs {
			t.Errorf("%s: %d of %q, want %d of %q", test.kind, Needs(test.kind, false), got, test.needs, test.roles)
		}
		if test.kind != KindRoster && Needs(test.kind, true) != test.needs {
			t.Errorf("%s: %d when it raises", test.kind, Needs(test.kind, true))
		}
	}
	if Needs(KindRoster, true) != 2 {
		t.Error("one officer raises a clearance alone")
	}
	device, officer := Target{Kind: TargetDevice}, Target{Kind: TargetOfficer}
	for _, test := range []struct {
		role identity.Role
		body Body
		want bool
	}{
		{identity.RoleOfficer, &Suspension{Target: device}, true},
		{identity.RoleOfficer, &Suspension{Target: officer}, true},
		{identity.RoleAdministrator, &Suspension{Target: officer}, true},
		{identity.RoleAdministrator, &Suspension{Target: device}, false},
		{identity.RoleAdministrator, &Resumption{Target: officer}, false},
		{identity.RoleAdministrator, &Approval{}, false},
		{identity.RoleOfficer, &Profile{}, false},
		{identity.RoleAuditor, &Suspension{Target: officer}, false},
		{identity.RoleAuditor, &Session{}, true},
		{"", &Session{}, false},
	} {
		if got := May(test.role, test.body); got != test.want {
			t.Errorf("%s for %s: %v", test.role, test.body.Kind(), got)
		}
	}
}

// A kind that names the person in its body says so, or self-approval would go
// unnoticed.
func TestConcerns(t *testing.T) {
	for kind, body := range bodies(t) {
		v := reflect.ValueOf(body).Elem()
		var want identity.Address
		if f := v.FieldByName("Address"); f.IsValid() {
			want = f.Interface().(identity.Address)
		} else if f := v.FieldByName("Target"); f.IsValid() {
			want = f.Interface().(Target).Address
		}
		if got := Concerns(body); got != want {
			t.Errorf("%s concerns %q, want %q", kind, got, want)
		}
	}
}

// Nothing that is signed is hidden from who signs it, and two bodies that
// differ anywhere are not the same decision.
func TestWordsTellEverything(t *testing.T) {
	one, other := bodies(t), bodies(t)
	for kind := range one {
		for _, path := range fields(reflect.TypeOf(one[kind]).Elem(), nil) {
			a, b := reflect.ValueOf(one[kind]).Elem(), reflect.ValueOf(other[kind]).Elem()
			altered := reflect.New(a.Type())
			altered.Elem().Set(a)
			from, to := b.FieldByIndex(path.Index), altered.Elem().FieldByIndex(path.Index)
			if reflect.DeepEqual(to.Interface(), from.Interface()) {
				switch path.Name { // those that have few values
				case "Role":
					to.SetString("officer")
				case "Tier":
					to.SetString("hardware")
				case "Witnessed":
					to.SetBool(false)
				case "Kind":
					to.SetString(TargetRoot)
				case "Approvals":
					to.SetInt(to.Int() + 1)
				case "Tiers":
					to.Set(reflect.ValueOf([]identity.Tier{identity.TierWitnessed}))
				default:
					if !to.IsZero() {
						t.Fatalf("%s: the samples have the same %s", kind, path.Name)
					}
					continue
				}
			} else {
				to.Set(from)
			}
			// The key stands as its id, and other keys have other ids.
			if path.Name != "CSRKey" && slices.Equal(altered.Interface().(Body).Words(), one[kind].Words()) {
				t.Errorf("%s: the words do not tell %s:\n%s", kind, path.Name, strings.Join(one[kind].Words(), "\n"))
			}
			if digest := BodyDigest(altered.Interface().(Body)); digest == BodyDigest(one[kind]) {
				t.Errorf("%s: another %s has the same digest", kind, path.Name)
			}
		}
		for _, line := range one[kind].Words() {
			if strings.Contains(line, "\n") || line == "" {
				t.Errorf("%s: line %q", kind, line)
			}
		}
	}
}

// fields lists the leaves of a structure of ours.
func fields(t reflect.Type, index []int) (all []reflect.StructField) {
	for i := range t.NumField() {
		f := t.Field(i)
		f.Index = append(slices.Clone(index), i)
		if f.Type == reflect.TypeFor[Target]() || f.Type == reflect.TypeFor[Template]() {
			all = append(all, fields(f.Type, f.Index)...)
		} else {
			all = append(all, f)
		}
	}
	return all
}

// Two kinds with the same members are two decisions.
func TestDigestNamesKind(t *testing.T) {
	target := Target{Kind: TargetDevice, Device: identity.DeviceID{1}}
	id := NewID()
	a, b := BodyDigest(&Suspension{target, "lost", id}), BodyDigest(&Revocation{target, "lost", id})
	if a == b || a == [32]byte{} {
		t.Errorf("%x and %x", a, b)
	}
	if BodyDigest(&Suspension{}) != [32]byte{} || BodyDigest(nil) != [32]byte{} {
		t.Error("a body that nobody can sign has a digest")
	}
}

// DESIGN.md, Section 5: what a renewal may be without new approvals.
func TestTemplateCovers(t *testing.T) {
	approved := bodies(t)[KindApproval].(*Approval).Template
	approved.Tier, approved.Witnessed = identity.TierHardware, false
	if !approved.Covers(approved) {
		t.Fatal("an approval does not cover what it approves")
	}
	if (Template{}).Covers(Template{}) {
		t.Error("an empty approval covers an empty template")
	}
	for name, test := range map[string]struct {
		change func(*Template)
		want   bool
	}{
		"newer evidence":   {func(o *Template) { o.Evidence = [32]byte{9} }, true},
		"another policy":   {func(o *Template) { o.Appraisal = [32]byte{9} }, true},
		"lower clearance":  {func(o *Template) { o.Clearance.ClassList, _ = identity.NewClassList(2) }, true},
		"no clearance":     {func(o *Template) { o.Clearance = nil }, true},
		"higher clearance": {func(o *Template) { o.Clearance.ClassList, _ = identity.NewClassList(2, 4, 5) }, false},
		"another policy's": {func(o *Template) { o.Clearance.PolicyID = append(o.Clearance.PolicyID, 1) }, false},
		"lower tier":       {func(o *Template) { o.Tier = identity.TierWitnessed }, true},
		"unknown tier":     {func(o *Template) { o.Tier = "" }, false},
		"another person":   {func(o *Template) { o.Address = at(t, "bob") }, false},
		"another device":   {func(o *Template) { o.Device[0] ^= 1 }, false},
		"another key":      {func(o *Template) { o.CSRKey = append(slices.Clone(o.CSRKey), 0) }, false},
		"another role":     {func(o *Template) { o.Role = string(identity.RoleOfficer) }, false},
		"another profile":  {func(o *Template) { o.Profile = "gateway" }, false},
		"a newer profile":  {func(o *Template) { o.ProfileVersion++ }, true},
		"an older profile": {func(o *Template) { o.ProfileVersion-- }, false},
		"longer":           {func(o *Template) { o.Validity++ }, false},
		"shorter":          {func(o *Template) { o.Validity-- }, true},
	} {
		o := approved
		c := *approved.Clearance
		c.PolicyID = slices.Clone(c.PolicyID)
		o.Clearance = &c
		test.change(&o)
		if got := approved.Covers(o); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	low := approved
	low.Tier = identity.TierWitnessed
	if low.Covers(approved) {
		t.Error("a witnessed key's approvals cover hardware")
	}
}

func TestTargetAll(t *testing.T) {
	one := identity.DeviceID{1}
	if got := (&Target{Kind: TargetDevice, Device: one}).All(); !slices.Equal(got, []identity.DeviceID{one}) {
		t.Errorf("%v", got)
	}
	if got := (&Target{Kind: TargetPerson, Devices: []identity.DeviceID{one}}).All(); !slices.Equal(got, []identity.DeviceID{one}) {
		t.Errorf("%v", got)
	}
}

// A file of certificates loses its comments and nothing else.
func TestCanonicalPEM(t *testing.T) {
	a, b := vendor(t), vendor(t)
	canonical := slices.Concat(a, b)
	commented := slices.Concat([]byte("# roots\n"), a, []byte("\n  and\n"), b, []byte("end"))
	if got, err := CanonicalPEM(commented); err != nil || string(got) != string(canonical) {
		t.Errorf("%s, %v", got, err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})
	for name, file := range map[string][]byte{"nothing": nil, "no PEM": []byte("hello"), "a key": slices.Concat(a, key), "no certificate": []byte(strings.ReplaceAll(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1, 2}})), "\r", ""))} {
		if got, err := CanonicalPEM(file); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
	body := &Endorsements{Change: NewID(), PEM: commented}
	if _, err := MarshalBody(body); err == nil {
		t.Error("comments that no words tell are signed")
	}
	body.PEM = canonical
	if _, err := MarshalBody(body); err != nil {
		t.Errorf("honest control: %v", err)
	}
	if sha256.Sum256(body.PEM) == sha256.Sum256(commented) {
		t.Error("the control is the same file")
	}
}
