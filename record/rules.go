// SPDX-License-Identifier: Apache-2.0

package record

import (
	"slices"
	"time"

	"valise/attest"
	"valise/identity"
	"valise/manifest"
	"valise/statement"
)

// A Rule is one that officers changed, or that has held since the founding.
type Rule[T any] struct {
	Value    T
	Raw      []byte   // as it was signed
	Previous [32]byte // what the next change must name: the digest of the last one
	Leaf     int64    // where it came into force
}

// A Profile is the rule for certificates of one name.
type Profile struct {
	manifest.Profile
	Previous [32]byte // what the next change must name
	Leaf     int64
}

// Takes reports whether keys of a tier may have certificates of this profile.
func (p *Profile) Takes(t identity.Tier) bool {
	for _, one := range p.Tiers {
		if one == t {
			return true
		}
	}
	return false
}

// A Bundle names the policy bundle in force; Version is 0 before the first.
type Bundle struct {
	Hash     [32]byte
	Version  int
	Previous [32]byte
	Leaf     int64
}

// An Officer is one who decides, or did.
type Officer struct {
	Address     identity.Address
	Key         identity.DeviceID // in slot 9c
	SPKI        []byte            // its SubjectPublicKeyInfo, DER
	Role        identity.Role
	Evidence    [32]byte
	Appraisal   [32]byte
	Since       time.Time
	Dismissed   time.Time // zero: in office
	Leaf        int64     // of the last appointment or dismissal
	Certificate []byte    // DER, of the founding; nil for officers who were appointed later
}

func (s *State) checkEndorsements(b *statement.Endorsements) *Finding {
	if b.Previous != s.endorsements.Previous {
		return find(StaleChange, "other endorsements came into force since")
	}
	if _, err := attest.Configured(b.PEM); err != nil {
		return find(BadRule, "endorsements: %v", err)
	}
	return nil
}

func (s *State) setEndorsements(b *statement.Endorsements, digest [32]byte) {
	e, err := attest.Configured(b.PEM)
	if err != nil {
		return // checkEndorsements has read it
	}
	assign(s, &s.endorsements, Rule[*attest.Endorsements]{e, b.PEM, digest, s.Size()})
}

func (s *State) checkAppraisal(b *statement.Appraisal) *Finding {
	if b.Previous != s.appraisal.Previous {
		return find(StaleChange, "another appraisal policy came into force since")
	}
	if _, err := attest.ParsePolicy(b.Policy); err != nil {
		return find(BadRule, "%v", err)
	}
	return nil
}

func (s *State) setAppraisal(b *statement.Appraisal, digest [32]byte) {
	p, err := attest.ParsePolicy(b.Policy)
	if err != nil {
		return // checkAppraisal has read it
	}
	assign(s, &s.appraisal, Rule[*attest.AppraisalPolicy]{p, b.Policy, digest, s.Size()})
}

func (s *State) checkProfile(b *statement.Profile) *Finding {
	now := s.profiles[b.Name]
	switch {
	case b.Previous != now.Previous || b.Version != now.Version+1:
		return find(StaleChange, "profile %q has version %d", b.Name, now.Version)
	case b.Approvals < MinApprovals:
		return find(TooFewApprovals, "%d approvals, want at least %d: nobody issues alone", b.Approvals, MinApprovals)
	}
	return nil
}

func (s *State) setProfile(b *statement.Profile, digest [32]byte) {
	put(s, s.profiles, b.Name, Profile{Profile: manifest.Profile{
		Name: b.Name, Version: b.Version, Approvals: b.Approvals, Validity: b.Validity, Grace: b.Grace, Tiers: b.Tiers,
	}, Previous: digest, Leaf: s.Size()})
}

func (s *State) checkBundle(b *statement.Bundle) *Finding {
	if b.Previous != s.bundle.Previous || b.Version <= s.bundle.Version {
		return find(StaleChange, "version %d of the bundle is in force", s.bundle.Version)
	}
	return nil
}

func (s *State) setBundle(b *statement.Bundle, digest [32]byte) {
	assign(s, &s.bundle, Bundle{b.Hash, b.Version, digest, s.Size()})
}

// checkAppointment sees to it that nobody has two roles and no key two holders.
func (s *State) checkAppointment(b *statement.Appointment) *Finding {
	if b.Previous != s.appointments[b.Address] {
		return find(StaleChange, "%s was appointed or dismissed since", b.Address)
	}
	if b.Address.Domain() != s.founding.Domain {
		return find(WrongDomain, "%s is outside %s", b.Address, s.founding.Domain)
	}
	if o, ok := s.officers[b.Address]; ok && o.Dismissed.IsZero() && o.Role != b.Role {
		return find(RoleTaken, "%s is %s: dismiss them from that first", b.Address, o.Role)
	}
	key, err := deviceOf(b.Key)
	if err != nil {
		return find(BadRule, "%v", err)
	}
	if owner, taken := s.officerKeys[key]; taken && owner != b.Address {
		return find(KeyTaken, "key %s is %s's", key, owner)
	}
	if k, taken := s.keys[key]; taken && k.Kind == KindDevice {
		return find(KeyTaken, "key %s opens connections as a device of %s", key, k.Address)
	}
	return nil
}

func (s *State) appoint(b *statement.Appointment, digest [32]byte, at time.Time) {
	key, err := deviceOf(b.Key)
	if err != nil {
		return // checkAppointment has read it
	}
	s.enlist(b.Address, Officer{
		Address: b.Address, Key: key, SPKI: b.Key, Role: b.Role, Evidence: b.Evidence, Appraisal: b.Appraisal, Since: at, Leaf: s.Size(),
	})
	put(s, s.appointments, b.Address, digest)
}

func (s *State) checkDismissal(b *statement.Dismissal) *Finding {
	o, ok := s.officers[b.Address]
	if !ok || !o.Dismissed.IsZero() {
		return find(StaleChange, "%s has no role", b.Address)
	}
	return s.enoughLeft(b.Address)
}

func (s *State) dismiss(b *statement.Dismissal, digest [32]byte, at time.Time) {
	o := s.officers[b.Address]
	o.Dismissed, o.Leaf = at, s.Size()
	put(s, s.officers, b.Address, o)
	put(s, s.appointments, b.Address, digest)
}

// enoughLeft lets nobody end, by one signature and for ever, that there are
// administrators enough to appoint others. Suspending them stays possible.
func (s *State) enoughLeft(without ...identity.Address) *Finding {
	ends, left := false, 0
	for a, o := range s.officers {
		switch {
		case o.Role != identity.RoleAdministrator || s.ended(&o):
		case slices.Contains(without, a):
			ends = true
		default:
			left++
		}
	}
	if ends && left < MinAdministrators {
		return find(TooFewLeft, "with fewer than %d administrators nobody could appoint another: suspend them, and appoint first", MinAdministrators)
	}
	return nil
}

// ended reports whether an officer does not come back by a resumption.
func (s *State) ended(o *Officer) bool {
	if p, ok := s.people[o.Address]; ok && p.Removed || !o.Dismissed.IsZero() {
		return true
	}
	causes := append(s.concerns(o.Address, o.Key), s.causes[cause{statement.TargetOfficer, o.Address.String()}])
	return slices.ContainsFunc(causes, func(c Standing) bool { return c.State == Revoked })
}
