// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"valise/client/vault"
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
	return e.prepare(conv, g, nil, proposals, events)
}

// prepare makes a commit the submission under way. Everything about it is on disk before
// it is sent; nothing changes before the gateway has taken it. in is the message that it
// is made for; nil for a removal, which is made for everybody.
func (e *Engine) prepare(conv *conversation, g *mls.Group, in *intent, proposals []mls.Proposal, events []Event) error {
	own := mls.X509Credential(e.leaf)
	p, err := g.PrepareCommit(mls.CommitParams{Proposals: proposals, IgnorePending: true, TreeInWelcome: true, Credential: &own, At: e.now()})
	switch {
	case err != nil && in != nil:
		return e.abandon(in, conv, fmt.Errorf("prepare the change: %w", err))
	case err != nil:
		e.cfg.Log.Warn("a change of a conversation was not prepared", "conversation", conv.ID.String(), "error", err)
		e.pause(conv.ID, wire.InvalidCommit)
		return nil
	}
	err = e.update(func(c *change) error {
		s := &slot{
			Kind: slotCommit, Duty: true, Conversation: conv.ID, Group: conv.Group, Epoch: g.Epoch(), Delta: p.Delta.Marshal(), Events: events,
		}
		if in != nil {
			s.For = in.Number
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
	e.pauseFor(conv.ID, r.Code, lookPause)
	return stopped(e.update(func(c *change) error {
		in, err := e.reopened(c, s)
		if err != nil || in == nil {
			return err
		}
		return e.tellHeld(c, s, in, r)
	}))
}

// dutyRefused drops a removal or a taking back that the gateway did not take. What waits
// for it waits on, unless it is a message for which somebody was to be taken back, and
// that will not be allowed: that message is given up.
func (e *Engine) dutyRefused(s *slot, r *wire.Result) error {
	e.cfg.Log.Warn("a change that a message waits for was refused", "code", r.Code.String(), "conversation", s.Conversation.String())
	if s.For != 0 && !passes[r.Code] {
		return e.giveUpFor(s, e.refusalAbout(s, r))
	}
	e.pause(s.Conversation, r.Code)
	return e.update(func(c *change) error {
		in, err := e.waitsFor(c, s)
		if err != nil {
			return err
		}
		return errors.Join(c.emptySlot(true), e.tellHeld(c, s, in, r))
	})
}

// passes are the refusals after which the same change may be taken later.
var passes = map[wire.Code]bool{
	wire.RateLimited: true, wire.MailboxFull: true, wire.BundleChanged: true, wire.NoBundle: true, wire.StandingsStale: true,
	wire.RemovalDue: true, wire.Unavailable: true,
}

// waitsFor is the message for which a change is made; nil for a removal.
func (e *Engine) waitsFor(c *change, s *slot) (*intent, error) {
	if s.For == 0 {
		return nil, nil
	}
	return getJSON[intent](c.Tx, tableIntent, nil, vault.Numbered(s.For))
}

// giveUpFor ends the message for which a change was to be made. Its sequence number, if
// it had one, is free again.
func (e *Engine) giveUpFor(s *slot, why error) error {
	return e.update(func(c *change) error {
		in, err := e.waitsFor(c, s)
		conv := e.conversations[s.Conversation]
		if err != nil || in == nil || conv == nil {
			return errors.Join(err, c.emptySlot(true))
		}
		return errors.Join(c.emptySlot(true), e.withdraw(c, in, conv, why))
	})
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
	return e.prepare(conv, g, in, proposals, []Event{event})
}

// errDeserted ends messages that nobody would get.
var errDeserted error = &hintError{
	"nobody is left in the conversation: the others' devices are out of good standing and were removed",
	"write again once officers have resumed a device; it is taken back in then",
}
