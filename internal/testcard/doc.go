// SPDX-License-Identifier: Apache-2.0

// Package testcard is a virtual PIV smartcard: the applet of a YubiKey 5 in
// software, for tests and for the demo. It is the stand-in for hardware that
// is not at hand, so it holds itself to the same rules: keys that were
// generated here never leave through a command, PIN and PUK have counters that
// block, the management key guards everything that writes, and attestation
// certificates say what happened and nothing else.
//
// It follows NIST SP 800-73-4 Part 2 (command interface), SP 800-78-4
// (algorithm identifiers) and Yubico's published extensions (metadata,
// attestation, import, version, serial, reset, retries, management key).
//
// The first calls are
//
//	root, err := testcard.OpenRoot("root.pem")           // made if it does not exist
//	card, err := testcard.Create("alice.card", testcard.Config{Serial: 10000001, Root: root})
//	response := card.Transmit(apdu)                      // one command APDU, one response
//	err = testcard.Serve(ctx, conn, card)                // or behind a vpcd reader
//
// # What it is not
//
// It is no security boundary: its private keys lie in a file that whoever
// runs it can read, and RSA uses math/big. Nothing that protects real people
// may trust the attestation root of such a card. The root's name says
// "virtual cards", and no binary holds one: each is made at run time.
//
// Nobody can touch a virtual card. Touch policies are stored, reported and
// attested; a key that asks for touch acts as if it had been touched at once,
// or, with Config.Untouched, as if nobody ever did (status 6982); a card made
// with Config.NoSensor refuses to make such a key (status 6A80). The same
// goes for the finger of a card made with Config.Bio: it always matches.
//
// Attestation carries the extensions for firmware, serial number, policies and
// form factor. Those of the FIPS and CSPN series are left out: such a card
// would claim a certification.
//
// The management key has no counter, because a YubiKey's has none. The
// attestation key F9 can be neither replaced nor used by a command: that is
// stricter than the hardware, which lets its owner overwrite it.
package testcard
