// SPDX-License-Identifier: Apache-2.0

package testcard

// Bounds on what a peer can make the card do or keep. A peer is whoever holds
// the reader: every APDU is hostile.
const (
	// maxChained bounds the data field that command chaining (SP 800-73-4
	// Part 2, Section 2.5) may build up: the largest legitimate command is
	// a PUT DATA of one full object.
	maxChained = maxObject + 16

	// maxObject bounds one data object; a YubiKey 5 takes 3,063 bytes.
	maxObject = 3063

	// maxObjects and maxObjectBytes bound all data objects of a card
	// together: the standard names 36 objects, vendors add a few, and a
	// YubiKey 5 has about 51,200 bytes for them.
	maxObjects     = 64
	maxObjectBytes = 51200

	// maxResponse is the data of one response; the rest is fetched by GET
	// RESPONSE (ISO/IEC 7816-4, Section 5.1.3).
	maxResponse = 256

	// pinLength is the length of PIN and PUK on the wire, padded with FF
	// (SP 800-73-4 Part 2, Section 2.4.3).
	pinLength = 8

	// minPIN is the shortest new PIN or PUK.
	minPIN = 6

	// factoryTries is the number of tries of a new card for PIN and PUK.
	factoryTries = 3

	// maxStateFile bounds the state file: 24 keys and all objects in
	// base64 stay far below it.
	maxStateFile = 1 << 20
)
