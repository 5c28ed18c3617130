// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"bytes"
	"fmt"
	"time"

	"valise/identity"
)

// RoleDevice stands in a Template for a certificate that is no officer's.
const RoleDevice = "device"

// A Template is everything about a certificate that officers decide on.
type Template struct {
	Address        identity.Address
	Device         identity.DeviceID // of CSRKey
	CSRKey         []byte            // SubjectPublicKeyInfo in DER
	Role           string            // RoleDevice, or an identity.Role
	Profile        string
	ProfileVersion int
	Clearance      *identity.Clearance // nil: none
	Tier           identity.Tier
	Validity       time.Duration
	Evidence       [32]byte // SHA-256 of the evidence
	Appraisal      [32]byte // SHA-256 of the appraisal policy
	Witnessed      bool     // the signer saw the key made; no vendor vouches for it
}

// An Approval agrees that one request gets one certificate. The head's Expires
// is the time until which it can be used for a first issuance.
type Approval struct {
	Request string // the order's id
	Template
}

// Kind implements Body.
func (*Approval) Kind() Kind { return KindApproval }

func (a *Approval) members(m *members) {
	m.token("request", &a.Request)
	m.address("address", &a.Address)
	m.mustHash("device", (*[32]byte)(&a.Device))
	m.key("key", &a.CSRKey)
	choice(m, "role", &a.Role, RoleDevice, string(identity.RoleOfficer), string(identity.RoleAdministrator), string(identity.RoleAuditor))
	m.token("profile", &a.Profile)
	m.number("version", &a.ProfileVersion, 1, maxVersion)
	m.clearance("clearance", &a.Clearance)
	choice(m, "tier", &a.Tier, identity.TierHardware, identity.TierWitnessed)
	m.period("validity", &a.Validity, time.Second)
	m.hash("evidence", &a.Evidence)
	m.hash("appraisal", &a.Appraisal)
	m.flag("witnessed", &a.Witnessed)
	if m.err != nil {
		return
	}
	id, err := keyID(a.CSRKey)
	m.check(err == nil && id == a.Device, "device: it is not the id of the key")
	var none [32]byte
	m.check(a.Tier != identity.TierHardware || a.Evidence != none && a.Appraisal != none, "tier: hardware needs the hashes of evidence and appraisal policy")
	m.check(a.Witnessed == (a.Tier == identity.TierWitnessed), "tier: witnessed is a key that the signer saw being made, and no other")
}

// Words implements Body.
func (a *Approval) Words() []string {
	lines := []string{
		"approve a certificate for " + a.Address.String(),
		"request: " + a.Request,
		"device, as the applicant reads it out: " + a.Device.String(),
		"kind: " + a.kind(),
		fmt.Sprintf("profile: %s, version %d", a.Profile, a.ProfileVersion),
		"clearance: " + clearanceWords(a.Clearance),
		"tier: " + string(a.Tier),
		"valid for: " + periodWords(a.Validity) + " each time",
		"evidence: " + hashWords(a.Evidence),
		"appraised under policy: " + hashWords(a.Appraisal),
	}
	if a.Witnessed {
		lines = append(lines, "I SAW THIS KEY BEING MADE IN THE DEVICE; no vendor vouches for it")
	}
	return lines
}

func (a *Approval) kind() string {
	if a.Role == RoleDevice {
		return "a device of an official"
	}
	return "a card of an " + a.Role
}

// Covers reports whether approvals of t also carry a certificate as o says: a
// renewal, with the same person, key, role and profile, and nothing raised.
// Evidence and appraisal policy may be newer ones.
func (t Template) Covers(o Template) bool {
	return !t.Address.IsZero() && t.Address == o.Address &&
		!t.Device.IsZero() && t.Device == o.Device && bytes.Equal(t.CSRKey, o.CSRKey) &&
		t.Role == o.Role && t.Profile == o.Profile && t.ProfileVersion <= o.ProfileVersion &&
		t.Clearance.Covers(o.Clearance) &&
		tierCovers(t.Tier, o.Tier) && o.Validity <= t.Validity
}

// tierCovers reports whether other is equal to or lower than tier.
func tierCovers(tier, other identity.Tier) bool {
	return tier == other || tier == identity.TierHardware && other == identity.TierWitnessed
}
