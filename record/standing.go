// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/hex"
	"time"

	"valise/identity"
	"valise/statement"
)

// What a target can be besides active.
const (
	Suspended = "suspended"
	Revoked   = "revoked"
)

// A Standing says that something is suspended or revoked, and why.
type Standing struct {
	Target statement.Target // with every device that statements about it named
	State  string           // Suspended or Revoked; empty: active
	Since  time.Time
	Reason string

	// The newest statement about it: whose, where, and when it was signed.
	By     identity.Address
	Leaf   int64
	Signed time.Time
}

// A cause is what a standing is about: the kind of a target and its name.
type cause struct{ kind, name string }

func causeOf(t *statement.Target) cause {
	switch t.Kind {
	case statement.TargetDevice:
		return cause{t.Kind, t.Device.String()}
	case statement.TargetSerial:
		return cause{t.Kind, t.Serial}
	case statement.TargetRoot:
		return cause{t.Kind, hex.EncodeToString(t.Root[:])}
	}
	return cause{t.Kind, t.Address.String()}
}

// suspend applies a suspension. Suspending what is suspended adds the devices that
// were found meanwhile.
func (s *State) suspend(st *statement.Statement, t *statement.Target, reason string, at time.Time) *Finding {
	if st.Signer.Role == identity.RoleAdministrator && t.Kind != statement.TargetOfficer {
		return find(WrongRole, "an administrator suspends officers only")
	}
	s.mark(st, t, Suspended, reason, at)
	return nil
}

func (s *State) revoke(st *statement.Statement, t *statement.Target, reason string, at time.Time) *Finding {
	if f := s.enoughLeft(s.behind(t)...); f != nil {
		return f
	}
	s.mark(st, t, Revoked, reason, at)
	switch t.Kind {
	case statement.TargetPerson:
		s.killPerson(t.Address)
	case statement.TargetOfficer:
	default:
		for _, id := range t.All() {
			s.killDevice(id)
		}
	}
	return nil
}

// behind returns the officers whom a target is about.
func (s *State) behind(t *statement.Target) []identity.Address {
	all := []identity.Address{t.Address}
	for _, id := range t.All() {
		if a, ok := s.officerKeys[id]; ok && s.officers[a].Key == id {
			all = append(all, a)
		}
	}
	return all
}

// mark sets what is known about a target. A revocation stays one.
func (s *State) mark(st *statement.Statement, t *statement.Target, state, reason string, at time.Time) {
	c := causeOf(t)
	old, had := s.causes[c]
	if had && (old.State == Revoked || old.State == state) {
		state, reason, at = old.State, old.Reason, old.Since
	}
	now := Standing{Target: *t, State: state, Since: at, Reason: reason, By: st.Signer.Address, Leaf: s.Size(), Signed: st.Head.Time}
	now.Target.Devices = union(old.Target.Devices, t.Devices)
	put(s, s.causes, c, now)
	if t.Kind == statement.TargetSerial || t.Kind == statement.TargetRoot {
		for _, id := range t.Devices {
			s.list(id, c)
		}
	}
}

func (s *State) list(id identity.DeviceID, c cause) {
	for _, known := range s.listed[id] {
		if known == c {
			return
		}
	}
	put(s, s.listed, id, with(s.listed[id], c))
}

// checkResumption lets nobody resume what is their own, and nothing come back that
// was revoked.
func (s *State) checkResumption(st *statement.Statement, b *statement.Resumption) *Finding {
	now, ok := s.causes[causeOf(&b.Target)]
	if !ok || now.State != Suspended {
		return find(NotSuspended, "it is not suspended, or revoked for ever")
	}
	own := []identity.DeviceID{b.Target.Device}
	own = append(own, now.Target.Devices...)
	for _, id := range own {
		if k, known := s.keys[id]; known && k.Address == st.Signer.Address {
			return find(OwnMatter, "the device %s is %s's own", id, k.Address)
		}
	}
	return nil
}

// checkKnown refuses a resumption by somebody who cannot have known of the newest
// suspension: it would end what its officer never meant.
func (s *State) checkKnown(st *statement.Statement) *Finding {
	b, ok := st.Body.(*statement.Resumption)
	if !ok {
		return nil
	}
	if now := s.causes[causeOf(&b.Target)]; st.Head.Time.Before(now.Signed) {
		return find(StaleChange, "it was signed before the newest suspension, of leaf %d", now.Leaf)
	}
	return nil
}

func (s *State) resume(t *statement.Target) {
	c := causeOf(t)
	for _, id := range s.causes[c].Target.Devices {
		var rest []cause
		for _, known := range s.listed[id] {
			if known != c {
				rest = append(rest, known)
			}
		}
		if len(rest) == 0 {
			drop(s, s.listed, id)
		} else {
			put(s, s.listed, id, rest)
		}
	}
	drop(s, s.causes, c)
}

// reasons are the words for what is suspended or revoked.
var reasons = map[string]map[string]Reason{
	statement.TargetDevice: {Suspended: DeviceSuspended, Revoked: DeviceRevoked},
	statement.TargetPerson: {Suspended: PersonSuspended, Revoked: PersonRevoked},
	statement.TargetSerial: {Suspended: CardSuspended, Revoked: CardRevoked},
	statement.TargetRoot:   {Suspended: RootSuspended, Revoked: RootRevoked},
}

// concerns returns what is suspended or revoked about a device and its person.
func (s *State) concerns(a identity.Address, id identity.DeviceID) (all []Standing) {
	look := append([]cause{{statement.TargetDevice, id.String()}, {statement.TargetPerson, a.String()}}, s.listed[id]...)
	for _, c := range look {
		if now, ok := s.causes[c]; ok {
			all = append(all, now)
		}
	}
	return all
}

func (s *State) barred(a identity.Address, id identity.DeviceID) *Finding {
	for _, now := range s.concerns(a, id) {
		return now.finding()
	}
	return nil
}

func (n *Standing) finding() *Finding {
	return find(reasons[n.Target.Kind][n.State], "%s since %s: %s", n.State, n.Since.Format(time.RFC3339), n.Reason)
}

// union merges two ascending lists.
func union(a, b []identity.DeviceID) []identity.DeviceID {
	out := make([]identity.DeviceID, 0, len(a)+len(b))
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(a) == 0 || len(b) > 0 && b[0].Compare(a[0]) < 0:
			out, b = append(out, b[0]), b[1:]
		case len(b) == 0 || a[0].Compare(b[0]) < 0:
			out, a = append(out, a[0]), a[1:]
		default:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		}
	}
	return out
}
