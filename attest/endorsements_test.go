// SPDX-License-Identifier: Apache-2.0

package attest

import "testing"

// A vendor's root is that vendor's also when it comes from an operator's file: the
// floor for firmware that leaks keys must not depend on where it was read.
func TestVendorsRootFromFile(t *testing.T) {
	own := newMaker(t)
	file := append(toPEM(BuiltIn().Roots()...), toPEM(own.root)...)
	e, err := Configured(file)
	if err != nil {
		t.Fatal(err)
	}
	joined, err := Join(e, BuiltIn())
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []*Endorsements{e, joined} {
		for _, root := range set.roots {
			if want := root.cert.Subject.String() != own.root.Subject.String(); root.builtIn != want {
				t.Errorf("%s: a vendor's %v, want %v", root.cert.Subject, root.builtIn, want)
			}
		}
	}
}

// What is written is read again, and counts the same: a vendor's published root
// does, wherever it is read from.
func TestEndorsementsInPEM(t *testing.T) {
	all := BuiltIn()
	again, err := Configured(all.PEM())
	if err != nil {
		t.Fatal(err)
	}
	if len(again.roots) != len(all.roots) || len(again.intermediates) != len(all.intermediates) {
		t.Fatalf("%d roots and %d intermediates came back as %d and %d",
			len(all.roots), len(all.intermediates), len(again.roots), len(again.intermediates))
	}
	for i, r := range again.roots {
		if !r.cert.Equal(all.roots[i].cert) || r.builtIn != all.roots[i].builtIn {
			t.Errorf("root %d came back as %s, built in: %v", i, r.cert.Subject, r.builtIn)
		}
	}
}
