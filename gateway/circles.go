// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

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
	cache   routeCache
}

// A circle is what is known of a conversation under one bundle, epoch and set of
// standings.
type circle struct {
	among  *circles
	view   *group.View
	set    *bulletin.Set
	bundle *bundle.Bundle
	known  *bundle.Circle
	routes *routes // whose clearances stay the same from one bulletin to the next
	own    *routes // of senders whose connection shows another certificate than the tree

	// domain is where all members are at home, in good standing; nil: not looked at, or
	// not so.
	domain atomic.Pointer[string]
}

// of returns what is known of a conversation now; nil without a bundle in force.
func (c *circles) of(view *group.View, state *rules.State, set *bulletin.Set) *circle {
	if view == nil || state == nil || state.Missing || state.Bundle == nil {
		return nil
	}
	// Attached to the view is what was kept last, if it is still kept.
	have, _ := view.Attached().(*circle)
	if have.is(view, state.Bundle, set) && have.among == c {
		return have
	}
	c.mu.RLock()
	have = c.all[string(view.ID)]
	c.mu.RUnlock()
	if have.is(view, state.Bundle, set) {
		return have
	}
	next := &circle{among: c, view: view, set: set, bundle: state.Bundle}
	ends := endsOf(view, set)
	if have != nil && have.bundle == state.Bundle && slices.EqualFunc(have.known.Ends(), ends, sameEnd) {
		next.known = have.known
	} else {
		next.known = state.Bundle.Circle(ends)
	}
	return c.keep(next)
}

// is reports whether a circle is of a bundle, an epoch and a set of standings.
func (c *circle) is(view *group.View, b *bundle.Bundle, set *bulletin.Set) bool {
	return c != nil && c.view == view && c.bundle == b && c.set == set
}

// keep puts what is known of a conversation into the place of what was, with the routes
// that still hold.
func (c *circles) keep(next *circle) *circle {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, n := string(next.view.ID), len(next.known.Ends())
	old := c.all[id]
	if old.is(next.view, next.bundle, next.set) {
		return old // somebody else was faster
	}
	next.own = c.cache.routes()
	if old != nil && old.known == next.known {
		next.routes = old.routes
	} else {
		next.routes = c.cache.routes()
	}
	if old != nil {
		old.drop(next)
		c.members -= len(old.known.Ends())
		delete(c.all, id)
	}
	if c.members+n > maxCircleMembers {
		for _, each := range c.all {
			each.drop(nil)
		}
		c.all, c.members = nil, 0
	}
	if c.all == nil {
		c.all = make(map[string]*circle)
	}
	c.all[id] = next
	c.members += n
	next.view.Attach(next)
	return next
}

// sound reports whether nothing speaks against any member, nor against sending to it from
// a domain. That is a matter of the view and the set of standings alone, and is found out
// once for both; a no is left to whoever can say why.
func (c *circle) sound(domain string) bool {
	if c == nil {
		return false
	}
	if d := c.domain.Load(); d != nil && *d == domain {
		return true
	}
	for _, m := range c.view.Members {
		if outOf(c.set, m.Device) != "" || m.Device.Address.Domain() != domain {
			return false
		}
	}
	home := strings.Clone(domain)
	c.domain.Store(&home)
	return true
}

// drop ends the routes but for those that the next circle keeps.
func (c *circle) drop(next *circle) {
	c.view.Attach((*circle)(nil))
	c.own.drop()
	if next == nil || next.routes != c.routes {
		c.routes.drop()
	}
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
