// SPDX-License-Identifier: Apache-2.0

package spif

// Bounds on a SPIF. It is signed by officers before anything obeys it, and it
// is still read before that is checked.
const (
	// MaxFileSize: NATO's policy in two languages has 85 KiB, with
	// equivalences into ten other policies it would stay below 2 MiB.
	MaxFileSize = 4 << 20

	// MaxClassifications: numbers go from 0 to MaxClassNumber.
	MaxClassifications = 64

	// MaxClassNumber is the largest classification in a class list that
	// package identity takes; RFC 2634, Section 3.2 has 256.
	MaxClassNumber = 255

	// MaxCategories over all tags. The largest list in use, all countries and
	// communities, has about 300 entries.
	MaxCategories = 8192

	// MaxTagSets and MaxTags bound what one label may name.
	MaxTagSets = 256
	MaxTags    = 256

	// MaxNumber bounds a lacv. Country lists use ISO 3166 numbers below 1000
	// and communities from 1001 and 10000 up; as a bit string that is 8 KiB.
	MaxNumber = 1<<16 - 1

	// MaxName is the schema's bound on names and phrases; a canonical label
	// writes a length in one octet, so names are bounded in octets too.
	MaxName = 256

	// maxReferences bounds the values of required and excluded groups of one
	// entry.
	maxReferences = 1024

	// maxOIDText: 64 octets of contents in dotted decimal.
	maxOIDText = 256
)
