// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"errors"
	"fmt"
)

// A Reason says, as one word for the audit stream, why a statement was
// refused.
type Reason string

// The reasons of an Error.
const (
	ReasonMalformed Reason = "malformed_statement" // not in canonical form, or a body that no officer's program writes
	ReasonTooLarge  Reason = "statement_too_large"
	ReasonAlgorithm Reason = "statement_algorithm" // not the alg that belongs to the key's curve
	ReasonSignature Reason = "statement_signature" // the signature does not verify
	ReasonSigner    Reason = "statement_signer"    // the chain is no officer's; wraps *identity.ChainError
	ReasonAuthority Reason = "statement_authority" // for, or under, another authority's root
	ReasonEarly     Reason = "statement_early"     // made after the time as of which it is judged
	ReasonExpired   Reason = "statement_expired"   // past its Expires
	ReasonRole      Reason = "statement_role"      // the signer's role may not sign this
	ReasonSelf      Reason = "statement_self"      // the signer is the person concerned
)

// An Error says why a statement was refused.
type Error struct {
	Reason Reason
	Err    error // the cause; never nil
}

func (e *Error) Error() string { return fmt.Sprintf("statement refused (%s): %v", e.Reason, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the reason of a refused statement, and "" for any other
// error.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}

func refuse(reason Reason, format string, args ...any) error {
	return &Error{Reason: reason, Err: fmt.Errorf(format, args...)}
}
