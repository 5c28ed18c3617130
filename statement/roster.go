// SPDX-License-Identifier: Apache-2.0

package statement

import "valise/identity"

// A Roster entry puts a person on the roster, or changes who they are and what
// they may see.
type Roster struct {
	Change    string // 128 random bits, from NewID
	Address   identity.Address
	Name      string
	Unit      string              // may be empty
	Clearance *identity.Clearance // nil: none

	// Previous is the BodyDigest of the last Roster or Removal of this address,
	// zero if there was none. It orders changes: an old one cannot come back.
	Previous [32]byte
}

// Kind implements Body.
func (*Roster) Kind() Kind { return KindRoster }

func (r *Roster) members(m *members) {
	m.id("change", &r.Change)
	m.address("address", &r.Address)
	m.text("name", &r.Name)
	m.optional("unit", &r.Unit)
	m.clearance("clearance", &r.Clearance)
	m.hash("previous", &r.Previous)
}

// Words implements Body.
func (r *Roster) Words() []string {
	return []string{
		"put " + r.Address.String() + " on the roster",
		"name: " + r.Name,
		"unit: " + orNone(r.Unit),
		"clearance: " + clearanceWords(r.Clearance),
		"takes the place of: " + hashWords(r.Previous),
		"change: " + r.Change,
	}
}
