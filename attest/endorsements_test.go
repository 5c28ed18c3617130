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
