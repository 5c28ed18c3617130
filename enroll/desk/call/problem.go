// SPDX-License-Identifier: Apache-2.0

package call

import "fmt"

// ContentProblem is the media type of a Problem.
const ContentProblem = "application/problem+json"

// Reasons of the desk, beside those of package statement and of the
// authority's record.
const (
	ReasonMalformed   = "malformed_request"
	ReasonTooLarge    = "request_too_large"
	ReasonNotFound    = "not_found"
	ReasonNonce       = "bad_nonce"
	ReasonServer      = "wrong_server" // a session for another desk
	ReasonSession     = "no_session"   // no token, or one that ran out
	ReasonNotOfficer  = "not_an_officer"
	ReasonRole        = "role_not_allowed"
	ReasonRateLimited = "rate_limited"
	ReasonConflict    = "conflict" // something else happened first: look again
	ReasonUnavailable = "unavailable"
)

// A Problem is the desk's refusal (RFC 9457): Reason is the code that also
// stands in the audit stream.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Reason string `json:"reason"`
}

func (p *Problem) Error() string {
	return fmt.Sprintf("the desk refused (%s): %s", p.Reason, p.Detail)
}
