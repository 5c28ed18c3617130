// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import "time"

const (
	// defaultSessions is enough to keep SoftHSM busy on eight cores, and less
	// than any network HSM allows a client.
	defaultSessions = 8

	// maxSessions keeps a slip in a configuration from using up an HSM's
	// sessions for everybody.
	maxSessions = 256

	// maxObjects bounds a search: two objects suffice to see that a label is
	// not unique, some more help to say how many.
	maxObjects = 16

	// minPause and maxPause bound the pauses between attempts to bring a lost
	// device back. A restart takes some seconds; asking more often than each
	// half minute helps nobody while an HSM is down for an hour.
	minPause = 2 * time.Second
	maxPause = 30 * time.Second

	// maxCall is how long the calls that were under way when the device was lost
	// may take to return. Signatures and logins take less than a second.
	maxCall = 3 * time.Second

	// quiescePoll is how often that is looked at.
	quiescePoll = 2 * time.Millisecond

	// patience is how long an operation waits for the first attempt.
	patience = 5 * time.Second

	// maxPoint bounds an EC point: uncompressed P-521 in a DER wrapping.
	maxPoint = 256
)
