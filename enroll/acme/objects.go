// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"encoding/json"
	"time"

	"valise/internal/store/authority"
	"valise/record"
)

// ChallengeType is draft-ietf-acme-device-attest-09's challenge; IdentifierType its
// identifier for a device.
const (
	ChallengeType  = "device-attest-01"
	IdentifierType = "permanent-identifier"
)

// directory is RFC 8555, Section 7.1.1's, with RFC 9773's renewalInfo.
type directory struct {
	NewNonce    string        `json:"newNonce"`
	NewAccount  string        `json:"newAccount"`
	NewOrder    string        `json:"newOrder"`
	KeyChange   string        `json:"keyChange"`
	RevokeCert  string        `json:"revokeCert"`
	RenewalInfo string        `json:"renewalInfo"`
	TPM         string        `json:"valiseTpm"` // ours: tpm.go
	Meta        directoryMeta `json:"meta"`
}

type directoryMeta struct {
	ExternalAccountRequired bool `json:"externalAccountRequired"`
}

// account is RFC 8555, Section 7.1.2's.
type account struct {
	Status string `json:"status"`
	Orders string `json:"orders"`
}

// newAccount is the payload of RFC 8555, Section 7.3. Contacts are not kept: the
// address comes from the invitation.
type newAccount struct {
	OnlyReturnExisting     bool            `json:"onlyReturnExisting"`
	ExternalAccountBinding json.RawMessage `json:"externalAccountBinding"`
}

// identifier is RFC 8555, Section 7.1.3's.
type identifier struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// newOrder is the payload of RFC 8555, Section 7.4.
type newOrder struct {
	Identifiers []identifier `json:"identifiers"`
	NotBefore   string       `json:"notBefore"`
	NotAfter    string       `json:"notAfter"`
	Replaces    *string      `json:"replaces"` // RFC 9773, Section 5
}

// order is RFC 8555, Section 7.1.3's.
type order struct {
	Status         string       `json:"status"`
	Expires        string       `json:"expires"`
	Identifiers    []identifier `json:"identifiers"`
	Authorizations []string     `json:"authorizations"`
	Finalize       string       `json:"finalize"`
	Certificate    string       `json:"certificate,omitempty"`
	Replaces       string       `json:"replaces,omitempty"`
	Error          *problem     `json:"error,omitempty"`

	// Waiting is ours: what a "processing" order waits for besides the token.
	Waiting *waiting `json:"valiseWaiting,omitempty"`
}

// waiting says to the applicant what officers have to decide, and why.
type waiting struct {
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

// authorization is RFC 8555, Section 7.1.4's.
type authorization struct {
	Identifier identifier  `json:"identifier"`
	Status     string      `json:"status"`
	Expires    string      `json:"expires"`
	Challenges []challenge `json:"challenges"`
}

// challenge is RFC 8555, Section 8's, with device-attest-01's token.
type challenge struct {
	Type      string   `json:"type"`
	URL       string   `json:"url"`
	Status    string   `json:"status"`
	Token     string   `json:"token"`
	Validated string   `json:"validated,omitempty"`
	Error     *problem `json:"error,omitempty"`
}

// answer is the response to a device-attest-01 challenge (draft, Section 5).
type answer struct {
	AttObj *string `json:"attObj"`
	Error  *string `json:"error"` // what a client says that cannot attest
}

// finalize is the payload of RFC 8555, Section 7.4.
type finalize struct {
	CSR *string `json:"csr"`
}

type orderList struct {
	Orders []string `json:"orders"`
}

// update is the payload for an account's URL (RFC 8555, Sections 7.3.2 and 7.3.6).
type update struct {
	Status string `json:"status"`
}

func (s *Server) order(o *authority.Order, a *authority.Authorization) order {
	out := order{
		Status: o.Status, Expires: stamp(o.Expires),
		Identifiers:    []identifier{{IdentifierType, o.Device.String()}},
		Authorizations: []string{s.url(pathAuthorization, a.ID)},
		Finalize:       s.url(pathOrder, o.ID) + "/finalize", Replaces: o.Replaces,
	}
	if o.Status == authority.Valid {
		out.Certificate = s.url(pathCertificate, o.ID)
	}
	if o.Status == authority.Invalid {
		out.Error = orderProblem(o, a)
	}
	if o.Status == authority.Processing && o.Reason != "" {
		out.Waiting = &waiting{o.Reason, record.Why(o.Reason).Text()}
	}
	return out
}

func orderProblem(o *authority.Order, a *authority.Authorization) *problem {
	reason := Reason(o.Reason)
	atChallenge := a.Reason != "" && a.Reason == o.Reason && reason != OrderExpired
	if atChallenge || !ours(reason) {
		return attestationProblem(o, a)
	}
	return problemOf(&Refusal{Reason: reason, Detail: "the order has come to an end without a certificate"})
}

// ours reports whether an order's reason is the authority's own; all others are the
// appraisal's, which judges again before a certificate is made.
func ours(r Reason) bool {
	_, listed := kinds[r]
	return listed || r == AccountDeactivated || record.Against(record.Reason(r))
}

func (s *Server) authorization(o *authority.Order, a *authority.Authorization) authorization {
	return authorization{
		Identifier: identifier{IdentifierType, o.Device.String()},
		Status:     a.Status, Expires: stamp(a.Expires),
		Challenges: []challenge{s.challenge(o, a)},
	}
}

func (s *Server) challenge(o *authority.Order, a *authority.Authorization) challenge {
	c := challenge{Type: ChallengeType, URL: s.url(pathChallenge, a.ID), Status: a.Status, Token: a.Token}
	switch a.Status {
	case authority.Valid:
		c.Validated = stamp(a.Validated)
	case authority.Invalid:
		c.Error = attestationProblem(o, a)
	case authority.Expired:
		c.Status = authority.Invalid // a challenge has no such state (RFC 8555, Section 7.1.6)
		c.Error = problemOf(&Refusal{Reason: ChallengeExpired, Detail: "the challenge was not answered in time"})
	}
	return c
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
