// SPDX-License-Identifier: Apache-2.0

package call

import (
	"errors"
	"fmt"
	"time"

	"valise/identity"
	"valise/statement"
)

// A Signable is something that an officer may sign: a body as it stands in a
// statement, with its digest.
type Signable struct {
	Kind   statement.Kind `json:"kind"`
	Body   string         `json:"body"`   // canonical JSON, statement.MarshalBody
	Digest string         `json:"digest"` // hexadecimal statement.BodyDigest
}

// NewSignable writes a body down.
func NewSignable(b statement.Body) (Signable, error) {
	body, err := statement.MarshalBody(b)
	if err != nil {
		return Signable{}, err
	}
	return Signable{b.Kind(), string(body), fmt.Sprintf("%x", statement.BodyDigest(b))}, nil
}

// Parse returns the body, after the same checks that signing makes.
func (s *Signable) Parse() (statement.Body, error) {
	b, err := statement.ParseBody(s.Kind, []byte(s.Body))
	if err != nil {
		return nil, err
	}
	if fmt.Sprintf("%x", statement.BodyDigest(b)) != s.Digest {
		return nil, errors.New("the digest is not the body's")
	}
	return b, nil
}

// The states of a Request.
const (
	StateWaiting = "waiting" // for approvals
	StateReady   = "ready"   // approved, being issued
	StateIssued  = "issued"
	StateRefused = "refused"
	StateExpired = "expired"
)

// A Request is a device that wants a certificate. In a list only the members
// up to Needs are set.
type Request struct {
	ID        string            `json:"id"`
	State     string            `json:"state"`
	Created   time.Time         `json:"created"`
	Expires   time.Time         `json:"expires"`
	Address   identity.Address  `json:"address"`
	Device    identity.DeviceID `json:"device"` // the fingerprint that the applicant reads out
	Approvals []Signed          `json:"approvals"`
	Needs     int               `json:"needs"` // approvals in all

	Person   *Person   `json:"person,omitempty"`
	Approval *Signable `json:"approval,omitempty"` // exactly what an approval says; nil when it cannot be approved any more
	Evidence *Evidence `json:"evidence,omitempty"`
	Refusal  string    `json:"refusal,omitempty"` // why it was refused
}

// Signed says who signed something, and when.
type Signed struct {
	Address identity.Address  `json:"address"`
	Key     identity.DeviceID `json:"key"`
	Time    time.Time         `json:"time"`
}

// Evidence is what the device's hardware says of itself, and what the rules
// made of it.
type Evidence struct {
	Format  string   `json:"format"`
	Claims  []Claim  `json:"claims"`
	Reasons []Reason `json:"reasons"`
}

// A Claim is one fact that evidence states.
type Claim struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// A Reason is the outcome of one rule of the appraisal policy.
type Reason struct {
	Rule   string `json:"rule"`
	Passed bool   `json:"passed"`
	Detail string `json:"detail"`
}

// A Person is a row of the roster as the record has it.
type Person struct {
	Address   identity.Address `json:"address"`
	Name      string           `json:"name"`
	Unit      string           `json:"unit"`
	Clearance []byte           `json:"clearance,omitempty"` // DER
	State     string           `json:"state"`               // "active", "suspended", "removed", or "unknown": never on the roster
	Previous  string           `json:"previous"`            // hexadecimal digest of the last Roster or Removal; empty if there was none
	Devices   []Device         `json:"devices,omitempty"`   // of one person only, not in a list
}

// A Device is one that has, or had, a certificate.
type Device struct {
	ID      identity.DeviceID `json:"id"`
	Address identity.Address  `json:"address"`
	State   string            `json:"state"` // "active", "suspended", "revoked"
	Tier    identity.Tier     `json:"tier"`
	Expires time.Time         `json:"expires"`
}

// Rules are the endorsements, the appraisal policy and the policy bundle in force.
type Rules struct {
	Endorsements         string `json:"endorsements"`          // PEM
	EndorsementsPrevious string `json:"endorsements_previous"` // hexadecimal digest of the statement in force; empty: the founding's
	Appraisal            string `json:"appraisal"`             // JSON
	AppraisalPrevious    string `json:"appraisal_previous"`
	Bundle               string `json:"bundle"`         // hexadecimal SHA-256; empty: there is none
	BundleVersion        int    `json:"bundle_version"` // 0: there is none
	BundlePrevious       string `json:"bundle_previous"`
}

// A Profile is one in force.
type Profile struct {
	Name      string          `json:"name"`
	Version   int             `json:"version"`
	Approvals int             `json:"approvals"`
	Validity  int64           `json:"validity"` // seconds
	Grace     int64           `json:"grace"`    // seconds
	Tiers     []identity.Tier `json:"tiers"`
	Previous  string          `json:"previous"`
}

// An Officer is a person with a role.
type Officer struct {
	Address  identity.Address  `json:"address"`
	Role     identity.Role     `json:"role"`
	Key      identity.DeviceID `json:"key"`
	State    string            `json:"state"` // "active", "suspended", "dismissed"
	Expires  time.Time         `json:"expires"`
	Previous string            `json:"previous"`        // hexadecimal digest of the last Appointment or Dismissal
	Chain    [][]byte          `json:"chain,omitempty"` // DER: certificate and issuer; empty while it is not issued
}

// ApplicationLife is how long an applicant may take with a nonce.
const ApplicationLife = 24 * time.Hour

// An Application is what the desk found in an applicant's file.
type Application struct {
	Appointment Signable `json:"appointment"`
	Evidence    Evidence `json:"evidence"`
}

// A Gateway is one whose certificate was asked for.
type Gateway struct {
	Key       identity.DeviceID `json:"key"` // the fingerprint that the gateway prints
	Names     []string          `json:"names"`
	State     string            `json:"state"`
	Created   time.Time         `json:"created"`
	Tier      identity.Tier     `json:"tier"`
	Approvals []Signed          `json:"approvals"`
	Needs     int               `json:"needs"`
	Change    *Signable         `json:"change,omitempty"`   // exactly what officers sign; nil when there is nothing to sign
	Evidence  *Evidence         `json:"evidence,omitempty"` // nil: nobody but the operator vouches for the key
	Refusal   string            `json:"refusal,omitempty"`
}

// A Proposal has signatures and needs more.
type Proposal struct {
	Signable
	Signed  []Signed  `json:"signed"`
	Needs   int       `json:"needs"`
	Expires time.Time `json:"expires"`
}

// A Standing is a suspension or revocation in force.
type Standing struct {
	Kind    string              `json:"kind"` // of statement.Target
	Name    string              `json:"name"` // device, address, serial or root
	State   string              `json:"state"`
	Since   time.Time           `json:"since"`
	Reason  string              `json:"reason"`
	By      identity.Address    `json:"by"`
	Devices []identity.DeviceID `json:"devices,omitempty"`
}

// Item is one leaf of the ledger with its payload.
type Item struct {
	Index   int64  `json:"index"`
	Entry   []byte `json:"entry"`
	Payload []byte `json:"payload"`
}

// Items are some of the ledger's, with the head that covers them.
type Items struct {
	Checkpoint string `json:"checkpoint"` // signed note
	Items      []Item `json:"items"`
}

// The states of an Outcome.
const (
	OutcomeWaiting  = "waiting"  // for more signatures
	OutcomeRecorded = "recorded" // in the ledger, and in force
)

// An Outcome says what became of a statement.
type Outcome struct {
	State      string `json:"state"`
	Have       int    `json:"have"`
	Need       int    `json:"need"`
	Index      int64  `json:"index"`                // of the leaf, -1 while there is none
	Invitation string `json:"invitation,omitempty"` // the code, shown once, for an invitation
}
