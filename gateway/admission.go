// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"time"

	"valise/bulletin"
	"valise/gateway/group"
	"valise/gateway/rules"
	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// A snapshot is all that admission looks at: one moment of the connection, the
// standing of devices and the group. Nothing in it changes while it is looked
// at but the allowance, which is safe for concurrent use.
type snapshot struct {
	now    time.Time
	device *identity.Device // whom the connection's handshake proved
	denied denyList
	set    *bulletin.Set // standings, by the authority's word
	domain string        // the domain that this gateway serves
	group  *group.View   // nil: unknown

	allowance *allowance

	rules   *rules.State // the policy bundle in force; nil: none
	circles *circles     // what is known of conversations under it
	circle  *circle      // the one at hand, looked up for members only

	age        time.Duration // of the newest bulletin
	tightening bulletin.Tightening
}

// A message is what admission knows of a Send.
type message struct {
	group []byte // as the request names it
	epoch uint64
	size  int              // of all of it, in bytes
	info  *mls.MessageInfo // what the message says of itself

	precedence wire.Precedence // set by admit
}

// A refusal is a coarse code for the device and the full reason for the audit
// stream.
type refusal struct {
	code   wire.Code
	reason string
	epoch  uint64 // for wire.StaleEpoch
	about  identity.DeviceID

	label, whose, detail string // for the audit stream
}

// admit decides whether a message may be relayed. It is asked for every
// message, looks only at its arguments and waits for nothing. nil admits.
func admit(s *snapshot, m *message) *refusal {
	// Connection: the certificate that opened it must still be valid.
	if r := admitDevice(s); r != nil {
		return r
	}
	if s.allowance.isHeld(s.now) {
		return &refusal{code: wire.NotAllowed, reason: "held"}
	}
	// Header: it must be there and must parse.
	header, r := admitHeader(m)
	if r != nil {
		return r
	}
	m.precedence = header.Precedence
	if r := admitAge(s, 0, 0); r != nil {
		return r
	}
	// Sender and epoch: a member, speaking in the present epoch.
	sender, within := s.member()
	switch {
	case s.group == nil:
		return &refusal{code: wire.UnknownGroup, reason: "unknown_group"}
	case !within:
		return &refusal{code: wire.NotMember, reason: "not_member"}
	case m.epoch != s.group.Epoch:
		return &refusal{code: wire.StaleEpoch, reason: "stale_epoch", epoch: s.group.Epoch}
	}
	// Every recipient, and the bounds of the domain.
	s.circle = s.circles.of(s.group, s.rules, s.set)
	if r := admitRecipients(s); r != nil {
		return r
	}
	// Label: valid, and within everybody's clearance.
	class, r := admitLabel(s, &header, sender)
	if r != nil {
		return r
	}
	if reason := s.allowance.send(s.now, m.size, len(s.group.Members)-1, class); reason != "" {
		return &refusal{code: wire.RateLimited, reason: reason}
	}
	return nil
}

// admitRecipients decides whether every member may be sent to.
func admitRecipients(s *snapshot) *refusal {
	if len(s.denied) == 0 && s.circle.sound(s.domain) {
		return nil
	}
	for _, member := range s.group.Members {
		id := member.Device.ID
		if id != s.device.ID && s.denied[id] {
			return &refusal{code: wire.RecipientRefused, reason: "recipient_denied", about: id}
		}
		if id != s.device.ID && against(s.set, id, member.Device.Address) != "" {
			return &refusal{code: wire.RemovalDue, reason: "removal_due", about: id}
		}
		if id != s.device.ID && outOf(s.set, member.Device) != "" {
			return &refusal{code: wire.RecipientRefused, reason: "recipient_denied", about: id}
		}
		if member.Device.Address.Domain() != s.domain {
			return &refusal{code: wire.RecipientRefused, reason: "foreign_domain", about: id}
		}
	}
	return nil
}

// member returns the sender's place in the group.
func (s *snapshot) member() (group.Member, bool) {
	if s.group == nil {
		return group.Member{}, false
	}
	return s.group.Member(s.device.ID)
}

// admitDevice checks the connection's certificate and the device's standing. A
// certificate is renewed and a clock is set right: what is refused for them is not refused
// for ever.
func admitDevice(s *snapshot) *refusal {
	switch leaf := s.device.Leaf; {
	case s.now.After(leaf.NotAfter):
		return &refusal{code: wire.Unavailable, reason: string(identity.ReasonExpired)}
	case s.now.Before(leaf.NotBefore):
		return &refusal{code: wire.Unavailable, reason: string(identity.ReasonNotYetValid)}
	case s.denied[s.device.ID]:
		return &refusal{code: wire.NotAllowed, reason: "denied"}
	}
	if reason := outOf(s.set, s.device); reason != "" {
		return &refusal{code: wire.NotAllowed, reason: reason}
	}
	return nil
}

// stillAdmitted is asked before mail is delivered, and ends the connection of a
// device that may no longer have it. The timer that ends connections with their
// certificates does not see the clock being set.
func (s *session) stillAdmitted() error {
	r := admitDevice(&snapshot{now: s.g.now(), device: s.device, denied: s.g.deniedNow(), set: s.g.Standings()})
	if r == nil {
		return nil
	}
	code := wire.CloseNotAdmitted
	if r.reason == string(identity.ReasonExpired) {
		code = wire.CloseExpired
	}
	s.close(code, r.reason)
	return r.code
}

// admitHeader checks that a message is what its request says, and reads its header.
func admitHeader(m *message) (wire.Header, *refusal) {
	switch {
	case m.info.Content != mls.ContentApplication:
		return wire.Header{}, &refusal{code: wire.Malformed, reason: "private_handshake"}
	case !bytes.Equal(m.info.GroupID, m.group):
		return wire.Header{}, &refusal{code: wire.Malformed, reason: "wrong_group"}
	case m.info.Epoch != m.epoch:
		return wire.Header{}, &refusal{code: wire.Malformed, reason: "wrong_epoch"}
	}
	header, err := wire.ReadHeader(m.info.AuthenticatedData)
	if err != nil {
		return wire.Header{}, &refusal{code: wire.LabelRefused, reason: "malformed_header"}
	}
	return header, nil
}

func isMember(v *group.View, d identity.DeviceID) bool {
	_, ok := v.Member(d)
	return ok
}
