// SPDX-License-Identifier: Apache-2.0

package acme

import "time"

// Bounds on what strangers may send to this package.
const (
	// maxBody bounds a request's body. The largest honest one carries an
	// attestation object with two certificates of below 2 KiB each, in base64
	// twice: below 12 KiB.
	maxBody = 64 << 10

	// maxEvidence bounds the attestation object itself.
	maxEvidence = 32 << 10

	// maxCSR bounds a certificate signing request; ours have some 600 bytes.
	maxCSR = 8 << 10

	// maxIdentifiers bounds an order: a certificate is for one device. Up to
	// maxSubproblems others are told why each is refused.
	maxIdentifiers = 1

	// maxKID bounds the key identifier of an invitation.
	maxKID = 128

	// maxCertID bounds the identifier of a certificate (RFC 9773): 20 bytes of key
	// identifier and 20 of serial number, in base64, have 55 characters.
	maxCertID = 128

	// renewalInfoEvery is how often a client should ask when to renew (RFC 9773,
	// Section 4.3.2): what is urgent reaches every device within it.
	renewalInfoEvery = 6 * time.Hour

	// ordersRetry is when to come back after too many unfinished orders.
	ordersRetry = 10 * time.Minute

	// maxSubproblems bounds what one problem document lists.
	maxSubproblems = 16

	// maxListed bounds the orders listed for an account (RFC 8555, Section
	// 7.1.2.1); nobody has a use for older ones.
	maxListed = 50

	// maxAccounts bounds the accounts whose keys are remembered, below 1 KiB each.
	// When it is full it starts anew.
	maxAccounts = 10_000

	// requestLimit bounds the work on one request, an HSM's signature included.
	requestLimit = 20 * time.Second
)
