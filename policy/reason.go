// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"strings"
)

// A Reason says, as one word for the audit stream, why a label is invalid or
// a clearance does not reach it.
type Reason string

// Why there is nothing to decide on.
const (
	ReasonNoLabel        Reason = "no_label"
	ReasonNoClearance    Reason = "no_clearance"
	ReasonUnknownPolicy  Reason = "unknown_policy"
	ReasonOtherPolicy    Reason = "other_policy"    // label and clearance are of different policies: translate first
	ReasonStaleClearance Reason = "stale_clearance" // compiled against another Set
)

// Why a label is invalid.
const (
	ReasonMalformed        Reason = "malformed"
	ReasonUnrecognised     Reason = "unrecognised" // something in the label that is not known to this program
	ReasonSuccession       Reason = "succession"   // the label asks to be replaced later
	ReasonUnknownEdition   Reason = "unknown_edition"
	ReasonOldEdition       Reason = "old_edition" // not the one in force, for a new message
	ReasonPolicyExpired    Reason = "policy_not_valid"
	ReasonNoClassification Reason = "no_classification"
	ReasonUnknownClass     Reason = "unknown_classification"
	ReasonUnknownCategory  Reason = "unknown_category"
	ReasonAmbiguousNumber  Reason = "ambiguous_number"
	ReasonWrongType        Reason = "wrong_type"     // the label claims another type of tag than the policy has
	ReasonNotSelectable    Reason = "not_selectable" // free text, or a tag that does not apply
	ReasonUnknownMark      Reason = "unknown_privacy_mark"
	ReasonObsolete         Reason = "obsolete"
	ReasonNotValid         Reason = "not_valid" // before or after a category's time
	ReasonTooMany          Reason = "too_many"  // of one tag
	ReasonTooFew           Reason = "too_few"   // of one tag
	ReasonRequired         Reason = "required"  // another value must stand beside it
	ReasonExcluded         Reason = "excluded"  // it must not stand beside another value
)

// Why a valid label is out of a clearance's reach.
const (
	ReasonClassification Reason = "classification"
	ReasonRestrictive    Reason = "restrictive"
	ReasonPermissive     Reason = "permissive"
)

// Why a label cannot be translated.
const (
	ReasonNoEquivalent        Reason = "no_equivalent"
	ReasonAmbiguousEquivalent Reason = "ambiguous_equivalent"
	ReasonReleaseLost         Reason = "release_lost" // every value of a permissive tag would be discarded
)

// A Denial is an error with a Reason.
type Denial struct {
	Reason Reason
	Detail string
}

func (d *Denial) Error() string {
	if d.Detail == "" {
		return string(d.Reason)
	}
	return string(d.Reason) + ": " + d.Detail
}

func deny(reason Reason, format string, args ...any) error {
	return &Denial{reason, fmt.Sprintf(format, args...)}
}

// ReasonOf returns the reason of a Denial, "" for any other error.
func ReasonOf(err error) Reason {
	if d, ok := errors.AsType[*Denial](err); ok {
		return d.Reason
	}
	return ""
}

func clip(s string) string {
	if len(s) > maxDetail {
		return strings.ToValidUTF8(s[:maxDetail], "") + "…"
	}
	return s
}
