// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"valise/client/vault"
	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// lose marks a group whose state is of no use here: it is rejoined by an external
// commit.
func (e *Engine) lose(conv *conversation, why string) error {
	e.cfg.Log.Warn("group state lost, resync", "conversation", conv.ID.String(), "why", why)
	e.forget(conv.Group)
	delete(e.want, string(conv.Group))
	return stopped(e.update(func(c *change) error { return c.lose(conv) }))
}

func (c *change) lose(conv *conversation) error {
	if _, err := c.engine.keepView(c, conv); err != nil {
		return err
	}
	next := conv.edit()
	next.State = stateResync
	return errors.Join(c.DeleteAll(tableGroup, conv.Group), c.put(next))
}

// resync makes the external commit that puts a fresh leaf in the place of this
// device's old one (RFC 9420, Section 12.4.3.2; spec/wire.md, Section 4.7).
func (e *Engine) resync(ctx context.Context, l *link, conv *conversation) error {
	answer, err := e.call(ctx, l, &wire.GetGroup{Group: conv.Group})
	if err != nil {
		return err
	}
	if conv = e.conversations[conv.ID]; conv == nil || conv.State != stateResync {
		return nil // a Welcome came meanwhile
	}
	info, ok := answer.(*wire.Group)
	if !ok {
		return e.cannotResync(conv, answer)
	}
	if _, epoch := e.viewEpoch(conv.Group); info.Epoch < epoch && !conv.Lost {
		return stopped(e.update(func(c *change) error { return e.brick(c, conv, brokenRollback) }))
	}
	p, err := mls.PrepareExternalCommit(e.groupConfig(), e.identity(), info.GroupInfo, mls.ExternalParams{
		Tree: info.Tree, Capabilities: capabilities(),
		Replace: func(old mls.Member) bool { d, err := e.member(old); return err == nil && d.Device == e.self },
	})
	if cardFailed(err) {
		e.hold = e.now().Add(retryRefused)
		return nil
	}
	if err != nil {
		return stopped(e.update(func(c *change) error { return e.resyncFailed(c, conv, err) }))
	}
	if list := e.strangers(p.Group().Members()); len(list) > 0 {
		refused, err := e.vouch(ctx, l, list)
		if err != nil || refused == nil {
			return err // again: much may have changed meanwhile
		}
		return stopped(e.update(func(c *change) error {
			conv := e.conversations[conv.ID]
			if conv == nil || conv.State != stateResync {
				return nil
			}
			return e.resyncFailed(c, conv, refused)
		}))
	}
	err = e.update(func(c *change) error {
		s := &slot{Kind: slotResync, Conversation: conv.ID, Group: conv.Group, Epoch: info.Epoch, Delta: p.Group().State().Marshal()}
		frame := &wire.Commit{Group: conv.Group, Epoch: info.Epoch, Commit: p.Commit, GroupInfo: p.GroupInfo}
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

func (e *Engine) cannotResync(conv *conversation, answer wire.Answer) error {
	err := codeOf(answer)
	switch {
	case errors.Is(err, wire.RateLimited) || errors.Is(err, wire.Unavailable):
		e.pause(conv.ID, codeIn(err))
		return nil
	case errors.Is(err, wire.ErrMalformed):
		return err
	case errors.Is(err, wire.UnknownGroup):
		return stopped(e.update(func(c *change) error { return e.brick(c, conv, brokenUnknown) }))
	}
	// Not a member any more.
	return stopped(e.update(func(c *change) error {
		if conv.Unnamed {
			return c.drop(conv)
		}
		left := conv.edit()
		left.State, left.Lost = stateLeft, false
		return errors.Join(c.put(left), e.note(c, conv, Event{Kind: EventLeft, Time: e.now(), Reason: err.Error()}))
	}))
}

// settleResync takes the new state of a resynced group, and asks the others for what
// could not be read.
func (e *Engine) settleResync(s *slot, conv *conversation, state mls.Delta) error {
	g, err := mls.Load(e.groupConfig(), e.identity(), state)
	if err != nil {
		return fmt.Errorf("load the resynced group: %w", err)
	}
	others, err := e.members(g)
	if err != nil {
		return err
	}
	delete(e.failed, conv.ID)
	err = e.update(func(c *change) error {
		if !bytes.Equal(conv.Group, s.Group) {
			return c.emptySlot(false) // it goes on in a successor by now
		}
		next := conv.edit()
		next.State, next.Lost = stateActive, false
		if conv.Unnamed {
			if next, err = e.rename(c, conv, g); err != nil {
				return err
			}
		} else if err := e.noteDrift(c, conv, g, others); err != nil {
			return err
		}
		if err := errors.Join(c.DeleteAll(tableGroup, s.Group), putDelta(c.Tx, s.Group, state), c.put(next), c.emptySlot(false), c.putHealing(s.Group, nil)); err != nil {
			return err
		}
		for _, m := range others {
			if m.Device == e.self {
				continue
			}
			if err := e.askAgain(c, next, m.Device, conv.Lost && !conv.Unnamed); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		e.groups[string(s.Group)] = g
	}
	return err
}

// ReasonResynced is the reason in events of who came in or went out while this device was
// out of step: it has seen no commit of a member that says so, only what the group is now.
const ReasonResynced = "resynced"

// noteDrift shows who is in a resynced group and was not before, and the other way round.
// A gateway that gives out another group than the members are in cannot hide who is there.
func (e *Engine) noteDrift(c *change, conv *conversation, g *mls.Group, now []member) error {
	before, _, err := e.view(c.Tx, conv.Group)
	if err != nil {
		return err
	}
	if len(before) == 0 {
		return e.noteJoined(c, conv, g, e.self)
	}
	without := func(some, others []member) (out []Member) {
		for _, m := range some {
			if !slices.Contains(others, m) {
				out = append(out, Member{Address: m.Address.String(), Device: m.Device})
			}
		}
		return out
	}
	for _, ev := range []Event{{Kind: EventAdded, Members: without(now, before)}, {Kind: EventRemoved, Members: without(before, now)}} {
		if len(ev.Members) == 0 {
			continue
		}
		ev.Time, ev.Reason, ev.Epoch = e.now(), ReasonResynced, g.Epoch()
		if err := e.note(c, conv, ev); err != nil {
			return err
		}
	}
	return nil
}

// rename gives a conversation that was known by its group alone its name and id.
func (e *Engine) rename(c *change, conv *conversation, g *mls.Group) (*conversation, error) {
	l, err := labelOf(g.Extensions())
	if err != nil {
		l = label{ID: conv.ID}
	}
	next := conv.edit()
	next.Unnamed, next.State, next.Name = false, stateActive, l.Name
	if l.ID == conv.ID || e.conversations[l.ID] != nil {
		return next, nil
	}
	if err := c.drop(conv); err != nil {
		return nil, err
	}
	next.ID = l.ID
	cells, err := c.List(tablePeer, conv.ID[:])
	if err != nil {
		return nil, err
	}
	for _, cell := range cells {
		if err := errors.Join(c.Put(tablePeer, l.ID[:], cell.Row, cell.Value), c.Delete(tablePeer, conv.ID[:], cell.Row)); err != nil {
			return nil, err
		}
	}
	return next, e.noteJoined(c, next, g, e.self)
}

// askAgain queues a request for a device's messages that could not be opened. ahead
// asks for what may have come after the last known one, too.
func (e *Engine) askAgain(c *change, conv *conversation, device identity.DeviceID, ahead bool) error {
	p, err := c.peer(conv.ID, device)
	if err != nil {
		return err
	}
	request := wire.ResendRequest{Sender: device}
	for _, n := range p.missing() {
		if p.Missing[n]++; p.Missing[n] > maxTries {
			delete(p.Missing, n)
			if err := e.note(c, conv, Event{Kind: EventLost, Time: e.now(), Device: device, Sequence: n}); err != nil {
				return err
			}
			continue
		}
		request.Sequences = append(request.Sequences, n)
	}
	if ahead {
		for n := p.Last + 1; n <= p.Last+lookAhead; n++ {
			if _, ok := p.Missing[n]; !ok {
				request.Sequences = append(request.Sequences, n)
			}
		}
		p.Fresh = true
	}
	if len(request.Sequences) > maxGap {
		request.Sequences = request.Sequences[:maxGap]
	}
	if err := c.putPeer(conv.ID, device, p); err != nil || len(request.Sequences) == 0 {
		return err
	}
	body, err := request.Marshal()
	if err != nil {
		return err
	}
	_, err = e.queueService(c, conv.ID, &wire.Content{ID: NewMessageID(), MediaType: wire.MediaResend, Time: uint64(e.now().UnixMilli()), Body: body})
	return err
}

// answerResend queues again what a member could not open. Only who could read a
// message when it was sent gets it: everybody in the group must have been a member then,
// or be another device of somebody who was. That is judged when it is sealed (entitled).
func (e *Engine) answerResend(c *change, conv *conversation, r *wire.ResendRequest) error {
	if identity.DeviceID(r.Sender) != e.self {
		return nil
	}
	queued := map[uint64]bool{}
	waiting, err := listJSON[intent](c.Tx, tableIntent, nil)
	if err != nil {
		return err
	}
	for _, in := range waiting {
		if in.Conversation == conv.ID && in.Sequence > 0 {
			queued[in.Sequence] = true
		}
	}
	for _, n := range r.Sequences {
		sent, then, err := e.sentTo(c, conv.ID, n)
		if err != nil {
			return err
		}
		if then == nil || queued[n] || e.now().Unix()-sent.Time > int64(resendPeriod.Seconds()) {
			continue
		}
		in := &intent{Kind: intentContent, Conversation: conv.ID, Content: sent.Content, Mark: sent.Mark, Sequence: n, Resend: true}
		if err := c.queue(in); err != nil {
			return err
		}
	}
	return nil
}

// sentTo finds a content of this device, and who was in the group when it was sent; nil if
// that is not known any more.
func (e *Engine) sentTo(c *change, conv ConversationID, n uint64) (*sentRecord, []member, error) {
	sent, err := getJSON[sentRecord](c.Tx, tableSent, conv[:], vault.Numbered(n))
	if err != nil || sent == nil {
		return nil, nil, err
	}
	then, err := getJSON[[]member](c.Tx, tableRoster, sent.Group, vault.Numbered(sent.Epoch))
	if err != nil || then == nil {
		return sent, nil, err
	}
	return sent, *then, nil
}

// covers says whether everybody in now belongs to somebody in then.
func covers(then, now []member) bool {
	people := map[identity.Address]bool{}
	for _, m := range then {
		people[m.Address] = true
	}
	for _, m := range now {
		if !people[m.Address] {
			return false
		}
	}
	return true
}
