// SPDX-License-Identifier: Apache-2.0

package statement

import "valise/identity"

// An Appointment makes a person an officer, administrator or auditor, with the
// key in slot 9c of their card.
type Appointment struct {
	Change    string // 128 random bits, from NewID
	Address   identity.Address
	Role      identity.Role
	Key       []byte   // SubjectPublicKeyInfo in DER
	Evidence  [32]byte // SHA-256 of the evidence
	Appraisal [32]byte // SHA-256 of the appraisal policy
	Previous  [32]byte // BodyDigest of the last Appointment or Dismissal of this address, zero if there was none
}

// Kind implements Body.
func (*Appointment) Kind() Kind { return KindAppointment }

func (a *Appointment) members(m *members) {
	m.id("change", &a.Change)
	m.address("address", &a.Address)
	choice(m, "role", &a.Role, identity.RoleOfficer, identity.RoleAdministrator, identity.RoleAuditor)
	m.key("key", &a.Key)
	m.mustHash("evidence", &a.Evidence)
	m.mustHash("appraisal", &a.Appraisal)
	m.hash("previous", &a.Previous)
}

// Words implements Body.
func (a *Appointment) Words() []string {
	id, err := keyID(a.Key)
	key := id.String()
	if err != nil {
		key = "cannot be read: " + err.Error()
	}
	return []string{
		"appoint " + a.Address.String() + " as " + string(a.Role),
		"key, as its holder reads it out: " + key,
		"evidence: " + hashWords(a.Evidence),
		"appraised under policy: " + hashWords(a.Appraisal),
		"takes the place of: " + hashWords(a.Previous),
		"change: " + a.Change,
	}
}
