// SPDX-License-Identifier: Apache-2.0

package statement

import "valise/identity"

// An Invitation lets one person enroll one device with the key of this name.
type Invitation struct {
	Address identity.Address
	Key     string // the key's identifier; the key itself is in nobody's record
}

// Kind implements Body.
func (*Invitation) Kind() Kind { return KindInvitation }

func (i *Invitation) members(m *members) {
	m.address("address", &i.Address)
	m.token("key", &i.Key)
}

// Words implements Body.
func (i *Invitation) Words() []string {
	return []string{"invite " + i.Address.String() + " to enroll one device", "key: " + i.Key}
}
