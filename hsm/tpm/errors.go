// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"valise/hsm"
)

// A tpmError is a sentinel with a remedy, which is a kind of another one.
type tpmError struct {
	text, hint string
	kind       error
}

func (e *tpmError) Error() string        { return e.text }
func (e *tpmError) Hint() string         { return e.hint }
func (e *tpmError) Is(target error) bool { return e.kind != nil && target == e.kind }

// What only TPMs do, for errors.Is; each is a kind of one of hsm's.
var (
	ErrLockout error = &tpmError{
		"the TPM is locked after wrong PINs",
		"wait: it opens by itself, often after some minutes, for one try at a time", hsm.ErrLocked,
	}
	ErrNoTPM error = &tpmError{
		"there is no TPM, or it may not be used",
		"check that /dev/tpmrm0 exists, and that you are in the group that may use it (on Debian: tss)", hsm.ErrNoService,
	}
	ErrPIN error = &tpmError{
		"this cannot be the PIN",
		fmt.Sprintf("the PIN of keys in a TPM has %d to %d characters; it was not sent, so no try was lost", minPIN, maxPIN), hsm.ErrPINFormat,
	}
	ErrOwned error = &tpmError{
		"the TPM's owner or endorsement hierarchy has a password",
		"give the owner's with --management-key-file; evidence needs an endorsement hierarchy without one", hsm.ErrManagementKey,
	}
	ErrRef error = &tpmError{
		"this names no place in a TPM",
		"name a key by two hexadecimal digits, like 9a, or by a persistent handle of the owner, like 81000100", hsm.ErrSlot,
	}
	ErrNoCertificate error = &tpmError{
		"the TPM holds no certificate of its endorsement key",
		"use a TPM whose maker put one in; others cannot show that they are one", hsm.ErrNoEvidence,
	}
)

// asOwner explains a refused hierarchy.
func asOwner(err error) error {
	if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
		return fmt.Errorf("%w (%w)", ErrOwned, err)
	}
	return err
}

// asKey explains what using a key ended with.
func asKey(err error) error {
	switch {
	case errors.Is(err, tpm2.TPMRCAuthFail), errors.Is(err, tpm2.TPMRCBadAuth):
		return &hsm.PINError{Retries: -1}
	case errors.Is(err, tpm2.TPMRCLockout):
		return ErrLockout
	}
	return err
}
