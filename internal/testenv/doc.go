// SPDX-License-Identifier: Apache-2.0

// Package testenv starts real parts for tests: smartcard readers, tokens,
// commands. Nothing here imitates a part that can run for real; a part that is
// not installed skips the test and says what to install.
//
//	card := testenv.Card(t, testcard.Config{})     // a card for code in this process
//	cards := testenv.Reader(t, testcard.Config{})  // a reader for commands that the test runs
//	token := testenv.SoftHSM(t)                    // a token of its own
//	server := testenv.SoftHSMServer(t)             // the same, in a server that can be killed
//	db := testenv.Postgres(t)                      // a database of its own in a private server
//	tpm := testenv.TPM(t)                          // a TPM 2.0 with an endorsement key that its maker certified
//	valise := testenv.Build(t, "./cmd/valise")     // a command of this module
//
// Under VALISE_REQUIRE=all (as in make test) a missing part fails the test
// instead; VALISE_REQUIRE may also list parts by name, separated by commas,
// as in VALISE_REQUIRE=softhsm2-util,vectors.
//
// Never point a test at the computer's own pcscd, or at a token that it has
// not made: tests destroy what they find. Environment variables that lead to
// private parts are set by t.Setenv, so such tests cannot run in parallel.
package testenv
