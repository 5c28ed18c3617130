// SPDX-License-Identifier: Apache-2.0

package record

import (
	"crypto/x509"
	"time"

	"valise/identity"
	"valise/statement"
)

// A Person is one line of the roster, as officers signed it.
type Person struct {
	Address   identity.Address
	Name      string
	Unit      string
	Clearance *identity.Clearance // the most that a certificate may say; nil: none
	Changed   time.Time
	Removed   bool
	Leaf      int64
}

// An Invitation lets one person make one account.
type Invitation struct {
	Key     string // its identifier
	Address identity.Address
	By      identity.Address
	Time    time.Time
	Leaf    int64
}

func (s *State) checkRoster(b *statement.Roster) *Finding {
	if b.Previous != s.rosterBodies[b.Address] {
		return find(StaleChange, "the roster's line for %s was changed since", b.Address)
	}
	if b.Address.Domain() != s.founding.Domain {
		return find(WrongDomain, "%s is outside %s", b.Address, s.founding.Domain)
	}
	return nil
}

// Raises reports whether a line of the roster gives its person more than they have
// now, and so takes two officers.
func (s *State) Raises(b *statement.Roster) bool {
	p, ok := s.people[b.Address]
	return !ok || p.Removed || !p.Clearance.Covers(b.Clearance)
}

func (s *State) setRoster(b *statement.Roster, digest [32]byte, at time.Time) {
	put(s, s.people, b.Address, Person{
		Address: b.Address, Name: b.Name, Unit: b.Unit, Clearance: b.Clearance, Changed: at, Leaf: s.Size(),
	})
	put(s, s.rosterBodies, b.Address, digest)
}

func (s *State) checkRemoval(b *statement.Removal) *Finding {
	p, ok := s.people[b.Address]
	if !ok || p.Removed || b.Previous != s.rosterBodies[b.Address] {
		return find(StaleChange, "%s is not on the roster, or their line was changed since", b.Address)
	}
	return s.enoughLeft(b.Address)
}

// remove takes a person off the roster. The approvals of their devices end with it:
// who comes back is approved anew.
func (s *State) remove(b *statement.Removal, digest [32]byte, at time.Time) {
	p := s.people[b.Address]
	p.Removed, p.Changed, p.Leaf = true, at, s.Size()
	put(s, s.people, b.Address, p)
	put(s, s.rosterBodies, b.Address, digest)
	s.killPerson(b.Address)
}

func (s *State) invite(st *statement.Statement, b *statement.Invitation, at time.Time) *Finding {
	if f := s.onRoster(b.Address); f != nil {
		return f
	}
	if _, taken := s.invitations[b.Key]; taken {
		return find(KnownInvitation, "there is an invitation of the name %q", b.Key)
	}
	put(s, s.invitations, b.Key, Invitation{b.Key, b.Address, st.Signer.Address, at, s.Size()})
	return nil
}

func (s *State) onRoster(a identity.Address) *Finding {
	if p, ok := s.people[a]; !ok || p.Removed {
		return find(NotOnRoster, "%s is not on the roster that officers signed", a)
	}
	return nil
}

func deviceOf(spki []byte) (identity.DeviceID, error) {
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return identity.DeviceID{}, err
	}
	return identity.DeviceIDOf(key)
}
