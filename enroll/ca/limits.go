// SPDX-License-Identifier: Apache-2.0

package ca

import "time"

// Bounds on what strangers may ask about certificates.
const (
	// maxOCSPRequest bounds a request (RFC 6960, Section 4.1): one with SHA-512
	// hashes and a nonce has some 250 bytes.
	maxOCSPRequest = 2 << 10

	// maxSerial bounds a serial number: 20 bytes (RFC 5280, Section 4.1.2.2), and
	// one for a sign.
	maxSerial = 21

	// maxResponses bounds the responses kept in memory, some 600 bytes each. When
	// it is full it starts anew; those about our own certificates are stored.
	maxResponses = 20_000

	// listEvery is how often the list is compared with the standings.
	listEvery = time.Second

	// afterFailure is how long a token that did not sign is left alone.
	afterFailure = 2 * time.Second

	// maxCached bounds how long a cache between us and a client may keep an answer:
	// a suspension shows within a minute.
	maxCached = time.Minute

	// memoryLife is how long verified evidence is remembered: devices send their CSR
	// at once. maxRemembered bounds it, at some 4 KiB each.
	memoryLife    = time.Minute
	maxRemembered = 1_000

	// statusLimit bounds the work on one question, a signature included.
	statusLimit = 10 * time.Second
)
