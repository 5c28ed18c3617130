// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"valise/internal/figure"
	"valise/policy/spif"
)

// report prints a figure in nanoseconds an operation, or another unit.
func report(b *testing.B, name string, value float64, unit string) {
	b.Helper()
	if err := figure.Print(os.Stdout, name, value, unit); err != nil {
		b.Fatal(err)
	}
}

func perOp(b *testing.B) float64 { return float64(b.Elapsed().Nanoseconds()) / float64(b.N) }

// fourCategories is a label of 4 categories in three tags, two restrictive and
// two of a permissive tag, with a clearance that reaches it: the longest way
// through a decision.
func fourCategories(b *testing.B) (*Set, *Label, *Resolved, *Clearance) {
	b.Helper()
	s := largeSet(b)
	l := label(b, "MIDDLE", "1/Restrictive/C0007", "1/Restrictive/C0190", "2/Permissive/C0011", "2/Permissive/C0180")
	l.Edition = 1
	r, err := s.Resolve(l, New, now)
	if err != nil {
		b.Fatal(err)
	}
	c, err := s.Clearance(issue(b, s, "HIGH", "1/Restrictive/C0007", "1/Restrictive/C0190", "2/Permissive/C0180"))
	if err != nil {
		b.Fatal(err)
	}
	if d := Decide(r, c); !d.Granted {
		b.Fatalf("%+v", d)
	}
	return s, l, r, c
}

// largeText is a SPIF of at least size bytes, with markings in two languages.
func largeText(size int) string {
	tag := func(kind string, n int) string {
		var t strings.Builder
		fmt.Fprintf(&t, "<securityCategoryTag name=\"%s\" tagType=\"%s\">\n", kind, strings.ToLower(kind))
		for i := range n {
			fmt.Fprintf(&t, `<tagCategory name="C%04d" lacv="%04d"><markingData phrase="country %d"><code>pageTopBottom</code></markingData><markingData xml:lang="fr" phrase="pays %d"><code>pageTopBottom</code></markingData><excludedClass>LOW</excludedClass></tagCategory>`+"\n", i, i, i, i)
		}
		t.WriteString("</securityCategoryTag>\n")
		return t.String()
	}
	for n := 200; ; n++ {
		if text := spifText("TEST", testPolicy, 1, levels+tagSets(tag("Restrictive", n), tag("Permissive", n))); len(text) >= size {
			return text
		}
	}
}

func largeSet(b *testing.B) *Set { return compile(b, largeText(100<<10)) }

// BenchmarkDecide measures one decision on a label of 4 categories and a
// clearance that are both compiled: what a gateway does for each recipient.
func BenchmarkDecide(b *testing.B) {
	_, _, r, c := fourCategories(b)
	granted := 0
	b.ReportAllocs()
	for b.Loop() {
		if Decide(r, c).Granted {
			granted++
		}
	}
	if granted == 0 {
		b.Fatal("denied")
	}
	report(b, "policy_decide_4", perOp(b), "ns")
	allocs := testing.AllocsPerRun(1000, func() { Decide(r, c) })
	report(b, "policy_decide_4_allocs", allocs, "allocs")
}

// BenchmarkParse measures the parse of the same label in its canonical form.
func BenchmarkParse(b *testing.B) {
	_, l, _, _ := fourCategories(b)
	data, err := l.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseLabel(data); err != nil {
			b.Fatal(err)
		}
	}
	report(b, "policy_parse_canonical_4", perOp(b), "ns")
}

// BenchmarkResolve measures what comes between: validation against the SPIF,
// once for a message.
func BenchmarkResolve(b *testing.B) {
	s, l, _, _ := fourCategories(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Resolve(l, New, now); err != nil {
			b.Fatal(err)
		}
	}
	report(b, "policy_resolve_4", perOp(b), "ns")
}

// BenchmarkCompile measures reading and compiling a SPIF of 100 KiB.
func BenchmarkCompile(b *testing.B) {
	text := []byte(largeText(100 << 10))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		d, err := spif.Parse(text)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Compile(d); err != nil {
			b.Fatal(err)
		}
	}
	report(b, "policy_compile_100k", perOp(b)/1e6, "ms")
}

// The decision allocates nothing, granted or denied.
func TestDecideAllocatesNothing(t *testing.T) {
	s := one(t, decided, releases)
	l := label(t, "LOW", "1/R/A", "1/R/B", "2/Release/X", "2/Release/Y")
	r, err := s.Resolve(l, New, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, paths := range [][]string{{"1/R/A", "1/R/B", "2/Release/Y"}, {"1/R/A"}, {"1/R/A", "1/R/B"}} {
		c, err := s.Clearance(issue(t, s, "LOW", paths...))
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { Decide(r, c) }); n != 0 {
			t.Errorf("%v: %v allocations", paths, n)
		}
	}
}
