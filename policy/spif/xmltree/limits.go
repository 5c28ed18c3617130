// SPDX-License-Identifier: Apache-2.0

package xmltree

// Bounds on a file. Its size is bounded by whoever reads it.
const (
	// MaxDepth: a SPIF nests 7 deep, a label 5.
	MaxDepth = 16

	// MaxElements: a national SPIF with all countries, in two languages and
	// with equivalences into ten policies, has about 20,000.
	MaxElements = 100_000

	// MaxAttributes on one element; SPIF, the largest, has 11. Each is marked
	// by one bit of Node.seen.
	MaxAttributes = 48

	// MaxText inside one element: values of labels are below 1 KiB, and white
	// space between a long list of elements adds up.
	MaxText = 1 << 20
)
