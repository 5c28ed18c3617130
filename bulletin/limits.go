// SPDX-License-Identifier: Apache-2.0

package bulletin

// Bounds on what strangers may hand to this package.
const (
	// MaxSize bounds a bulletin as it travels: maxListed lines of each kind take
	// 20 MiB in base64.
	MaxSize = 32 << 20

	// maxListed bounds the devices and the people of one bulletin. It lists
	// exceptions: sixty thousand lost cards are a country's.
	maxListed = 1 << 16

	// maxOfficers bounds the officers of one bulletin, those dismissed included.
	maxOfficers = 4096

	// MaxReason bounds a reason, which is a word for machines and not a report.
	MaxReason = 64

	// maxCeiling bounds a clearance in DER; it is package identity's bound.
	maxCeiling = 4 << 10

	// maxPending bounds the statements that a Set holds beside its bulletin.
	// They are officers' and few; at that size something is wrong, and the one
	// who looks after the gateway has to know.
	maxPending = 4096
)
