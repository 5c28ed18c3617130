// SPDX-License-Identifier: Apache-2.0

package bulletin

import (
	"slices"
	"time"

	"valise/identity"
	"valise/statement"
)

// A Standing is the answer for one device of one person.
type Standing struct {
	State  State
	Since  time.Time
	Person bool // it follows from the person's standing, not the device's own

	// Confirmed is false where it rests on a statement that no bulletin knows yet.
	Confirmed bool
}

// Good reports whether the device may connect, send and be sent to.
func (s Standing) Good() bool { return s.State == Active }

// worse takes the more severe of two standings, the earlier of two equal ones.
func worse(a, b Standing) Standing {
	if severity[b.State] > severity[a.State] {
		return b
	}
	return a
}

// Device returns the standing of a device and of the person it belongs to, the
// worse of both. Who is not listed is active.
func (s *Set) Device(id identity.DeviceID, address identity.Address) Standing {
	standing := Standing{State: Active, Confirmed: true}
	if d := s.devices[id]; d != nil {
		standing = worse(standing, Standing{State: d.State, Since: d.Since, Confirmed: true})
	}
	if p := s.people[address]; p != nil {
		standing = worse(standing, Standing{State: p.State, Since: p.Since, Person: true, Confirmed: true})
	}
	for _, p := range s.pending {
		if state, person := p.device(id, address); state != Active {
			standing = worse(standing, Standing{State: state, Since: p.time, Person: person})
		}
	}
	return standing
}

// device says what a statement makes of a device.
func (p *pending) device(id identity.DeviceID, address identity.Address) (state State, person bool) {
	var target *statement.Target
	switch b := p.body.(type) {
	case *statement.Suspension:
		target, state = &b.Target, Suspended
	case *statement.Revocation:
		target, state = &b.Target, Revoked
	case *statement.Removal:
		if b.Address == address {
			return Removed, true
		}
		return Active, false
	default:
		return Active, false
	}
	switch {
	case target.Kind == statement.TargetOfficer:
		return Active, false
	case target.Kind == statement.TargetPerson && target.Address == address:
		return state, true
	case target.Kind == statement.TargetDevice && target.Device == id || slices.Contains(target.Devices, id):
		return state, false
	}
	return Active, false
}

// Officer returns the standing of an officer by address, key and role. One whom
// the bulletin does not list is none: Dismissed. Before the first bulletin only
// statements count against an officer.
func (s *Set) Officer(address identity.Address, key identity.DeviceID, role identity.Role) State {
	state := Active
	if s.bulletin != nil {
		o := s.officers[key]
		if o == nil || o.Address != address || o.Role != role {
			return Dismissed
		}
		state = o.State
	}
	for _, p := range s.pending {
		if against := p.officer(address, key); severity[against] > severity[state] {
			state = against
		}
	}
	return state
}

// officer says what a statement makes of an officer: out, whether it names the
// officer, the person, the key or its card.
func (p *pending) officer(address identity.Address, key identity.DeviceID) State {
	out := func(t *statement.Target) State {
		if t.Address == address || slices.Contains(t.All(), key) {
			return Suspended
		}
		return Active
	}
	switch b := p.body.(type) {
	case *statement.Suspension:
		return out(&b.Target)
	case *statement.Revocation:
		return out(&b.Target)
	case *statement.Dismissal:
		if b.Address == address {
			return Dismissed
		}
	case *statement.Removal:
		if b.Address == address {
			return Dismissed
		}
	}
	return Active
}

// Clearance returns what a device's certificate says, reduced to what its person
// may have now.
func (s *Set) Clearance(device *identity.Device) *identity.Clearance {
	have := device.Clearance
	if p := s.people[device.Address]; p != nil {
		have = Lower(have, p.Ceiling)
	}
	for _, p := range s.pending {
		if r, ok := p.body.(*statement.Roster); ok && r.Address == device.Address {
			have = Lower(have, r.Clearance)
		}
	}
	return have
}

// Ceiling returns the most that a person may have now; limited is false where
// nothing is known that would lower what a certificate says.
func (s *Set) Ceiling(address identity.Address) (ceiling *identity.Clearance, limited bool) {
	lower := func(c *identity.Clearance) {
		if !limited {
			ceiling, limited = c, true
			return
		}
		ceiling = Lower(ceiling, c)
	}
	if p := s.people[address]; p != nil {
		lower(p.Ceiling)
	}
	for _, p := range s.pending {
		if r, ok := p.body.(*statement.Roster); ok && r.Address == address {
			lower(r.Clearance)
		}
	}
	return ceiling, limited
}

// Lower returns what two clearances have in common, nil if that is nothing:
// classes and categories that stand in both, under one policy. Categories are
// compared whole.
func Lower(a, b *identity.Clearance) *identity.Clearance {
	if a == nil || b == nil || !a.PolicyID.Equal(b.PolicyID) {
		return nil
	}
	var classes []int
	for _, class := range a.Classes() {
		if b.ClassList.At(class) == 1 {
			classes = append(classes, class)
		}
	}
	list, err := identity.NewClassList(classes...)
	if err != nil || len(classes) == 0 {
		return nil
	}
	common := &identity.Clearance{PolicyID: a.PolicyID, ClassList: list}
	for _, category := range a.Categories {
		one := &identity.Clearance{PolicyID: a.PolicyID, Categories: []identity.SecurityCategory{category}}
		if b.Covers(one) {
			common.Categories = append(common.Categories, category)
		}
	}
	return common
}

// Barred returns the devices and the people against whom something speaks, each once and
// in no order. What follows for one of them, Device says.
func (s *Set) Barred() (devices []identity.DeviceID, people []identity.Address) {
	ids, addresses := make(map[identity.DeviceID]bool), make(map[identity.Address]bool)
	for id := range s.devices {
		ids[id] = true
	}
	for address, p := range s.people {
		if p.State != Active {
			addresses[address] = true
		}
	}
	target := func(t *statement.Target) {
		if t.Kind == statement.TargetOfficer {
			return
		}
		for _, id := range t.All() {
			ids[id] = true
		}
		if t.Kind == statement.TargetPerson {
			addresses[t.Address] = true
		}
	}
	for _, p := range s.pending {
		switch b := p.body.(type) {
		case *statement.Suspension:
			target(&b.Target)
		case *statement.Revocation:
			target(&b.Target)
		case *statement.Removal:
			addresses[b.Address] = true
		}
	}
	for id := range ids {
		devices = append(devices, id)
	}
	for address := range addresses {
		people = append(people, address)
	}
	return devices, people
}
