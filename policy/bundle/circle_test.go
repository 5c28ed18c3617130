// SPDX-License-Identifier: Apache-2.0

package bundle_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"valise/identity"
	"valise/internal/figure"
	"valise/internal/testenv/paper"
	"valise/policy"
	"valise/policy/bundle"
	"valise/policy/rules"
)

// coalition has permissive and restrictive tags.
func coalition(t testing.TB, ruleText string, table bundle.Domains) (*paper.Doctrine, *bundle.Bundle) {
	t.Helper()
	d := paper.NewDoctrine(t, "coalition")
	if table.Domains == nil {
		table.Domains = []bundle.Bound{{Domain: "interieur.example", Policy: d.ID.String()}, {Domain: "defense.example", Policy: d.ID.String(), Ceiling: "RESTRICTED"}}
	}
	_, b := d.Bundle(1, d.Folder(ruleText, table))
	return d, b
}

func release(d *paper.Doctrine, names ...string) (out []policy.Category) {
	set, err := policy.ParseOID(d.ID.String() + ".1")
	if err != nil {
		panic(err)
	}
	for _, n := range names {
		out = append(out, policy.Category{Set: set, Tag: "Releasable To", Name: n})
	}
	return out
}

// A path through a circle is open if and only if each route in it is, whatever the
// clearances, tiers and domains; and so it stays for the one who asks again.
func TestPathAgreesWithDecide(t *testing.T) {
	now := time.Now()
	rnd := rand.New(rand.NewPCG(3, 5))
	d, b := coalition(t, strings.Join([]string{
		`@id("no-flash") forbid (principal, action == Action::"send", resource) when { context.precedence == "flash" && resource.tier == "witnessed" };`,
		`@id("crowd") forbid (principal, action, resource) when { context.members > 4 && context has label && context.label.classification == "SECRET" };`,
	}, "\n"), bundle.Domains{Unlabelled: true, Tiers: nil})
	grants := []*identity.Clearance{
		nil, d.UpTo("UNMARKED"), d.UpTo("RESTRICTED", release(d, "FRA")...), d.UpTo("SECRET", release(d, "FRA", "DEU")...),
		d.UpTo("SECRET", release(d, "DEU")...), d.UpTo("SECRET", release(d, "FRA", "DEU", "ITA")...),
	}
	end := func(i int) bundle.End {
		domain := "interieur.example"
		if rnd.IntN(5) == 0 {
			domain = "defense.example"
		}
		return bundle.End{
			ID: identity.DeviceID{byte(i + 1)}, Address: address(t, fmt.Sprintf("u%d@%s", i, domain)),
			Tier: []identity.Tier{identity.TierHardware, identity.TierWitnessed}[rnd.IntN(2)], Clearance: grants[min(rnd.IntN(8), 5)],
		}
	}
	labels := []*policy.Label{
		nil, d.Label("UNMARKED"), d.Label("RESTRICTED", release(d, "FRA")...), d.Label("SECRET", release(d, "FRA", "DEU")...),
		d.Label("SECRET", release(d, "DEU", "ITA")...), d.Label("RESTRICTED"), d.Label("PINK"),
	}
	granted, refused, meetless := 0, 0, 0
	for range 3000 {
		ends := make([]bundle.End, 1+rnd.IntN(6))
		for i := range ends {
			ends[i] = end(i)
		}
		sender, label := rnd.IntN(len(ends)), labels[rnd.IntN(len(labels))]
		precedence := []string{"routine", "flash"}[rnd.IntN(2)]
		circle := b.Circle(ends)
		path := circle.Path(sender, nil, label, precedence, now)
		var reasons []bundle.Reason
		for i := range ends {
			if i == sender && len(ends) > 1 {
				continue
			}
			r := &bundle.Route{
				Action: rules.Send, Sender: ends[sender], Recipient: ends[i], Label: label, Precedence: precedence, Members: len(ends),
			}
			if len(ends) == 1 {
				r.Precedence = "routine" // nobody but the sender: rules have nobody to ask about
			}
			if v := b.Decide(r, now); !v.Granted {
				reasons = append(reasons, v.Reason)
			}
		}
		for range 2 {
			got := path.Decide(now)
			if (got == nil) != (len(reasons) == 0) {
				t.Fatalf("path says %+v, routes %v: %+v label %+v", got, reasons, ends, label)
			}
			if got == nil {
				granted++
				if circle.Ceiling() == nil || label != nil && len(label.Categories) > 0 {
					meetless++
				}
				continue
			}
			refused++
			if !got.Sender && got.End == sender {
				t.Fatalf("about nobody: %+v", got)
			}
		}
	}
	if granted < 200 || refused < 200 || meetless < 20 {
		t.Errorf("%d granted, %d refused, %d where the meet says little: too few to say anything", granted, refused, meetless)
	}
}

// Of a permissive tag each may hold another value: the meet holds none, and the
// label goes through all the same.
func TestPermissiveWithoutMeet(t *testing.T) {
	now := time.Now()
	d, b := coalition(t, "", bundle.Domains{})
	ends := []bundle.End{
		{ID: identity.DeviceID{1}, Address: address(t, "a@interieur.example"), Tier: identity.TierHardware, Clearance: d.UpTo("SECRET", release(d, "FRA")...)},
		{ID: identity.DeviceID{2}, Address: address(t, "b@interieur.example"), Tier: identity.TierHardware, Clearance: d.UpTo("SECRET", release(d, "DEU")...)},
	}
	label := d.Label("SECRET", release(d, "FRA", "DEU")...)
	if r := b.Circle(ends).Path(0, nil, label, "routine", now).Decide(now); r != nil {
		t.Errorf("refused: %+v", r)
	}
	if r := b.Circle(ends).Path(0, nil, d.Label("SECRET", release(d, "FRA")...), "routine", now).Decide(now); r == nil || r.Sender || r.End != 1 || string(r.Reason) != string(policy.ReasonPermissive) {
		t.Errorf("got %+v", r)
	}
}

// What the connection proves counts beside what the tree holds.
func TestPathOwnEnd(t *testing.T) {
	now := time.Now()
	d, b := coalition(t, "", bundle.Domains{Tiers: nil})
	high, low := d.UpTo("SECRET", release(d, "FRA")...), d.UpTo("RESTRICTED", release(d, "FRA")...)
	end := func(c *identity.Clearance) bundle.End {
		return bundle.End{ID: identity.DeviceID{1}, Address: address(t, "a@interieur.example"), Tier: identity.TierHardware, Clearance: c}
	}
	for name, c := range map[string]struct {
		tree, own *identity.Clearance
		ok        bool
	}{"both": {high, high, true}, "renewed with less": {high, low, false}, "the tree's is older": {low, high, false}} {
		own := end(c.own)
		r := b.Circle([]bundle.End{end(c.tree), end(high)}).Path(0, &own, d.Label("SECRET", release(d, "FRA")...), "routine", now).Decide(now)
		if (r == nil) != c.ok || r != nil && !r.Sender {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// Who joins does not lower the ceiling, unless the table says so; a founder's first
// company may.
func TestJoin(t *testing.T) {
	d := paper.NewDoctrine(t, "coalition")
	end := func(n byte, c *identity.Clearance) bundle.End {
		return bundle.End{ID: identity.DeviceID{n}, Address: address(t, "a@interieur.example"), Tier: identity.TierHardware, Clearance: c}
	}
	high, low := d.UpTo("SECRET", release(d, "FRA")...), d.UpTo("RESTRICTED", release(d, "FRA")...)
	noJoin := `@id("no-join") forbid (principal, action == Action::"join", resource);`
	for name, c := range map[string]struct {
		rules   string
		table   bundle.Domains
		members []*identity.Clearance
		added   *identity.Clearance
		reason  string
	}{
		"an equal joins":                  {"", bundle.Domains{}, []*identity.Clearance{high, high}, high, ""},
		"less joins":                      {"", bundle.Domains{}, []*identity.Clearance{high, high}, low, string(bundle.ReasonCeiling)},
		"nobody's clearance joins":        {"", bundle.Domains{}, []*identity.Clearance{high, high}, nil, string(bundle.ReasonCeiling)},
		"less joins less":                 {"", bundle.Domains{}, []*identity.Clearance{high, low}, low, ""},
		"into nothing":                    {"", bundle.Domains{}, []*identity.Clearance{high, nil}, nil, ""},
		"the founder chooses":             {"", bundle.Domains{}, []*identity.Clearance{high}, low, ""},
		"the table lets it":               {"", bundle.Domains{Lowering: true}, []*identity.Clearance{high, high}, low, ""},
		"a rule refuses":                  {noJoin, bundle.Domains{}, []*identity.Clearance{high}, high, string(rules.ReasonRule)},
		"unlabelled mail is not the join": {`@id("x") forbid (principal, action == Action::"send", resource) when { context.members == 3 };`, bundle.Domains{}, []*identity.Clearance{high, high}, high, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, b := coalition(t, c.rules, c.table)
			var ends []bundle.End
			for i, m := range c.members {
				ends = append(ends, end(byte(i+1), m))
			}
			added := end(9, c.added)
			v := b.Circle(ends).Join(0, &added, len(ends)+1)
			if (v == nil) != (c.reason == "") || v != nil && string(v.Reason) != c.reason {
				t.Errorf("got %+v, want %q", v, c.reason)
			}
		})
	}
}

// A path ends with the edition that it was decided under.
func TestPathEnds(t *testing.T) {
	p := paper.NewDoctrine(t, "tlp")
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	text := strings.Replace(string(p.Text), `version="1" creationDate`, `version="1" notBefore="`+end.Add(-48*time.Hour).Format(time.RFC3339)+`" notAfter="`+end.Format(time.RFC3339)+`" creationDate`, 1)
	p.Text = []byte(text)
	folder := p.Folder("", bundle.Domains{})
	_, b := p.Bundle(1, folder)
	one := bundle.End{ID: identity.DeviceID{1}, Address: address(t, "a@interieur.example"), Tier: identity.TierHardware, Clearance: p.UpTo("RED")}
	path := b.Circle([]bundle.End{one}).Path(0, nil, p.Label("RED"), "routine", time.Now())
	if r := path.Decide(end.Add(-time.Second)); r != nil {
		t.Fatalf("before its end: %+v", r)
	}
	if path.Holds(end.Add(time.Second)) || path.Decide(end.Add(time.Second)) == nil {
		t.Error("it holds after the edition's end")
	}
	if r := b.Circle([]bundle.End{one}).Path(0, nil, p.Label("RED"), "routine", end.Add(time.Second)).Decide(end.Add(time.Second)); r == nil || string(r.Reason) != string(policy.ReasonPolicyExpired) {
		t.Errorf("made anew: %+v", r)
	}
}

// bench is a path through a conversation of n devices.
func benchPath(b *testing.B, n int, ruleText string) (*bundle.Path, *bundle.Circle, *policy.Label) {
	d, compiled := coalition(b, ruleText, bundle.Domains{})
	ends := make([]bundle.End, n)
	for i := range ends {
		ends[i] = bundle.End{
			ID: identity.DeviceID{byte(i), byte(i >> 8)}, Address: address(b, fmt.Sprintf("u%d@interieur.example", i)),
			Tier: identity.TierHardware, Clearance: d.UpTo("SECRET", release(d, "FRA", "DEU")...),
		}
	}
	circle := compiled.Circle(ends)
	label := d.Label("SECRET", release(d, "FRA")...)
	return circle.Path(0, nil, label, "routine", time.Now()), circle, label
}

// BenchmarkPath is what a labelled message costs where its route is known.
func BenchmarkPath(b *testing.B) {
	for _, n := range []int{2, 16, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			path, _, _ := benchPath(b, n, "")
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				if path.Decide(now) != nil {
					b.Fatal("refused")
				}
			}
			if err := figure.Print(os.Stdout, fmt.Sprintf("policy_path_%d", n), float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns"); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkRoute is what a route costs when it is set up, with ten rules.
func BenchmarkRoute(b *testing.B) {
	var text strings.Builder
	for i := range 10 {
		fmt.Fprintf(&text, "@id(\"r%d\") forbid (principal, action, resource) when { context.members > %d };\n", i, 2000+i)
	}
	for _, n := range []int{2, 16} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			_, circle, label := benchPath(b, n, text.String())
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				if circle.Path(0, nil, label, "routine", now).Decide(now) != nil {
					b.Fatal("refused")
				}
			}
			if err := figure.Print(os.Stdout, fmt.Sprintf("policy_route_%d", n), float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns"); err != nil {
				b.Fatal(err)
			}
		})
	}
}
