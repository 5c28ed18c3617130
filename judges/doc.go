// SPDX-License-Identifier: Apache-2.0

// Package judges holds tests in which other people's programs judge ours:
// piv-go's hardware suite, Yubico's and OpenSC's PKCS#11 modules and tools,
// Tessera's checker of logs, OpenSSL's and GnuTLS's readers of CRLs and OCSP. They find what a test written by the author of the code cannot find, because
// both would share the same misunderstanding.
//
// The first call of every test here is testenv.Reader or testenv.SoftHSM. Some
// of these programs destroy what is on a card: such a test first makes sure,
// with the guard in card_test.go, that what it is about to destroy is the
// virtual card that it made, behind a socket of its own. Never run one of them
// by hand without PCSCLITE_CSOCK_NAME.
package judges
