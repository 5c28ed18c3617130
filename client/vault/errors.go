// SPDX-License-Identifier: Apache-2.0

package vault

import "errors"

type hintError struct{ text, hint string }

func (e *hintError) Error() string { return e.text }
func (e *hintError) Hint() string  { return e.hint }

// What callers act on.
var (
	// ErrWrongCard: the vault was sealed for another card or another device.
	ErrWrongCard error = &hintError{
		"the vault was sealed for another card",
		"insert the card that this home was enrolled with, or choose another home with --home",
	}
	// ErrAltered: something in the file is not what this vault wrote there.
	ErrAltered error = &hintError{
		"the vault's file was altered or damaged",
		"do not go on with this file: move the home directory away and enroll again; messages still on their way are asked for again",
	}
	// ErrLocked: the vault was locked.
	ErrLocked error = &hintError{"the vault is locked", "run: valise unlock"}
	// ErrExists: Create found a vault.
	ErrExists error = &hintError{"there is a vault already", "choose another home with --home, or unlock this one"}
	// ErrNone: Open found no vault.
	ErrNone error = &hintError{"there is no vault here", "enroll this device first: valise enroll INVITATION"}
)

var errKey = errors.New("vault: table, parent or row is out of bounds")
