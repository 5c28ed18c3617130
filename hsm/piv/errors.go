// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package piv

import (
	"errors"
	"fmt"
	"strings"

	pivgo "github.com/go-piv/piv-go/v2/piv"

	"valise/hsm"
)

// Status words of ISO/IEC 7816-4, Section 5.1.3, and SP 800-73-4, Part 2.
const (
	swBlocked     = 0x6983 // authentication method blocked
	swWrongNoInfo = 0x6300 // wrong, tries not told
	swNoIns       = 0x6d00 // instruction not supported
	swBadData     = 0x6a80 // incorrect parameter in the command's data
)

// statusOf finds the card's status word in an error of piv-go's.
func statusOf(err error) (uint16, bool) {
	var s interface{ Status() uint16 }
	if errors.As(err, &s) {
		return s.Status(), true
	}
	return 0, false
}

// pinError translates the card's refusal of a PIN: SP 800-73-4, Part 2,
// Section 3.2.1. It returns nil for any other error.
func pinError(err error) error {
	var auth pivgo.AuthErr
	if !errors.As(err, &auth) {
		return nil
	}
	sw, ok := statusOf(err)
	switch {
	case !ok || sw == swWrongNoInfo:
		return &hsm.PINError{Retries: -1}
	case sw == swBlocked || auth.Retries == 0:
		return hsm.ErrLocked
	}
	return &hsm.PINError{Retries: auth.Retries}
}

// managementError translates a failed authentication with the management key.
func managementError(err error) error {
	if err == nil || !strings.HasPrefix(err.Error(), "authenticating with management key") {
		return err
	}
	return fmt.Errorf("%w: %v", hsm.ErrManagementKey, err)
}

// explain says why an operation on the card failed. Callers hold t.mu.
func (t *Token) explain(err error) error {
	if err == nil {
		return nil
	}
	if t.gone() { // before all else: nothing that a card says after it left counts
		return fmt.Errorf("%w (%v)", hsm.ErrRemoved, err)
	}
	if pin := pinError(err); pin != nil {
		return pin
	}
	return err
}
