// SPDX-License-Identifier: Apache-2.0

package mls

import "time"

// Bounds on what others can make this package do. Everything that is not
// named here is bounded by the size of the input, which the caller chooses.
const (
	// maxVector is the longest vector that a 4-byte length can announce, RFC
	// 9420, Section 2.1.2.
	maxVector = 1<<30 - 1

	// maxSkip is how many generations of one sender's ratchet a message may
	// skip, RFC 9420, Section 15.3: each costs three key derivations, so that
	// the dearest message costs about a millisecond.
	maxSkip = 1024

	// maxKept is how many skipped keys of one ratchet are kept for late
	// messages; the oldest give way. Each one is about 50 bytes in the state.
	maxKept = 512

	// maxPlaintext bounds content: larger things are files, sent as a key.
	maxPlaintext = 16 << 20

	// maxPSKs bounds the pre-shared keys of one commit; the key schedule
	// counts them in a uint16.
	maxPSKs = 256

	// maxList bounds the types in a list of capabilities and the extensions
	// of one object. Members are compared with them one by one, so that long
	// lists would multiply.
	maxList = 256

	// maxProposals bounds the proposals that are kept in one epoch, so that a
	// member cannot fill the state.
	maxProposals = 4096

	// maxLeaves bounds a tree: node numbers stay well within a uint32. A tree
	// of a million leaves would take minutes to verify.
	maxLeaves = 1 << 20

	// defaultPastEpochs: see Config.PastEpochs.
	defaultPastEpochs = 3
	// maxPastEpochs bounds Config.PastEpochs.
	maxPastEpochs = 64

	// keptResumption is for how many epochs back the resumption secret is
	// kept, RFC 9420, Section 8.6.
	keptResumption = 8
)

// MaxLifetime is the longest lifetime of a leaf that is accepted where times
// are checked, RFC 9420, Section 7.2. It leaves room for a device that stays
// offline for a quarter of a year.
const MaxLifetime = 100 * 24 * time.Hour
