// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"valise/bulletin"
	"valise/gateway/mailbox"
	"valise/identity"
	"valise/wire"
)

// Standings returns the standings in force. They never change in place.
func (g *Gateway) Standings() *bulletin.Set { return g.set.Load() }

// SetStandings puts other standings in force, for everything from the next
// message on, and closes the connections of those that are no longer in good
// standing. The caller sees to it that they only go forward.
func (g *Gateway) SetStandings(set *bulletin.Set) {
	arrival := g.arrival.Load().Arrived(set, g.now(), g.up())
	g.arrival.Store(&arrival)
	g.set.Store(set)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.sessions {
		if reason := outOf(set, s.device); reason != "" {
			s.close(wire.CloseNotAdmitted, reason)
		}
	}
}

// outOf returns the reason code that keeps a device out, "" if nothing does: its
// standing, or that of the issuing certificate above its own.
func outOf(set *bulletin.Set, d *identity.Device) string {
	if reason := against(set, d.ID, d.Address); reason != "" {
		return reason
	}
	if set != nil && !set.Issuer(d.Chain, d.Leaf.NotBefore) {
		return "issuer_not_named"
	}
	return ""
}

// against returns the reason code that speaks against a device, "" if it is in
// good standing.
func against(set *bulletin.Set, id identity.DeviceID, address identity.Address) string {
	if set == nil {
		return ""
	}
	standing := set.Device(id, address)
	switch {
	case standing.Good():
		return ""
	case standing.Person:
		return "person_" + string(standing.State)
	}
	return "device_" + string(standing.State)
}

// barred tells whether nobody is to begin anything with a device: the operator
// denies it, or the authority does.
func (g *Gateway) barred(id identity.DeviceID, address identity.Address) bool {
	return g.deniedNow()[id] || against(g.Standings(), id, address) != ""
}

// barredListing is barred for a line of the directory.
func (g *Gateway) barredListing(l mailbox.Listing) bool {
	address, err := identity.ParseAddress(l.Address)
	return err != nil || g.barred(l.Device, address)
}
