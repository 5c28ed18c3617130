// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"slices"

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
	g.lawChanged()
	g.closeAgainst(set)
	g.holds.nudge()
	if g.groups == nil {
		return // New is not done
	}
	for _, v := range g.groups.Views() {
		g.duties.look(v)
	}
	g.duties.review()
	g.sweep.nudge()
}

func (g *Gateway) closeAgainst(set *bulletin.Set) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range g.served {
		if reason := outOf(set, s.device); reason != "" {
			s.close(wire.CloseNotAdmitted, reason)
		}
	}
}

// getStandings tells what the gateway knows of standings, as it was signed.
func (s *session) getStandings(ctx context.Context, r *wire.GetStandings) (wire.Answer, error) {
	answer := new(wire.Standings)
	answer.SetRequestID(r.ID)
	// The bulletin is read after the statements: one that it knows already does no
	// harm, one that is missing would.
	set := s.g.Standings()
	orders := set.Orders()
	bytes := 0
	for i := len(orders) - 1; i >= 0 && len(answer.Orders) < wire.MaxOrders; i-- {
		o := orders[i]
		if bytes += len(o.Raw); bytes > wire.MaxOrderBytes {
			break // more than a thousand are ahead of the bulletin: the newest count
		}
		leaf := uint64(wire.Unrecorded)
		if o.Leaf >= 0 {
			leaf = uint64(o.Leaf)
		}
		answer.Orders = append(answer.Orders, wire.Order{Statement: o.Raw, Leaf: leaf})
	}
	slices.Reverse(answer.Orders)
	if s.g.cfg.Record != nil && set.Number() > r.Bulletin {
		var err error
		if answer.Bulletin, err = s.g.cfg.Record.Bulletin(ctx); err != nil {
			return nil, err
		}
	}
	return answer, nil
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
