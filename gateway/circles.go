// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"crypto/x509"
	"slices"
	"sync"

	"valise/bulletin"
	"valise/gateway/group"
	"valise/gateway/rules"
	"valise/identity"
	"valise/policy"
	"valise/policy/bundle"
	"valise/wire"
)

// circles keeps, for each conversation in use, its members' clearances compiled and
// the routes that were decided. What is kept is of one bundle, one epoch and one set
// of standings, and is looked at only while these are in force.
type circles struct {
	mu      sync.RWMutex
	all     map[string]*circle // guarded by mu; by group
	members int                // guarded by mu; of all of them
}

// A circle is what is known of a conversation under one bundle, epoch and set of
// standings.
type circle struct {
	view   *group.View
	set    *bulletin.Set
	bundle *bundle.Bundle
	known  *bundle.Circle
	routes *routes // whose clearances stay the same from one bulletin to the next
	own    *routes // of senders whose connection shows another certificate than the tree
}

// routes are those that were decided through one conversation.
type routes struct {
	mu    sync.RWMutex
	paths map[pathKey]*bundle.Path // guarded by mu
}

type pathKey struct {
	sender     identity.DeviceID
	own        *x509.Certificate // nil: the tree's
	precedence wire.Precedence
	label      string
}

func (r *routes) get(k pathKey) *bundle.Path {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.paths[k]
}

func (r *routes) put(k pathKey, p *bundle.Path) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paths == nil || len(r.paths) >= maxRoutes {
		r.paths = make(map[pathKey]*bundle.Path)
	}
	r.paths[k] = p
}

// of returns what is known of a conversation now; nil without a bundle.
func (c *circles) of(view *group.View, state *rules.State, set *bulletin.Set) *circle {
	if view == nil || state == nil || state.Bundle == nil {
		return nil
	}
	c.mu.RLock()
	have := c.all[string(view.ID)]
	c.mu.RUnlock()
	if have != nil && have.view == view && have.bundle == state.Bundle && have.set == set {
		return have
	}
	next := &circle{view: view, set: set, bundle: state.Bundle, routes: new(routes), own: new(routes)}
	ends := endsOf(view, set)
	if have != nil && have.bundle == state.Bundle && slices.EqualFunc(have.known.Ends(), ends, sameEnd) {
		next.known, next.routes = have.known, have.routes
	} else {
		next.known = state.Bundle.Circle(ends)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.members += len(ends); c.all == nil || c.members > maxCircleMembers {
		c.all, c.members = make(map[string]*circle), len(ends)
	}
	if old := c.all[string(view.ID)]; old != nil {
		c.members -= len(old.view.Members)
	}
	c.all[string(view.ID)] = next
	return next
}

func endsOf(view *group.View, set *bulletin.Set) []bundle.End {
	ends := make([]bundle.End, len(view.Members))
	for i, m := range view.Members {
		ends[i] = endOf(m.Device, set)
	}
	return ends
}

// endOf is a device as labels are decided about it. Its clearance is that of its
// certificate, cut down by the authorities above it and by what the bulletin leaves
// its person. What cannot be read clears nobody.
func endOf(d *identity.Device, set *bulletin.Set) bundle.End {
	end := bundle.End{ID: d.ID, Address: d.Address, Tier: d.Tier}
	have := d.Clearance
	if set != nil {
		have = set.Clearance(d)
	}
	if c, err := policy.Effective(have, d.Above...); err == nil {
		end.Clearance = c
	}
	return end
}

func sameEnd(a, b bundle.End) bool {
	return a.ID == b.ID && a.Address == b.Address && a.Tier == b.Tier &&
		(a.Clearance == b.Clearance || a.Clearance != nil && b.Clearance != nil && a.Clearance.Covers(b.Clearance) && b.Clearance.Covers(a.Clearance))
}

// keyOf names the route of a sender's message. Its connection may show a newer
// certificate than the tree holds; then both count.
func (c *circle) keyOf(sender *identity.Device, member group.Member, h *wire.Header) (pathKey, *routes) {
	k := pathKey{sender: sender.ID, precedence: h.Precedence, label: string(h.Label)}
	if leaf := member.Device.Leaf; leaf == sender.Leaf || bytes.Equal(leaf.Raw, sender.Leaf.Raw) {
		return k, c.routes
	}
	k.own = sender.Leaf
	return k, c.own
}
