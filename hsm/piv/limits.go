// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package piv

import "time"

const (
	// maxReaderList bounds the list of readers' names that pcscd reports:
	// its own limit is 16 readers with names of 128 bytes.
	maxReaderList = 16 * 130

	// maxAnswer holds a short APDU's answer with room: 256 bytes and a status
	// word (ISO/IEC 7816-4, Section 5.1). The probe sends nothing else.
	maxAnswer = 4096

	// maxCertificate is what the largest card object holds; a YubiKey's limit
	// is 3,052 bytes.
	maxCertificate = 3052

	// minPIN and maxPIN are SP 800-73-4, Part 2, Section 2.4.3: a PIN outside
	// would cost a try for nothing.
	minPIN, maxPIN = 6, 8

	// busyWait is how long opening waits for another program to finish: short
	// commands hold a card for some milliseconds, and a removed card's last
	// owner needs a moment to let go.
	busyWait = 2 * time.Second

	// busyPoll is the pause between tries meanwhile.
	busyPoll = 20 * time.Millisecond

	// watchPeriod bounds one wait of the watcher. A removal ends the wait at
	// once; the bound only matters if a cancellation gets lost.
	watchPeriod = 5 * time.Second
)
