// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"valise/identity"
	"valise/policy"
	"valise/policy/rules"
	"valise/policy/spif"
)

func compile(t testing.TB, text string) *rules.Rules {
	t.Helper()
	r, err := rules.Compile([]byte(text), rules.Schema)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func address(t testing.TB, s string) identity.Address {
	t.Helper()
	a, err := identity.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// tlp is the Traffic Light Protocol as a policy, from policies/.
func tlp(t testing.TB) *policy.Set {
	t.Helper()
	doc, err := spif.Parse(readFile(t, "../../policies/tlp.xml"))
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// request is one that no rule below is about.
func request(t testing.TB) *rules.Request {
	return &rules.Request{
		Action: rules.Send, Precedence: "routine", Members: 2,
		Sender:    rules.Device{ID: identity.DeviceID{1}, Address: address(t, "alice@interieur.example"), Tier: identity.TierHardware},
		Recipient: rules.Device{ID: identity.DeviceID{2}, Address: address(t, "bob@interieur.example"), Tier: identity.TierHardware},
		Label:     &policy.Label{Policy: oid(t, "1.2.3"), Classification: "SECRET", Categories: []policy.Category{{Set: oid(t, "1.2.3.1"), Tag: "Release", Name: "FRA"}}},
	}
}

const witnessed = `@id("no-secret-to-witnessed")
forbid (principal, action == Action::"send", resource)
when { context has label && context.label.classification == "SECRET" && resource.tier == "witnessed" };
`

// Each rule refuses a request that differs from one it lets through in one
// property.
func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		change func(q *rules.Request)
	}{
		"tier of the recipient": {witnessed, func(q *rules.Request) { q.Recipient.Tier = identity.TierWitnessed }},
		"domain": {
			`@id("own-domain") forbid (principal, action, resource) when { principal.domain != resource.domain };`,
			func(q *rules.Request) { q.Recipient.Address = address(t, "eve@elsewhere.example") },
		},
		"precedence": {
			`@id("no-flash") forbid (principal, action == Action::"send", resource) when { context.precedence == "flash" };`,
			func(q *rules.Request) { q.Precedence = "flash" },
		},
		"category": {
			`@id("no-fra") forbid (principal, action, resource) when { context has label && context.label.categories.contains("1.2.3.1/Release/DEU") };`,
			func(q *rules.Request) {
				q.Label.Categories = append(q.Label.Categories, policy.Category{Set: oid(t, "1.2.3.1"), Tag: "Release", Name: "DEU"})
			},
		},
		"unlabelled": {
			`@id("label-all") forbid (principal, action == Action::"send", resource) unless { context has label };`,
			func(q *rules.Request) { q.Label = nil },
		},
		"members": {`@id("small") forbid (principal, action, resource) when { context.members > 10 };`, func(q *rules.Request) { q.Members = 11 }},
		"action":  {`@id("no-join") forbid (principal, action == Action::"join", resource);`, func(q *rules.Request) { q.Action = rules.Join }},
	} {
		t.Run(name, func(t *testing.T) {
			r, q := compile(t, c.text), request(t)
			if v := r.Decide(q); !v.Granted {
				t.Fatalf("the control is refused: %+v", v)
			}
			c.change(q)
			if v := r.Decide(q); v.Granted || v.Reason != rules.ReasonRule || !slices.Equal(v.Rules, r.Names()) {
				t.Errorf("got %+v", v)
			}
		})
	}
}

// A rule sees what a device's effective clearance holds.
func TestDecideClearance(t *testing.T) {
	set := tlp(t)
	green, err := set.Issue(policy.Grant{Policy: tlpID(t), UpTo: "GREEN"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cleared, err := set.Clearance(green)
	if err != nil {
		t.Fatal(err)
	}
	r := compile(t, `@id("not-green") forbid (principal, action, resource) when { resource has clearance && resource.clearance.classes.contains("GREEN") };`)
	q := request(t)
	if v := r.Decide(q); !v.Granted {
		t.Fatalf("the control is refused: %+v", v)
	}
	q.Recipient.Clearance = cleared
	if v := r.Decide(q); v.Granted {
		t.Error("the clearance was not seen")
	}
}

// Cedar passes over a rule that fails; here it denies. The validator keeps rules
// that may fail out, all but arithmetic that overflows.
func TestErrorsDeny(t *testing.T) {
	r := compile(t, `@id("overflow") forbid (principal, action, resource) when { context.members * 4611686018427387904 * 4 > 10 };`)
	q := request(t)
	q.Members = 0
	if v := r.Decide(q); !v.Granted {
		t.Fatalf("the control is refused: %+v", v)
	}
	q.Members = 3
	if v := r.Decide(q); v.Granted || v.Reason != rules.ReasonRuleError || !slices.Equal(v.Rules, []string{"overflow"}) {
		t.Errorf("got %+v", v)
	}
}

// A request that the schema does not know is denied, whatever the rules say.
func TestRequestsAreValidated(t *testing.T) {
	q := request(t)
	r := compile(t, "")
	if v := r.Decide(q); !v.Granted {
		t.Fatalf("the control is refused: %+v", v)
	}
	q.Action = "erase"
	if v := r.Decide(q); v.Granted || v.Reason != rules.ReasonRequest {
		t.Errorf("got %+v", v)
	}
}

func TestCompileRefuses(t *testing.T) {
	compile(t, witnessed) // the control
	for name, c := range map[string]struct{ text, want string }{
		"a permit":             {strings.Replace(witnessed, "forbid", "permit", 1), "permit is not allowed"},
		"no name":              {strings.SplitAfterN(witnessed, "\n", 2)[1], "needs a name"},
		"a bad name":           {strings.Replace(witnessed, "no-secret-to-witnessed", "No Secret", 1), "needs a name"},
		"a name twice":         {witnessed + witnessed, "two rules"},
		"an unknown attribute": {strings.Replace(witnessed, "resource.tier", "resource.colour", 1), "colour"},
		"an unknown action":    {strings.Replace(witnessed, `"send"`, `"destroy"`, 1), "destroy"},
		"an unguarded label":   {strings.Replace(witnessed, "context has label && ", "", 1), "label"},
		"another type":         {strings.Replace(witnessed, `== "witnessed"`, "== 3", 1), "rule 1"},
		"no syntax":            {"forbid everything", "parse"},
		"deep nesting":         {`@id("x") forbid (principal, action, resource) when { ` + strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100) + " };", "nested"},
		"deep negation":        {`@id("x") forbid (principal, action, resource) when { ` + strings.Repeat("! ", 100) + "true };", "nested"},
		"a large file":         {strings.Repeat("\n", rules.MaxText+1), "bytes"},
		"many rules": {func() string {
			var b strings.Builder
			for i := range rules.MaxRules + 1 {
				b.WriteString(`@id("r` + string(rune('a'+i%26)) + strings.Repeat("x", i/26) + `") forbid (principal, action, resource);` + "\n")
			}
			return b.String()
		}(), "rules, at most"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := rules.Compile([]byte(c.text), rules.Schema); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, err := rules.Compile(nil, append(slices.Clone(rules.Schema), '\n')); !errors.Is(err, rules.ErrSchema) {
		t.Errorf("another schema: %v", err)
	}
}

// Two categories never share a name.
func TestCategoryName(t *testing.T) {
	set := oid(t, "1.2.3")
	a := rules.CategoryName(policy.Category{Set: set, Tag: "a/b", Name: "c"})
	b := rules.CategoryName(policy.Category{Set: set, Tag: "a", Name: "b/c"})
	c := rules.CategoryName(policy.Category{Set: set, Tag: "a%2Fb", Name: "c"})
	if a == b || a == c || b == c {
		t.Errorf("%q, %q, %q", a, b, c)
	}
}

// Whatever compiles decides without a panic, and never widens: with rules,
// nothing is granted that the empty file refuses.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(witnessed))
	f.Add([]byte(`@id("a") forbid (principal == Device::"x", action in [Action::"send"], resource is Device) unless { resource.tier like "hard*" };`))
	f.Add([]byte(`@id("a") forbid (principal, action, resource) when { if context.members < 3 then true else -context.members == 4 };`))
	q := request(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := rules.Compile(text, rules.Schema)
		if err != nil {
			return
		}
		if v := r.Decide(q); v.Granted == (v.Reason != "") {
			t.Errorf("got %+v", v)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	r, q := compile(b, witnessed), request(b)
	b.ReportAllocs()
	for b.Loop() {
		if !r.Decide(q).Granted {
			b.Fatal("refused")
		}
	}
}

func tlpID(t testing.TB) policy.OID {
	t.Helper()
	doc, err := spif.Parse(readFile(t, "../../policies/tlp.xml"))
	if err != nil {
		t.Fatal(err)
	}
	return oid(t, doc.Policy.ID)
}

func oid(t testing.TB, dotted string) policy.OID {
	t.Helper()
	id, err := policy.ParseOID(dotted)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
