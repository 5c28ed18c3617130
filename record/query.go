// SPDX-License-Identifier: Apache-2.0

package record

import (
	"cmp"
	"encoding/hex"
	"iter"
	"maps"
	"slices"
	"time"

	"valise/attest"
	"valise/identity"
	"valise/statement"
)

// Trust returns the table of trust of this authority, nil before the founding. It
// remembers the chains that it verified.
func (s *State) Trust() *identity.Trust { return s.trust }

// Authority returns the SHA-256 of the root, by which statements name it.
func (s *State) Authority() [32]byte { return s.rootHash }

// Officer returns who holds this key of slot 9c, if they are in office now: neither
// dismissed nor suspended. A *Finding says why not.
func (s *State) Officer(key identity.DeviceID) (Officer, error) {
	a, ok := s.officerKeys[key]
	if !ok {
		return Officer{}, find(NotInStanding, "nobody was appointed with the key %s", key)
	}
	o := s.officers[a]
	if f := s.inOffice(a, key, o.Role); f != nil {
		return Officer{}, f
	}
	return o, nil
}

// OfficerAt returns the officer of an address, in office or not.
func (s *State) OfficerAt(a identity.Address) (Officer, bool) {
	o, ok := s.officers[a]
	return o, ok
}

// Officers returns all that ever were, by address.
func (s *State) Officers() []Officer {
	return slices.SortedFunc(maps.Values(s.officers), func(a, b Officer) int { return cmp.Compare(a.Address.String(), b.Address.String()) })
}

// OfficerStanding returns the suspension or revocation of an officer; its State is
// empty if there is none.
func (s *State) OfficerStanding(a identity.Address) Standing {
	return s.causes[cause{statement.TargetOfficer, a.String()}]
}

// Person returns a line of the roster; a removed one is still there.
func (s *State) Person(a identity.Address) (Person, bool) {
	p, ok := s.people[a]
	return p, ok
}

// People returns everybody who ever was on the roster, in no order.
func (s *State) People() iter.Seq[Person] { return maps.Values(s.people) }

// PersonStanding returns the suspension or revocation of a person as such; its State
// is empty if there is none. A person who was removed says so by themselves.
func (s *State) PersonStanding(a identity.Address) Standing {
	return s.causes[cause{statement.TargetPerson, a.String()}]
}

// Previous returns what the next Roster or Removal of an address must name.
func (s *State) Previous(a identity.Address) [32]byte { return s.rosterBodies[a] }

// PreviousAppointment returns what the next Appointment of an address must name.
func (s *State) PreviousAppointment(a identity.Address) [32]byte { return s.appointments[a] }

// Invitation returns the invitation of a name.
func (s *State) Invitation(key string) (Invitation, bool) {
	i, ok := s.invitations[key]
	return i, ok
}

// Profile returns a profile in force.
func (s *State) Profile(name string) (Profile, bool) {
	p, ok := s.profiles[name]
	return p, ok
}

// Profiles returns all profiles, by name.
func (s *State) Profiles() []Profile {
	return slices.SortedFunc(maps.Values(s.profiles), func(a, b Profile) int { return cmp.Compare(a.Name, b.Name) })
}

// Endorsements and Appraisal return the rules by which evidence is judged. Where
// there are no officers their Value is nil.
func (s *State) Endorsements() Rule[*attest.Endorsements] { return s.endorsements }
func (s *State) Appraisal() Rule[*attest.AppraisalPolicy] { return s.appraisal }

// Bundle returns the policy bundle in force.
func (s *State) Bundle() Bundle { return s.bundle }

// Key returns what is known of a device or an officer's card by its certificates.
func (s *State) Key(id identity.DeviceID) (Key, bool) {
	k, ok := s.keys[id]
	return k, ok
}

// Keys returns all keys that have, or had, certificates, in no order.
func (s *State) Keys() iter.Seq[Key] { return maps.Values(s.keys) }

// KeysOf returns the keys of an address, oldest first.
func (s *State) KeysOf(a identity.Address) []Key {
	var all []Key
	for _, id := range s.byAddress[a] {
		all = append(all, s.keys[id])
	}
	return all
}

// Newest returns a key's newest certificate.
func (k *Key) Newest() Certificate {
	if len(k.Certificates) == 0 {
		return Certificate{}
	}
	return k.Certificates[len(k.Certificates)-1]
}

// Device returns how a device stands: the gravest of what holds for itself, its
// person, its card and its vendor's root. A person who was removed has no devices
// in good standing. State is empty if nothing is wrong.
func (s *State) Device(id identity.DeviceID) Standing {
	k := s.keys[id]
	var worst Standing
	for _, now := range s.concerns(k.Address, id) {
		if worst.State == "" || worst.State == Suspended && now.State == Revoked {
			worst = now
		}
	}
	if p, ok := s.people[k.Address]; ok && p.Removed && worst.State != Revoked {
		return Standing{
			Target: statement.Target{Kind: statement.TargetPerson, Address: k.Address}, State: Revoked,
			Since: p.Changed, Reason: string(NotOnRoster), Leaf: p.Leaf,
		}
	}
	return worst
}

// Standings returns every suspension and revocation in force, newest first.
func (s *State) Standings() []Standing {
	return slices.SortedFunc(maps.Values(s.causes), func(a, b Standing) int { return cmp.Compare(b.Leaf, a.Leaf) })
}

// Standing returns what is known about one target; its State is empty if nothing is.
func (s *State) Standing(t *statement.Target) Standing { return s.causes[causeOf(t)] }

// Hardware reports whether a card, by its serial number's hash, or a vendor's root,
// by its fingerprint in hexadecimal, is suspended or revoked. An empty serial is
// that of hardware that names none. The error is a *Finding.
func (s *State) Hardware(serial, root string) error {
	if now, ok := s.causes[cause{statement.TargetSerial, serial}]; ok && serial != "" {
		return now.finding()
	}
	if _, err := hex.DecodeString(root); err != nil {
		return find(RootSuspended, "%q is no fingerprint", root)
	}
	if now, ok := s.causes[cause{statement.TargetRoot, root}]; ok && root != "" {
		return now.finding()
	}
	return nil
}

// Permits returns what in the record speaks against a certificate, approvals aside:
// a *Finding, or nil.
func (s *State) Permits(t statement.Template) error {
	if f := s.permits(t); f != nil {
		return f
	}
	return nil
}

// Barred returns what is suspended or revoked about a person and a device: a
// *Finding, or nil.
func (s *State) Barred(a identity.Address, id identity.DeviceID) error {
	if f := s.barred(a, id); f != nil {
		return f
	}
	return nil
}

// OnRoster returns nil, or the *Finding that a person is not on the signed roster.
func (s *State) OnRoster(a identity.Address) error {
	if f := s.onRoster(a); f != nil {
		return f
	}
	return nil
}

// Approvals returns the signatures on a request: those on the template given, or on
// any if it is nil.
func (s *State) Approvals(request string, t *statement.Template) []Signature {
	var all []Signature
	for _, g := range s.requests[request] {
		if t == nil || g.digest == statement.BodyDigest(&statement.Approval{Request: request, Template: *t}) {
			all = append(all, g.signatures...)
		}
	}
	return all
}

// Refused returns the leaf at which a request was refused.
func (s *State) Refused(request string) (int64, bool) {
	leaf, ok := s.refusals[request]
	return leaf, ok
}

// Ballot returns what is known of a change by its digest.
func (s *State) Ballot(digest [32]byte) (Ballot, bool) {
	b, ok := s.ballots[digest]
	if !ok {
		return Ballot{}, false
	}
	return *b, true
}

// Waiting returns the changes that have a signature, can still come into force at a
// time, and lack others. Their signatures are those that still count.
func (s *State) Waiting(at time.Time) []Ballot {
	var all []Ballot
	for _, b := range s.ballots {
		if b.Decided >= 0 || s.stale(b.Body) {
			continue
		}
		now := *b
		if now.Signatures = s.counting(b, at); len(now.Signatures) > 0 {
			now.Needs = s.needs(b.Body)
			all = append(all, now)
		}
	}
	slices.SortFunc(all, func(a, b Ballot) int { return cmp.Compare(a.Signatures[0].Leaf, b.Signatures[0].Leaf) })
	return all
}

// stale reports whether something else came into force in a change's place.
func (s *State) stale(b statement.Body) bool {
	nobody := &statement.Statement{Body: b, Signer: new(identity.Officer)}
	return s.checkChange(nobody) != nil
}

// Seen returns the leaf that holds the statement of an id.
func (s *State) Seen(id string) (int64, bool) {
	leaf, ok := s.seen[id]
	return leaf, ok
}

// Serial returns the leaf of the certificate with a serial number. Where there are
// no officers the record does not look into certificates.
func (s *State) Serial(serial []byte) (int64, bool) {
	leaf, ok := s.serials[string(serial)]
	return leaf, ok
}
