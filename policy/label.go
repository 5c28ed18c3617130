// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
)

// A Label says how its message may be handled. It names values as its policy's
// edition does; numbers occur only in imported and exported forms.
type Label struct {
	Policy         OID
	Edition        uint32 // 0: not stated, as in imported labels; the one in force is meant
	Classification string
	Mark           string // privacy mark, "": none
	Categories     []Category
}

// A Category is one value of a label: tag set, tag, name.
type Category struct {
	Set       OID
	Tag, Name string
}

func compareCategories(a, b Category) int {
	return cmp.Or(cmp.Compare(a.Set, b.Set), cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Name, b.Name))
}

// Normal returns the label with its categories sorted and each there once:
// neither order nor repetition means anything.
func (l *Label) Normal() *Label {
	n := *l
	n.Categories = slices.Clone(l.Categories)
	slices.SortFunc(n.Categories, compareCategories)
	n.Categories = slices.Compact(n.Categories)
	return &n
}

// Equal reports whether two labels say the same.
func (l *Label) Equal(m *Label) bool {
	a, b := l.Normal(), m.Normal()
	return a.Policy == b.Policy && a.Edition == b.Edition && a.Classification == b.Classification && a.Mark == b.Mark &&
		slices.Equal(a.Categories, b.Categories)
}
