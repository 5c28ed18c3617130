// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"valise/identity"
	"valise/policy/spif"
)

// A world is a random policy of four tags without rules, so that every
// combination of categories is a valid label.
type world struct {
	*Set
	all []Category
}

func randomWorld(t *testing.T, rnd *rand.Rand) world {
	types := []string{
		`tagType="restrictive"`, `tagType="permissive"`, `tagType="enumerated" enumType="restrictive"`,
		`tagType="enumerated" enumType="permissive"`, `tagType="tagType7"`,
	}
	var w world
	sets := []string{"", ""}
	for i := range 6 {
		set := rnd.IntN(2)
		sets[set] += fmt.Sprintf("<securityCategoryTag name=\"T%d\" %s>\n", i, types[rnd.IntN(len(types))])
		for j := range 1 + rnd.IntN(40) {
			sets[set] += fmt.Sprintf("<tagCategory name=\"C%d\" lacv=\"%d\"/>\n", j, 100*i+j)
			w.all = append(w.all, Category{oid(t, fmt.Sprintf("%s.%d", testPolicy, set+1)), fmt.Sprint("T", i), fmt.Sprint("C", j)})
		}
		sets[set] += "</securityCategoryTag>\n"
	}
	for i := range sets {
		if sets[i] == "" {
			sets[i] = "<securityCategoryTag name=\"none\" tagType=\"tagType7\"/>\n"
		}
	}
	w.Set = one(t, sets...)
	return w
}

func some(rnd *rand.Rand, from []Category, most int) (out []Category) {
	for range rnd.IntN(most + 1) {
		out = append(out, from[rnd.IntN(len(from))])
	}
	return out
}

func (w world) decide(t *testing.T, l *Label, c *identity.Clearance) bool {
	t.Helper()
	r, err := w.Resolve(l, New, now)
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := w.Clearance(c)
	if err != nil {
		t.Fatal(err)
	}
	d := Decide(r, compiled)
	if again := w.slow(r.Label(), compiled); again != d.Granted {
		t.Fatalf("the decision says %+v, the rules as written %v: label %+v", d, again, l)
	}
	return d.Granted
}

// slow is the decision once more, straight from its rules and without bits.
func (w world) slow(l *Label, c *Clearance) bool {
	classes, held := c.Names()
	if !slices.Contains(classes, l.Classification) {
		return false
	}
	type tag struct {
		set  OID
		name string
	}
	open := make(map[tag]bool) // permissive tags of the label: one is held
	for _, category := range l.Categories {
		kind := w.lattices[l.Policy].current(now).values[category].kind
		has := slices.Contains(held, category)
		switch {
		case kind.Restricts() && !has:
			return false
		case kind.Permits():
			k := tag{category.Set, category.Tag}
			open[k] = open[k] || has
		}
	}
	for _, one := range open {
		if !one {
			return false
		}
	}
	return true
}

func (w world) kind(c Category) spif.Type { return w.lattices[oidOfTest].current(now).values[c].kind }

var oidOfTest, _ = ParseOID(testPolicy)

// The laws of the decision, on random policies, labels and clearances.
func TestLaws(t *testing.T) {
	classes := []string{"LOW", "MIDDLE", "HIGH"}
	grants, denials := 0, 0
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		w := randomWorld(t, rnd)
		for range 60 {
			l := &Label{Policy: oidOfTest, Classification: classes[rnd.IntN(3)], Categories: some(rnd, w.all, 5)}
			g := Grant{Policy: oidOfTest, UpTo: classes[rnd.IntN(3)], Categories: some(rnd, w.all, 12)}
			if rnd.IntN(2) == 0 { // else nothing would be granted but by luck
				g.Categories = append(g.Categories, l.Categories...)
			}
			granted := w.decide(t, l, w.must(t, g))
			if granted {
				grants++
			} else {
				denials++
			}
			w.moreClearance(t, rnd, l, g, granted)
			w.tighterLabel(t, rnd, l, g, granted)
			w.otherOrder(t, rnd, l, g, granted)
			w.unknown(t, l, g)
		}
	}
	if grants < 200 || denials < 200 {
		t.Errorf("%d grants and %d denials: the laws were hardly tested", grants, denials)
	}
}

func (w world) must(t *testing.T, g Grant) *identity.Clearance {
	t.Helper()
	c, err := w.Issue(g, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// More clearance never turns a grant into a denial.
func (w world) moreClearance(t *testing.T, rnd *rand.Rand, l *Label, g Grant, granted bool) {
	more := g
	more.Categories = append(slices.Clone(g.Categories), some(rnd, w.all, 3)...)
	more.Classes = []string{"HIGH"}
	c := w.must(t, more)
	// What the policy does not know makes a clearance no smaller.
	foreign, err := (&categoryValue{oidOfTest + "\x09", spif.Restrictive, []int{1}}).marshal()
	if err != nil {
		t.Fatal(err)
	}
	c.Categories = append(c.Categories, foreign)
	if granted && !w.decide(t, l, c) {
		t.Errorf("more clearance denies: label %+v, grant %+v", l, more)
	}
}

// A further restrictive category, or one permissive value less, never turns a
// denial into a grant. (The last value of a tag is not one less: a tag that is
// not there imposes nothing.)
func (w world) tighterLabel(t *testing.T, rnd *rand.Rand, l *Label, g Grant, granted bool) {
	if granted {
		return
	}
	tighter := *l
	extra := w.all[rnd.IntN(len(w.all))]
	if w.kind(extra).Restricts() {
		tighter.Categories = append(slices.Clone(l.Categories), extra)
		if w.decide(t, &tighter, w.must(t, g)) {
			t.Errorf("a further restrictive category grants: %+v", tighter)
		}
	}
	distinct := l.Normal().Categories
	for i, c := range distinct {
		siblings := 0
		for _, other := range distinct {
			if other.Set == c.Set && other.Tag == c.Tag {
				siblings++
			}
		}
		if !w.kind(c).Permits() || siblings < 2 {
			continue
		}
		tighter.Categories = slices.Delete(slices.Clone(distinct), i, i+1)
		if w.decide(t, &tighter, w.must(t, g)) {
			t.Errorf("one permissive value less grants: %+v", tighter)
		}
	}
}

// Order and repetition mean nothing.
func (w world) otherOrder(t *testing.T, rnd *rand.Rand, l *Label, g Grant, granted bool) {
	shuffled, again := *l, g
	shuffled.Categories = append(slices.Clone(l.Categories), l.Categories...)
	again.Categories = slices.Clone(g.Categories)
	for _, list := range [][]Category{shuffled.Categories, again.Categories} {
		rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	if w.decide(t, &shuffled, w.must(t, again)) != granted {
		t.Errorf("order matters: %+v", l)
	}
}

// What is unknown denies, whoever asks.
func (w world) unknown(t *testing.T, l *Label, g Grant) {
	g.UpTo, g.Categories = "HIGH", w.all
	c := w.must(t, g)
	if !w.decide(t, l, c) {
		t.Errorf("who holds everything is denied: %+v", l)
	}
	category, class, policy := *l, *l, *l
	category.Categories = append(slices.Clone(l.Categories), Category{w.all[0].Set, w.all[0].Tag, "unknown"})
	class.Classification += "ER"
	policy.Policy += "\x01"
	for reason, broken := range map[Reason]*Label{
		ReasonUnknownCategory: &category, ReasonUnknownClass: &class, ReasonUnknownPolicy: &policy,
	} {
		want(t, "unknown", w.Judge(broken, c, New, now), reason)
	}
}
