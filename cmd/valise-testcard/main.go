// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command valise-testcard makes virtual PIV smartcards and puts them into a
// private reader, for tests and for the demo. It is no security device: a
// virtual card's keys lie in a file. It is never packaged.
//
// Make a card, put it into a reader, use it:
//
//	valise-testcard new --state alice.card --root root.pem --serial 10000001
//	valise-testcard reader --dir /tmp/alice alice.card &
//	export PCSCLITE_CSOCK_NAME=/tmp/alice/pcscd/pcscd.comm
//	yubico-piv-tool -a status
//
// # Commands
//
//	new --state FILE --root ROOTFILE [--serial N] [--firmware 5.4.3]
//	    [--pin PIN] [--puk PUK] [--form-factor N] [--untouched] [--bio]
//
// makes a card. Without more it is as a YubiKey leaves the factory: PIN
// 123456, PUK 12345678, the published management key, no keys. ROOTFILE holds
// the attestation root that signs the card's attestation key; it is made if it
// does not exist, and cards that share it are trusted by whoever trusts it.
// Nobody can touch a virtual card: a key that asks for touch acts as if it had
// been touched, or, with --untouched, as if nobody ever does.
//
//	root --root ROOTFILE --pem
//
// prints the attestation root's certificate, for an authority under test.
//
//	reader --dir DIR [--outlive-parent] [--rm] [CARD...]
//
// runs pcscd with up to two cards until it is interrupted. It needs pcscd and
// the vpcd driver (Debian: pcscd, vsmartcard-vpcd), and either root or
// unprivileged user namespaces; the computer's own pcscd and cards are not
// touched. When clients can see the cards it prints, as its last line,
//
//	PCSCLITE_CSOCK_NAME=DIR/pcscd/pcscd.comm
//
// which is the environment that clients need. It ends when the process that
// started it ends, unless --outlive-parent is given. --rm removes DIR then.
// Status 3 says that namespaces are forbidden here.
//
//	insert --dir DIR SERIAL|CARD     puts a card in; it may be a new one
//	eject --dir DIR SERIAL           pulls it out, without warning
//	restart-pcscd --dir DIR          the cards stay in
//	list --dir DIR                   which cards are in which reader
//
// command a running reader. They return when pcscd has noticed.
package main
