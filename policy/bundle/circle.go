// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"strings"
	"time"

	"valise/policy"
	"valise/policy/rules"
)

// A Circle is the devices of a conversation, their clearances compiled: what many
// routes of one moment have in common. It does not change.
type Circle struct {
	b       *Bundle
	ends    []End
	cleared []*policy.Clearance // by end; nil: none under a policy that is known here
	meet    *policy.Clearance   // what all of them hold; nil: nothing
}

// Circle prepares the devices of a conversation.
func (b *Bundle) Circle(ends []End) *Circle {
	c := &Circle{b: b, ends: ends, cleared: make([]*policy.Clearance, len(ends))}
	for i := range ends {
		c.cleared[i] = b.cleared(&ends[i])
	}
	c.meet = policy.Meet(c.cleared...)
	return c
}

// cleared compiles an end's clearance. One that is missing or of a policy that is
// not known here holds nothing.
func (b *Bundle) cleared(e *End) *policy.Clearance {
	c, err := b.Set.Clearance(e.Clearance)
	if err != nil {
		return nil
	}
	return c
}

// Ends returns the devices. They must not be changed.
func (c *Circle) Ends() []End { return c.ends }

// Ceiling returns what all devices hold, nil if that is nothing.
func (c *Circle) Ceiling() *policy.Clearance { return c.meet }

// Cost is about how many relayed messages take the time of setting up a path: rules
// are asked about every recipient.
func (c *Circle) Cost() int {
	if c.b.rules.Empty() {
		return 1
	}
	return 1 + len(c.ends)/4
}

// Lowers reports whether a device would lower the ceiling, were it added. A circle
// of one has none: who founds a conversation chooses with whom.
func (c *Circle) Lowers(e *End) bool {
	return len(c.ends) > 1 && !c.b.cleared(e).Covers(c.meet)
}

// A Path is a route from one device to all others of a Circle, under one label and
// precedence: validity, table and rules are decided once, label against clearance
// (package policy) at every message.
type Path struct {
	circle   *Circle
	sender   int
	resolved *policy.Resolved // nil: without a label
	own      *policy.Clearance
	until    time.Time // from then on nothing of this holds; zero: for ever
	invalid  *Refusal  // what is wrong with the label, or with there being none; nil: nothing
	refused  *Refusal  // what table or rules say; nil: nothing

	// Rank and Ranks say where the classification stands in its hierarchy, 1 being
	// the lowest; 0 and 0 without a label.
	Rank, Ranks int
	// Stale is how old the newest bulletin may be; 0: no row says anything.
	Stale time.Duration
}

// A Refusal is a Verdict about one of several ends.
type Refusal struct {
	Verdict
	End int // the recipient, where the verdict is not about the sender
}

// Path decides a route but for clearances. own is the sending end as its
// connection proves it, which may differ from the one in the circle.
func (c *Circle) Path(sender int, own *End, label *policy.Label, precedence string, at time.Time) *Path {
	p := &Path{circle: c, sender: sender, until: c.b.Set.NextChange(at)}
	if own != nil {
		p.own = c.b.cleared(own)
	} else {
		p.own = c.cleared[sender]
	}
	if label == nil {
		if !c.b.domains.Unlabelled {
			p.invalid = &Refusal{Verdict{Reason: ReasonUnlabelled, Sender: true, Detail: "messages without a label are not carried"}, sender}
			return p
		}
	} else {
		var err error
		if p.resolved, err = c.b.Set.Resolve(label, policy.New, at); err != nil {
			p.invalid = &Refusal{*refused(err), sender}
			p.invalid.Sender = true
			return p
		}
		p.Rank, p.Ranks = p.resolved.Rank()
		p.Stale, _ = c.b.StaleAfter(label, at)
	}
	p.refused = c.decide(p, own, label, precedence, at)
	return p
}

// decide asks table and rules about every end. Where a clearance does not reach the
// label the rules are not asked: Decide refuses in any case.
func (c *Circle) decide(p *Path, own *End, label *policy.Label, precedence string, at time.Time) *Refusal {
	from := &c.ends[p.sender]
	if own != nil {
		from = own
	}
	if label != nil {
		if p.Decide(at) != nil {
			return nil
		}
		if v := c.b.table(label, from, at); v != nil {
			v.Sender = true
			return &Refusal{*v, p.sender}
		}
		for i := range c.ends {
			if v := c.b.table(label, &c.ends[i], at); v != nil {
				v.Sender = i == p.sender
				return &Refusal{*v, i}
			}
		}
	}
	if c.b.rules.Empty() {
		return nil
	}
	q := rules.Request{
		Action: rules.Send, Label: label, Precedence: precedence, Members: len(c.ends), Sender: device(from, p.own),
	}
	for i := range c.ends {
		if i == p.sender {
			continue
		}
		q.Recipient = device(&c.ends[i], c.cleared[i])
		if v := c.b.rules.Decide(&q); !v.Granted {
			return &Refusal{Verdict{Reason: Reason(v.Reason), Detail: strings.Join(v.Rules, " ")}, i}
		}
	}
	return nil
}

func device(e *End, c *policy.Clearance) rules.Device {
	return rules.Device{ID: e.ID, Address: e.Address, Tier: e.Tier, Clearance: c}
}

// table asks the table of domains about one end.
func (b *Bundle) table(label *policy.Label, e *End, at time.Time) *Verdict {
	if err := b.domains.bounds(b.Set, label, e.Address.Domain(), at); err != nil {
		return &Verdict{Reason: ReasonDomain, Detail: err.Error()}
	}
	if err := b.domains.tier(b.Set, label, e.Tier, at); err != nil {
		return &Verdict{Reason: ReasonTier, Detail: err.Error()}
	}
	return nil
}

// Holds reports whether the path may be asked at a time at all; otherwise it is to
// be made anew.
func (p *Path) Holds(at time.Time) bool { return p.until.IsZero() || at.Before(p.until) }

// Valid reports whether the label is valid, or its absence allowed. A path without that
// refuses every message, and is not worth keeping.
func (p *Path) Valid() bool { return p.invalid == nil }

// Circle returns the conversation that the path is through.
func (p *Path) Circle() *Circle { return p.circle }

// Label returns the label as its policy has it; nil without one, or if it is not
// valid.
func (p *Path) Label() *policy.Resolved { return p.resolved }

// Decide decides about a message at a time when the path holds. It allocates
// nothing unless it refuses. nil grants.
func (p *Path) Decide(at time.Time) *Refusal {
	if !p.Holds(at) {
		return &Refusal{Verdict{Reason: Reason(policy.ReasonPolicyExpired), Sender: true, Detail: "the route is to be decided anew"}, p.sender}
	}
	if p.invalid != nil {
		return p.invalid
	}
	if p.resolved == nil {
		return p.refused
	}
	if d := policy.Decide(p.resolved, p.own); !d.Granted {
		return p.refuse(p.sender, d, p.own)
	}
	if policy.Decide(p.resolved, p.circle.meet).Granted {
		return p.refused
	}
	// Of a permissive tag each may hold another value, and the meet none: one by one.
	for i, c := range p.circle.cleared {
		if d := policy.Decide(p.resolved, c); !d.Granted {
			return p.refuse(i, d, c)
		}
	}
	return p.refused
}

func (p *Path) refuse(end int, d policy.Decision, c *policy.Clearance) *Refusal {
	r := &Refusal{Verdict{Reason: Reason(d.Reason), Sender: end == p.sender}, end}
	if err := d.Explain(p.resolved, c); err != nil {
		r.Detail = err.Error()
	}
	return r
}

// Join decides whether a device may add another to a conversation of so many: the
// rules do, and the ceiling of those who are in it, unless the table lets it fall.
func (c *Circle) Join(from int, added *End, members int) *Verdict {
	if c.Lowers(added) && !c.b.domains.Lowering {
		return &Verdict{Reason: ReasonCeiling, Detail: "its clearance does not reach what all others' do"}
	}
	if c.b.rules.Empty() {
		return nil
	}
	v := c.b.rules.Decide(&rules.Request{
		Action: rules.Join, Members: members, Sender: device(&c.ends[from], c.cleared[from]), Recipient: device(added, c.b.cleared(added)),
	})
	if v.Granted {
		return nil
	}
	return &Verdict{Reason: Reason(v.Reason), Detail: strings.Join(v.Rules, " ")}
}
