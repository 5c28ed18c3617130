// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"slices"
	"time"

	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// The duty to remove (spec/message.md, Section 9): nothing is sent into a group before
// those of its members are removed who are out of good standing. This device removes
// them before its own send, and when the gateway asks it to. It removes only whom
// it finds barred itself, by the authority's word; what waits to be sent stays queued.

// A lease is a removal that the gateway asks for.
type lease struct{ since, until time.Time }

// leased notes that the gateway asks this device to remove somebody from a group.
func (e *Engine) leased(l *wire.Lease) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ours := e.byGroup[string(l.Group)]; !ours {
		return
	}
	now := e.now()
	e.leases[string(l.Group)] = lease{now, now.Add(time.Duration(l.Milliseconds) * time.Millisecond)}
	e.bell.ring()
}

// serveLeases makes the next removal that the gateway asks for.
func (e *Engine) serveLeases(ctx context.Context, l *link) (bool, error) {
	for group, w := range e.leases {
		conv := e.conversations[e.byGroup[group]]
		if conv == nil || conv.State != stateActive || !e.now().Before(w.until) {
			delete(e.leases, group)
			continue
		}
		if e.paused(conv) || e.awaits(group) {
			continue
		}
		g, err := e.group(conv.Group)
		if err != nil {
			return true, stopped(err)
		}
		out, err := e.barred(g)
		if err != nil {
			return true, stopped(err)
		}
		if len(out) == 0 {
			// The gateway knows more, or somebody has done it already.
			if e.standings.asked.After(w.since) && e.now().Sub(e.standings.asked) < lookPause {
				continue
			}
			return true, e.refreshStandings(ctx, l)
		}
		delete(e.leases, group)
		return true, e.clear(conv, g, out)
	}
	return false, nil
}

// awaits says whether a commit was announced that this device does not have yet.
func (e *Engine) awaits(group string) bool {
	_, waits := e.want[group]
	return waits
}

// An outcast is a member who must be removed.
type outcast struct {
	member
	leaf   mls.LeafIndex
	reason string
}

// barred lists the members of a group who are out of good standing. This device itself
// is not among them: the gateway sees to that.
func (e *Engine) barred(g *mls.Group) ([]outcast, error) {
	var out []outcast
	for _, m := range g.Members() {
		who, err := e.member(m)
		if err != nil {
			return nil, err
		}
		if reason := e.against(who); reason != "" && who.Device != e.self {
			out = append(out, outcast{who, m.Leaf, reason})
		}
	}
	return out, nil
}

// clearFirst does what a message has to wait for: removes who is barred, or takes back
// those without whom nobody would read it. It returns false if there is nothing to do.
func (e *Engine) clearFirst(ctx context.Context, l *link, in *intent, conv *conversation, g *mls.Group) (bool, error) {
	out, err := e.barred(g)
	if err != nil {
		return true, stopped(err)
	}
	if len(out) > 0 {
		return true, e.clear(conv, g, out)
	}
	roster, err := e.members(g)
	if err != nil || !e.deserted(conv, roster) {
		return err != nil, stopped(err)
	}
	return true, e.takeBack(ctx, l, in, conv)
}

// clear removes members.
func (e *Engine) clear(conv *conversation, g *mls.Group, out []outcast) error {
	var proposals []mls.Proposal
	var events []Event
	for _, o := range out {
		proposals = append(proposals, mls.RemoveProposal(o.leaf))
		events = append(events, Event{
			Kind: EventRemoved, Conversation: conv.ID, From: e.cfg.Address.String(), Device: e.self, Outgoing: true, Reason: o.reason,
			Members: []Member{{Address: o.Address.String(), Device: o.Device}}, Epoch: g.Epoch() + 1,
		})
	}
	return e.prepare(conv, g, proposals, events)
}

// prepare makes a commit the submission under way. Everything about it is on disk before
// it is sent; nothing changes before the gateway has taken it.
func (e *Engine) prepare(conv *conversation, g *mls.Group, proposals []mls.Proposal, events []Event) error {
	own := mls.X509Credential(e.leaf)
	p, err := g.PrepareCommit(mls.CommitParams{Proposals: proposals, IgnorePending: true, TreeInWelcome: true, Credential: &own, At: e.now()})
	if err != nil {
		e.cfg.Log.Warn("a change of a conversation was not prepared", "conversation", conv.ID.String(), "error", err)
		e.pause(conv.ID)
		return nil
	}
	err = e.update(func(c *change) error {
		s := &slot{
			Kind: slotCommit, Duty: true, Conversation: conv.ID, Group: conv.Group, Epoch: g.Epoch(), Delta: p.Delta.Marshal(), Events: events,
		}
		frame := &wire.Commit{Group: conv.Group, Epoch: g.Epoch(), Commit: p.Commit, Welcome: p.Welcome, GroupInfo: p.GroupInfo}
		if err := s.encode(frame, c.meta.Counter+1); err != nil {
			return err
		}
		return c.fillSlot(s)
	})
	if err != nil {
		return stopped(err)
	}
	return stoppedAt(e.at("sealed"))
}

// removalDue deals with a message that was refused because somebody must be removed
// first: it stays queued under its sequence number, and the standings are looked at.
func (e *Engine) removalDue(ctx context.Context, l *link, s *slot, r *wire.Result) error {
	err := e.update(func(c *change) error { return errors.Join(e.reopen(c, s), c.emptySlot(true)) })
	if err != nil {
		return stopped(err)
	}
	if err := e.refreshStandings(ctx, l); err != nil {
		return err
	}
	conv := e.conversations[s.Conversation]
	if conv == nil || conv.State != stateActive {
		return nil
	}
	g, err := e.group(conv.Group)
	if err != nil {
		return stopped(err)
	}
	if out, err := e.barred(g); err != nil || len(out) > 0 {
		return stopped(err) // removed before the message is sealed again
	}
	// Who was removed meanwhile is not barred any more either: the commit is on its way.
	about, _ := r.About()
	e.cfg.Log.Info("the gateway holds a message back, and no statement of an officer shows why", "device", identity.DeviceID(about).String())
	e.pause(conv.ID)
	return nil
}

// dutyRefused drops a removal that the gateway did not take. What waits for it waits on.
func (e *Engine) dutyRefused(s *slot, code wire.Code) error {
	e.cfg.Log.Warn("a removal was refused", "code", code.String())
	e.pause(s.Conversation)
	return e.update(func(c *change) error { return c.emptySlot(true) })
}

// setAside keeps a message that was refused for a reason that passes, and lets other
// conversations go on meanwhile.
func (e *Engine) setAside(s *slot, code wire.Code) error {
	e.cfg.Log.Info("held back by the gateway", "code", code.String())
	e.pause(s.Conversation)
	return e.update(func(c *change) error { return errors.Join(e.reopen(c, s), c.emptySlot(true)) })
}

// pause lets a conversation rest; its messages stay queued.
func (e *Engine) pause(conv ConversationID) { e.pauses[conv] = e.now().Add(retryRefused) }

func (e *Engine) paused(conv *conversation) bool {
	until, ok := e.pauses[conv.ID]
	if ok && !e.now().Before(until) {
		delete(e.pauses, conv.ID)
		return false
	}
	return ok
}

// untilPauseEnds is how long the pump may rest before a conversation goes on.
func (e *Engine) untilPauseEnds() (time.Duration, bool) {
	least, any := time.Duration(0), false
	for _, until := range e.pauses {
		if wait := max(until.Sub(e.now()), time.Millisecond); !any || wait < least {
			least, any = wait, true
		}
	}
	return least, any
}

// clearedBy notes whom a removal took out for their standing, or who is back.
func (c *conversation) clearedBy(events []Event) *conversation {
	next := c.edit()
	next.Cleared = slices.Clone(c.Cleared)
	for _, ev := range events {
		for _, m := range ev.Members {
			next.Cleared = slices.DeleteFunc(next.Cleared, func(a string) bool { return a == m.Address })
			if ev.Kind == EventRemoved && ev.Reason != "" {
				next.Cleared = append(next.Cleared, m.Address)
			}
		}
	}
	return next
}

// deserted says that removals left nobody in a conversation but this person.
func (e *Engine) deserted(conv *conversation, roster []member) bool {
	return len(conv.Cleared) > 0 && !slices.ContainsFunc(roster, func(m member) bool { return m.Address != e.cfg.Address })
}

// takeBack adds those who were removed from a deserted conversation and are in good
// standing again. Where there are none the message ends: nobody would read it.
func (e *Engine) takeBack(ctx context.Context, l *link, in *intent, conv *conversation) error {
	var packages [][]byte
	for _, address := range conv.Cleared {
		some, err := e.gatherNew(ctx, l, conv, []string{address})
		var none *NoDevice
		var barred *Barred
		switch {
		case err == nil:
			packages = append(packages, some...)
		case !errors.As(err, &none) && !errors.As(err, &barred):
			return e.unable(in, conv, err)
		}
	}
	if conv = e.conversations[conv.ID]; conv == nil || conv.State != stateActive {
		return nil // much may have changed meanwhile
	}
	if len(packages) == 0 {
		return e.abandon(in, conv, errDeserted)
	}
	g, err := e.group(conv.Group)
	if err != nil {
		return stopped(err)
	}
	var proposals []mls.Proposal
	event := Event{Kind: EventAdded, Conversation: conv.ID, From: e.cfg.Address.String(), Device: e.self, Outgoing: true, Epoch: g.Epoch() + 1}
	for _, raw := range packages {
		kp, err := mls.ParseKeyPackage(raw)
		if err != nil {
			return e.abandon(in, conv, err)
		}
		who, err := e.member(mls.Member{Credential: kp.Leaf.Credential})
		if err != nil {
			return e.abandon(in, conv, err)
		}
		proposals = append(proposals, mls.AddProposal(kp))
		event.Members = append(event.Members, Member{Address: who.Address.String(), Device: who.Device})
	}
	return e.prepare(conv, g, proposals, []Event{event})
}

// errDeserted ends messages that nobody would get.
var errDeserted error = &hintError{
	"nobody is left in the conversation: the others' devices are out of good standing and were removed",
	"write again once officers have resumed a device; it is taken back in then",
}
