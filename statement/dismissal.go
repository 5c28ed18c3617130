// SPDX-License-Identifier: Apache-2.0

package statement

import "valise/identity"

// A Dismissal ends a person's role at once and for ever: what they sign
// afterwards counts for nothing. Another role takes another appointment.
type Dismissal struct {
	Change  string // 128 random bits, from NewID
	Address identity.Address
	Reason  string
}

// Kind implements Body.
func (*Dismissal) Kind() Kind { return KindDismissal }

func (d *Dismissal) members(m *members) {
	m.id("change", &d.Change)
	m.address("address", &d.Address)
	m.text("reason", &d.Reason)
}

// Words implements Body.
func (d *Dismissal) Words() []string {
	return []string{"dismiss " + d.Address.String() + " from their role", "reason: " + d.Reason, "change: " + d.Change}
}
