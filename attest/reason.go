// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"errors"
	"fmt"
)

// A Reason says, as one word for the audit stream, why evidence was refused.
type Reason string

// Reasons for which evidence yields no claims; they stand in an Error.
const (
	ReasonNoEvidence    Reason = "no_evidence"        // there is none
	ReasonUnknownFormat Reason = "unknown_format"     // evidence of another kind of hardware
	ReasonMalformed     Reason = "malformed_evidence" // not what the format demands
	ReasonBadSignature  Reason = "bad_signature"      // the card's attestation key did not sign it
	ReasonUnknownRoot   Reason = "unknown_root"       // no endorsed root stands above it
	ReasonNotYetValid   Reason = "not_yet_valid"      // dated in the future
	ReasonExpired       Reason = "expired_evidence"   // its certificate has run out
)

// Reasons for which a policy refuses claims; they stand in a Rule.
const (
	ReasonUnstated           Reason = "unstated"            // the evidence does not say
	ReasonRoot               Reason = "root"                // a root that this policy does not list
	ReasonAlgorithm          Reason = "algorithm"           // another kind of key
	ReasonKeyMismatch        Reason = "key_mismatch"        // evidence for another key
	ReasonChallengeMismatch  Reason = "challenge_mismatch"  // not this challenge, or not signed by this key
	ReasonGeneratedElsewhere Reason = "generated_elsewhere" // the key was imported
	ReasonSlot               Reason = "slot"
	ReasonFirmware           Reason = "firmware_too_old"
	ReasonPINPolicy          Reason = "pin_policy"
	ReasonTouchPolicy        Reason = "touch_policy"
	ReasonFormFactor         Reason = "form_factor"
	ReasonDeniedSerial       Reason = "denied_serial"
	ReasonCertification      Reason = "certification"  // FIPS or CSPN demanded, and denied by the evidence
	ReasonOtherCard          Reason = "other_card"     // the two keys sit in different cards
	ReasonInvalidPolicy      Reason = "invalid_policy" // the policy itself is wrong
	ReasonSameKey            Reason = "same_key"       // the two chains attest one key
	ReasonFormat             Reason = "format"         // a kind of evidence that this policy does not accept here
	ReasonActivation         Reason = "activation"     // the endorsed TPM does not hold the key that certifies
	ReasonExtractable        Reason = "extractable"    // the key can leave the hardware, or could
	ReasonSensitive          Reason = "sensitive"      // the key can be read in clear, or could
	ReasonRestricted         Reason = "restricted"     // the key signs only what the hardware made
)

// An Error says why evidence yields no claims.
type Error struct {
	Reason Reason
	Err    error // the cause; never nil
}

func (e *Error) Error() string { return fmt.Sprintf("evidence refused (%s): %v", e.Reason, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the reason of an Error, and "" for any other error.
func ReasonOf(err error) Reason {
	if refused, ok := errors.AsType[*Error](err); ok {
		return refused.Reason
	}
	return ""
}

func refuse(reason Reason, format string, args ...any) error {
	return &Error{Reason: reason, Err: fmt.Errorf(format, args...)}
}
