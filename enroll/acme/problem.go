// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"valise/internal/store/authority"
)

// A Refusal says why a request is not granted. Reason is a code that stays the same
// between versions: it stands in the audit stream and in the problem document.
// Detail is for the applicant and holds no secret.
type Refusal struct {
	Reason Reason
	Detail string

	subproblems []subproblem
}

func (r *Refusal) Error() string { return string(r.Reason) + ": " + r.Detail }

// Refuse returns a Refusal as an error.
func Refuse(reason Reason, detail string) error { return &Refusal{Reason: reason, Detail: detail} }

// A Reason is the code of a refusal. Besides those below there are the appraisal's,
// as package attest names them.
type Reason string

// Reasons of this front and of package enroll.
const (
	MalformedRequest   Reason = "malformed_request"
	BadNonce           Reason = "bad_nonce"
	BadURL             Reason = "bad_url"
	BadSignature       Reason = "bad_signature"
	BadAlgorithm       Reason = "bad_signature_algorithm"
	BadAccountKey      Reason = "bad_account_key"
	UnknownAccount     Reason = "unknown_account"
	AccountDeactivated Reason = "account_deactivated"
	InvitationRequired Reason = "invitation_required"
	InvitationUnknown  Reason = "invitation_unknown"
	InvitationUsed     Reason = "invitation_used"
	InvitationExpired  Reason = "invitation_expired"
	InvitationKey      Reason = "invitation_key"
	NotOnRoster        Reason = "not_on_roster"
	WrongIdentifier    Reason = "wrong_identifier"
	DeviceTaken        Reason = "device_taken"
	TooManyOrders      Reason = "too_many_orders"
	NotFound           Reason = "not_found"
	NotYours           Reason = "not_yours"
	ChallengeReused    Reason = "challenge_reused"
	ChallengeExpired   Reason = "challenge_expired"
	OrderNotReady      Reason = "order_not_ready"
	OrderExpired       Reason = "order_expired"
	OrderChanged       Reason = "order_changed"
	BadCSR             Reason = "bad_csr"
	CSRKeyMismatch     Reason = "csr_key_mismatch"
	RateLimited        Reason = "rate_limited"
	AccountKeyTaken    Reason = "account_key_taken"
	AccountKeyInUse    Reason = "account_key_in_use"
	AlreadyReplaced    Reason = "already_replaced"
	NotSupported       Reason = "not_supported"

	RevocationByOfficers Reason = "revocation_by_officers"

	Unavailable    Reason = "unavailable"
	HSMUnavailable Reason = "hsm_unavailable"
)

// kind is an ACME error type (RFC 8555, Section 6.7) and its HTTP status.
type kind struct {
	name   string
	status int
}

var kinds = map[Reason]kind{
	MalformedRequest:   {"malformed", http.StatusBadRequest},
	BadNonce:           {"badNonce", http.StatusBadRequest},
	BadURL:             {"unauthorized", http.StatusUnauthorized}, // RFC 8555, Section 6.4
	BadSignature:       {"malformed", http.StatusBadRequest},
	BadAlgorithm:       {"badSignatureAlgorithm", http.StatusBadRequest},
	BadAccountKey:      {"badPublicKey", http.StatusBadRequest},
	UnknownAccount:     {"accountDoesNotExist", http.StatusBadRequest},
	InvitationRequired: {"externalAccountRequired", http.StatusForbidden},
	WrongIdentifier:    {"rejectedIdentifier", http.StatusForbidden},
	DeviceTaken:        {"rejectedIdentifier", http.StatusForbidden},
	TooManyOrders:      {"rateLimited", http.StatusTooManyRequests},
	NotFound:           {"malformed", http.StatusNotFound},
	ChallengeReused:    {"malformed", http.StatusConflict},
	ChallengeExpired:   {"malformed", http.StatusConflict},
	OrderNotReady:      {"orderNotReady", http.StatusForbidden},
	OrderExpired:       {"malformed", http.StatusConflict},
	OrderChanged:       {"malformed", http.StatusConflict},
	BadCSR:             {"badCSR", http.StatusBadRequest},
	CSRKeyMismatch:     {"badCSR", http.StatusBadRequest},
	RateLimited:        {"rateLimited", http.StatusTooManyRequests},
	AccountKeyTaken:    {"malformed", http.StatusConflict}, // RFC 8555, Section 7.3.5
	AccountKeyInUse:    {"malformed", http.StatusConflict},
	AlreadyReplaced:    {"alreadyReplaced", http.StatusConflict}, // RFC 9773, Section 5
	NotSupported:       {"malformed", http.StatusMethodNotAllowed},
	Unavailable:        {"serverInternal", http.StatusServiceUnavailable},
	HSMUnavailable:     {"serverInternal", http.StatusServiceUnavailable},
	// All others are "unauthorized": see kindOf.
}

func kindOf(r Reason) kind {
	if k, ok := kinds[r]; ok {
		return k
	}
	return kind{"unauthorized", http.StatusForbidden}
}

const problemPrefix = "urn:ietf:params:acme:error:"

// A problem is the problem document of RFC 7807 with RFC 8555's fields and one of
// ours, reason.
type problem struct {
	Type       string   `json:"type"`
	Detail     string   `json:"detail,omitempty"`
	Status     int      `json:"status,omitempty"`
	Algorithms []string `json:"algorithms,omitempty"` // RFC 8555, Section 6.2
	Reason     Reason   `json:"reason,omitempty"`

	Subproblems []subproblem `json:"subproblems,omitempty"`
}

// A subproblem is RFC 8555, Section 6.7.1's: what is wrong with one identifier.
type subproblem struct {
	Type       string      `json:"type"`
	Detail     string      `json:"detail,omitempty"`
	Identifier *identifier `json:"identifier,omitempty"`
}

// clipped is an identifier as it may be sent back.
func (id identifier) clipped() *identifier { return &identifier{clip(id.Type), clip(id.Value)} }

func problemOf(r *Refusal) *problem {
	k := kindOf(r.Reason)
	p := &problem{Type: problemPrefix + k.name, Detail: r.Detail, Status: k.status, Reason: r.Reason, Subproblems: r.subproblems}
	if r.Reason == BadAlgorithm {
		p.Algorithms = []string{"ES256", "ES384"}
	}
	return p
}

// attestationProblem is the error of a challenge whose evidence was not accepted
// (draft-ietf-acme-device-attest-09, Section 9.2), with a subproblem for each rule of
// the appraisal that failed. The order, which may be nil, has the reason if it ended
// later than the challenge.
func attestationProblem(o *authority.Order, a *authority.Authorization) *problem {
	reason := a.Reason
	var id *identifier
	if o != nil {
		id = &identifier{IdentifierType, o.Device.String()}
		if o.Reason != "" {
			reason = o.Reason
		}
	}
	words := func(reason string) string { return strings.ReplaceAll(reason, "_", " ") }
	p := &problem{
		Type: problemPrefix + "badAttestationStatement", Status: http.StatusForbidden, Reason: Reason(reason),
		Detail: "the evidence was not accepted: " + words(reason),
	}
	var result struct {
		Rules []struct {
			Rule   string
			Passed bool
			Reason string
		}
	}
	if json.Unmarshal(a.Result, &result) != nil {
		return p // none was stored
	}
	for _, r := range result.Rules {
		if !r.Passed && len(p.Subproblems) < maxSubproblems {
			p.Subproblems = append(p.Subproblems, subproblem{
				Type: p.Type, Detail: "rule " + words(r.Rule) + ": " + words(r.Reason), Identifier: id,
			})
		}
	}
	return p
}

func asRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil { // our own types always marshal
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
