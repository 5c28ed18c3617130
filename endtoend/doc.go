// SPDX-License-Identifier: Apache-2.0

// Package endtoend holds tests of the whole of Valise and nothing else: the
// real commands and daemons, real pcscds with virtual cards, SoftHSM tokens, on
// an [valise/internal/stage.Stage]. What they try to break is the promise that
// nothing acknowledged is lost, delivered twice or undecryptable:
//
//	go test ./endtoend                         // about two minutes
//	VALISE_SEED=17 go test ./endtoend -run Kill // the same kills again
//
// Who judges is not Valise: demo/check, a program that shares no code with it,
// compares SHA-256 of what arrived with what was sent, and the gateway's audit
// stream must be free of refusals that the test did not cause. A sender that was
// killed before it reported is the one uncertainty: its message may be there once
// or not at all.
//
// The programs are built without the race detector, which would slow cards and
// ratchets down tenfold; the packages' own tests run with it. Never let a test
// here look into a vault or a store to see whether a message arrived: only what a
// command printed or wrote counts.
package endtoend
