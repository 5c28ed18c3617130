// SPDX-License-Identifier: Apache-2.0

// Package cutoff measures how soon a lost card is out. Its benchmark runs the whole way
// in one process: the authority's record and feed over TLS, a gateway with its copy of
// the record and its store on disk, and devices with vaults of their own, on loopback:
//
//	make bench-cutoff
//
// The clock starts when the officer's signed statement is handed to the record. It is
// read when the suspended device has lost its connection, and when each of 20 groups is
// rid of it at every member who stays.
//
// The keys are in software, not in cards: a removal signs three times, which a real
// card does in about 0.3 s; members take groups in turns, so that 20 removals by three
// of them would take 2 s and more. The officer's own signing and the desk's HTTPS request
// are left out. Never read these figures as those of cards.
package cutoff
