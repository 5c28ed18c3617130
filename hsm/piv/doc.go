// SPDX-License-Identifier: Apache-2.0

// Package piv uses keys in PIV smartcards (NIST SP 800-73-4) with YubiKey's
// extensions for attestation, through the machine's PC/SC service.
//
//	card, err := piv.Open(ctx, piv.Config{PIN: keys.PINPrompt(tty)})
//	if err != nil { ... hsm.Hint(err) ... }
//	defer card.Close()
//	key, err := card.Key(ctx, "9a")
//
// # One owner
//
// While a Token is open, the card belongs to this process alone; other
// programs get "in use". Open it late and close it early, or let one process
// (the agent) own it. Logout gives the card free until the next use.
//
// # The PIN
//
// This package keeps no PIN. A key with PIN policy "once" needs it once: the
// card itself remembers that it was shown, until it is reset. Logout and Close
// therefore reset the card, so that the next process must show the PIN again;
// when a process dies, pcscd resets the card. A key with policy "always" (9c)
// asks at each use. A refused PIN is never sent again by itself.
//
// # Cards that come and go
//
// A Token stands for one card from insertion to removal. After Removed is
// closed all its keys return hsm.ErrRemoved for good, and Open finds the card
// that was inserted next. Both survive any number of removals and restarts of
// pcscd in one process.
//
// This package never resets the PIV application, never changes PIN, PUK or
// management key, and never overwrites a key unless its slot is named for it.
//
// It needs cgo and Linux; elsewhere it is empty.
package piv
