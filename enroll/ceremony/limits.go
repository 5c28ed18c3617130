// SPDX-License-Identifier: Apache-2.0

package ceremony

const (
	// MaxApplicationSize bounds an application file: an attestation object of
	// at most attest.MaxObjectSize in base64, and a few short fields.
	MaxApplicationSize = 128 << 10

	// MaxPlanSize bounds a plan; one with a hundred officers has 20 KiB.
	MaxPlanSize = 256 << 10

	// maxName bounds the name of a ceremony, which stands in every application
	// and in the heading of the record: one line on paper.
	maxName = 80

	// maxPeople bounds the officers of a plan. Each gets a certificate and a
	// place in the founding record, which is one signed document.
	maxPeople = 64

	// minOfficers is how many officers there must be at least: what raises a
	// right needs two.
	minOfficers = 2

	// maxProfiles bounds the profiles of a plan.
	maxProfiles = 16

	// maxProfileName is the founding record's own bound.
	maxProfileName = 32

	// maxApprovals bounds the approvals of a profile; more officers than that
	// are never at hand.
	maxApprovals = 16

	// maxFiles bounds the files that a plan names for roots.
	maxFiles = 32
)
