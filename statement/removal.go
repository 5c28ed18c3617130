// SPDX-License-Identifier: Apache-2.0

package statement

import "valise/identity"

// A Removal takes a person off the roster, with every device.
type Removal struct {
	Change   string // 128 random bits, from NewID
	Address  identity.Address
	Previous [32]byte // as in Roster
	Reason   string
}

// Kind implements Body.
func (*Removal) Kind() Kind { return KindRemoval }

func (r *Removal) members(m *members) {
	m.id("change", &r.Change)
	m.address("address", &r.Address)
	m.hash("previous", &r.Previous)
	m.text("reason", &r.Reason)
}

// Words implements Body.
func (r *Removal) Words() []string {
	return []string{
		"take " + r.Address.String() + " off the roster, with every device",
		"reason: " + r.Reason,
		"takes the place of: " + hashWords(r.Previous),
		"change: " + r.Change,
	}
}
