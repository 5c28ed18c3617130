// SPDX-License-Identifier: Apache-2.0

package policy

// Bounds on labels and clearances; those on policies stand in policy/spif.
const (
	// MaxLabelFile bounds a label in XML or BER. Three countries' names take
	// 1 KiB of XML; all countries of the world take 12 KiB.
	MaxLabelFile = 64 << 10

	// MaxCanonical is what a message header takes (spec/message.md, Section 2).
	MaxCanonical = 1<<16 - 1

	// MaxLabelCategories bounds the categories of one label: all countries and
	// communities of the largest list in use are 300.
	MaxLabelCategories = 512

	// MaxOID bounds the contents of an object identifier; a message header has
	// 64 octets for it.
	MaxOID = 64

	// MaxClearanceFile is above package identity's bound on a clearance in
	// DER, since XML is longer.
	MaxClearanceFile = 64 << 10

	// maxTypes bounds the security categories of a label or clearance, one for
	// each tag set and type: RFC 2634, Section 3.2, ub-security-categories.
	maxTypes = 64

	// maxConstraints bounds the policies in one CA's clearance constraints;
	// maxPath the certificates above a leaf.
	maxConstraints = 64
	maxPath        = 8

	// maxBERDepth: ESSSecurityLabel nests 5 deep.
	maxBERDepth = 8

	// MaxEditions bounds the editions of one policy and the policies of a Set.
	MaxEditions = 256
	MaxPolicies = 256

	// maxClasses bounds the classifications of a policy over all its editions:
	// a clearance has one bit for each.
	maxClasses = 256

	// maxReferred bounds what the required and excluded references of an edition
	// come to: "all" of a large tag set in every category of it would otherwise
	// fill the memory. All of 300 countries, excluded by each of them, is 90,000.
	maxReferred = 1 << 20

	// maxDetail clips what is quoted from a label.
	maxDetail = 60

	// maxPhrase bounds a label as a person writes it: forty countries by name take
	// 600 bytes.
	maxPhrase = 1024

	// maxReadings bounds how many ways of reading a phrase are looked at: two are
	// one too many.
	maxReadings = 8

	// maxChoices bounds how many values a refusal lists.
	maxChoices = 40

	// maxCatalogue bounds a list of labels for people to choose from.
	maxCatalogue = 2048
)
