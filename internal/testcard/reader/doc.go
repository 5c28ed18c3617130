// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package reader puts virtual cards into a reader of their own: a real pcscd
// with the vpcd driver, private to whoever started it.
//
// The reader runs in mount, network and process namespaces (and, for a plain
// user, a user namespace), so that it needs no root, sees no USB device,
// shares no port with another reader, and dies as a whole. Only its folder is
// seen from outside:
//
//	DIR/pcscd/pcscd.comm   what PCSCLITE_CSOCK_NAME has to name
//	DIR/control            commands: eject, insert, restart-pcscd, list
//	DIR/pcscd.log          what pcscd says
//
// Run is the outer half: it starts the same program again inside the
// namespaces, where Inside does the work. The calling program must therefore
// hand its "inside" command to Inside; cmd/valise-testcard does.
//
// The computer's own pcscd, its cards and /run/pcscd are never touched. A
// reader holds two cards, because vpcd has two sockets and a second vpcd
// entry hangs pcscd.
package reader
