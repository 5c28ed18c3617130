// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"errors"
	"fmt"
)

// Hinted is an error that says what to do about it.
type Hinted interface {
	error
	Hint() string
}

// Hint returns the remedy that err or an error wrapped in it carries, or "".
func Hint(err error) string {
	var h Hinted
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// hintError is a sentinel with a remedy.
type hintError struct{ text, hint string }

func (e *hintError) Error() string { return e.text }
func (e *hintError) Hint() string  { return e.hint }

func sentinel(text, hint string) error { return &hintError{text, hint} }

// otherCard is a kind of ErrNoCard.
type otherCard struct{ *hintError }

func (otherCard) Is(target error) bool { return target == ErrNoCard }

// What can go wrong, for errors.Is.
var (
	ErrNoService = sentinel("the smartcard service does not answer",
		"start pcscd, or ask whoever runs this machine to")
	ErrNoCard = sentinel("no card in any reader",
		"insert your card; if it is inserted, take it out and put it back")
	// ErrOtherCard is an ErrNoCard: readers hold cards, none of them the one asked for.
	ErrOtherCard error = otherCard{&hintError{
		"the card that is asked for is in no reader",
		"insert the card with that serial number; others that are in do not serve",
	}}
	ErrManyCards = sentinel("more than one card fits",
		"take the others out, or name one by serial or reader: piv:9a?serial=NUMBER")
	ErrNotPIV = sentinel("the card has no PIV application",
		"use a PIV card; a bank, phone or health card does not work")
	ErrSlot = sentinel("no such slot",
		"PIV slots for keys are 9a, 9c, 9d, 9e and 82 to 95")
	ErrRemoved = sentinel("the card was removed",
		"insert the card again")
	ErrBusy = sentinel("the card is in use by another program",
		"close the other program that uses the card (if it is another Valise agent: valise lock), or wait for it to finish")
	ErrLocked = sentinel("the PIN is blocked",
		"have the PIN unblocked with the PUK; Valise cannot do it")
	ErrNoPIN = sentinel("a PIN is needed and nobody can be asked",
		"name a file that holds the PIN, or run on a terminal")
	ErrPINFormat = sentinel("this cannot be the PIN",
		"a PIV PIN has 6 to 8 characters; it was not sent to the card, so no try was lost")
	ErrOccupied = sentinel("there is a key in this place already",
		"choose a free one (PIV: 9a, 9c, 9d, 9e, 82 to 95); an occupied one is overwritten only if it is named for that")
	ErrManagementKey = sentinel("the card refuses the management key",
		"ask whoever issued the card for its management key")
	ErrNoModule = sentinel("the PKCS#11 module cannot be loaded",
		"check module-path, and that the HSM's software is installed (SoftHSM: package softhsm2)")
	ErrNoToken = sentinel("no such token",
		"check the token's label or serial, and that the module can see it: pkcs11-tool --module MODULE --list-token-slots")
	ErrManyTokens = sentinel("more than one token fits",
		"name the token by its serial: pkcs11:serial=…")
	ErrManyKeys = sentinel("more than one key has this label",
		"name the key by its id: pkcs11:object=…;id=%01, or give each key a label of its own")
	ErrEmptyLabel = sentinel("the label is empty",
		"name the token by its label or serial: a wrong PIN on somebody else's token locks it")
	ErrNoKey = sentinel("there is no such key",
		"check the key's name or slot; a key is made with enroll or init")
	ErrPINPolicy = sentinel("this key does not ask for the PIN at each signature",
		"officers sign with a key in 9c that does: have one made by valise officer apply, or take another card")
	ErrNoCertificate = sentinel("there is no certificate beside this key",
		"the key works without; store a certificate first where one is wanted")
	ErrNoEvidence = sentinel("the hardware gives no evidence for this key",
		"use a key that was generated in a card that can attest it, not an imported one")
	ErrAlgorithm = sentinel("the key's algorithm is not supported",
		"use P-384 or P-256")
	ErrPoint = sentinel("the peer's public key does not fit this key",
		"both keys must be on the same curve")
	ErrDevice = sentinel("the token does not answer",
		"check the HSM and its network; Valise tries again by itself and goes on when it is back")
	ErrClosed = sentinel("the token is closed",
		"open it again")
)

// A PINError says that the hardware refused a PIN.
type PINError struct {
	Retries int // tries left; -1 if the hardware does not tell
}

func (e *PINError) Error() string {
	switch e.Retries {
	case -1:
		return "wrong PIN"
	case 1:
		return "wrong PIN, 1 try left"
	}
	return fmt.Sprintf("wrong PIN, %d tries left", e.Retries)
}

// Hint warns of the last tries.
func (e *PINError) Hint() string {
	if e.Retries == 1 {
		return "the next wrong PIN locks it: make sure of the PIN first"
	}
	return "check the PIN and try again; nothing is retried by itself"
}
