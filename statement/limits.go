// SPDX-License-Identifier: Apache-2.0

package statement

import "time"

// Bounds on what strangers may hand to this package.
const (
	// MaxSize bounds a statement of most kinds. Two certificates with P-384
	// take 4 KiB in base64 twice over, and the longest body, a target with
	// maxDevices, 46 KiB.
	MaxSize = 64 << 10

	// MaxLargeSize bounds the kinds that carry a file: endorsements and
	// appraisal policies.
	MaxLargeSize = 1 << 20

	// maxHeader bounds a decoded header: two certificates of at most
	// identity.MaxCertificateSize in base64.
	maxHeader = 24 << 10

	// maxText bounds a reason, a name or a unit, in octets of UTF-8.
	maxText = 512

	// maxToken bounds the identifiers of requests, changes, keys and profiles.
	maxToken = 64

	// maxKey bounds a SubjectPublicKeyInfo; P-384's has 120 octets.
	maxKey = 256

	// maxClearance bounds a clearance in DER; it is package identity's bound.
	maxClearance = 4 << 10

	// maxFile bounds what a statement of a large kind carries: encoded twice it
	// still fits MaxLargeSize.
	maxFile = 560 << 10

	// MaxDevices bounds the devices that a target lists. A root may stand above
	// more: the bulletin names them all, this list is what gateways obey
	// before they have it.
	MaxDevices = 256

	// MaxApprovals bounds the approvals that a profile may ask for.
	MaxApprovals = 8

	// maxVersion bounds version numbers.
	maxVersion = 1 << 30

	// maxPeriod bounds validities and grace periods.
	maxPeriod = 20 * 366 * 24 * time.Hour

	// maxServer bounds a desk's URL.
	maxServer = 255

	// maxTime bounds times, in seconds since 1970: beyond the year 9999 there
	// is no text for them.
	maxTime = 253402300799

	// Skew is how far an officer's clock may run ahead of the judge's.
	Skew = 2 * time.Minute

	// MaxLife bounds the time in which a statement must reach the record: long
	// enough for a second officer to return from leave.
	MaxLife = 30 * 24 * time.Hour

	// SessionLife bounds a session statement: it is used at once.
	SessionLife = 5 * time.Minute
)
