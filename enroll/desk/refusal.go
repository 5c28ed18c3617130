// SPDX-License-Identifier: Apache-2.0

package desk

import "valise/enroll/desk/call"

// A Refusal says why an officer's request is not granted. Reason is a code
// that stays the same between versions, one of package call's or a backend's
// own; Detail is for the officer.
type Refusal struct {
	Reason string
	Detail string
}

func (r *Refusal) Error() string { return r.Reason + ": " + r.Detail }

// Refuse returns a Refusal as an error.
func Refuse(reason, detail string) error { return &Refusal{reason, detail} }

var _ = call.ReasonNotFound
