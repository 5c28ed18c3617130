// SPDX-License-Identifier: Apache-2.0

package enroll

import "time"

const (
	// InvitationLife is how long an invitation may be used.
	InvitationLife = 24 * time.Hour

	// orderLife is how long an order may wait for its challenge and its CSR.
	orderLife = 24 * time.Hour

	// maxOpenOrders bounds the unfinished orders of one account: a device needs
	// one, and some more if it breaks off.
	maxOpenOrders = 8

	// maxRosterBytes bounds a roster file: 100,000 people with 100 bytes each.
	maxRosterBytes = 16 << 20

	// maxRosterField bounds names and units.
	maxRosterField = 200

	// maxSubjectAltName bounds the subjectAltName of a CSR.
	maxSubjectAltName = 1 << 10

	// workBatch bounds the orders that one round of work looks at.
	workBatch = 256
)
