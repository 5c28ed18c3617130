// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
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

// How a group that claims to succeed a conversation's present one is judged.
//
// It is legitimate if it names that group, its founder was a member of it, and all its
// members belong to people who were, by this device's own last view.
//
// A legitimate successor is followed if the present group cannot go on by this
// device's own judgement (it has left it, or messages in it do not open, or the gateway
// does not know it, or shows an earlier epoch or something invalid), or if the
// conversation has only two people. Otherwise it waits as a candidate until a second
// member speaks in it: one member alone cannot lead all others away.
//
// Of two successors of the same group the one with fewer people wins, if all of these are
// in the other one too, and else the one with the smaller group id.

// successorArrived deals with a Welcome to a group of a conversation that has another.
func (e *Engine) successorArrived(ctx context.Context, l *link, d *wire.Deliver, g *mls.Group, name label, used []byte) error {
	if err := e.awaitFounding(ctx, l, name.ID); err != nil {
		return err
	}
	broken, err := e.broken(ctx, l, e.conversations[name.ID], name)
	if err != nil {
		return err
	}
	conv := e.conversations[name.ID] // the pump went on meanwhile
	if conv == nil {
		return e.done(d, nil)
	}
	founder, why := e.legitimate(conv, g, name)
	if why != nil {
		// Nobody may slip another group under a conversation that goes on.
		if err := e.report(ctx, l, d, reasonTaken, why); err != nil {
			return err
		}
		return e.done(d, func(c *change) error { return c.Put(tableRefused, nil, d.Group, nil) })
	}
	sibling := conv.State != stateBroken && !bytes.Equal(conv.Group, []byte(name.Predecessor))
	if sibling && !e.comesFirst(d.Group, g, conv.Group) {
		return e.done(d, func(c *change) error {
			next := conv.edit()
			next.Former = append(next.Former, slices.Clone(d.Group)) // lost to the present one
			return c.put(next)
		})
	}
	if !broken && !sibling && len(addresses(e.viewOf(conv.Group))) > 2 {
		return e.done(d, func(c *change) error { return e.hear(c, conv, d.Group, g, founder, used) })
	}
	err = e.done(d, func(c *change) error { return e.adopt(c, conv, d.Group, g, founder, used) })
	if err == nil {
		e.groups[string(g.ID())] = g
	}
	return err
}

// comesFirst says whether a successor is to be followed rather than another one of the same
// group. One without somebody who is in the other does: its founder knows of a removal that
// the other one's does not.
func (e *Engine) comesFirst(group []byte, g *mls.Group, other []byte) bool {
	list, err := e.members(g)
	if err != nil {
		return false
	}
	mine, theirs := addresses(list), addresses(e.viewOf(other))
	within := func(some, all []string) bool {
		return len(some) < len(all) && !slices.ContainsFunc(some, func(a string) bool { return !slices.Contains(all, a) })
	}
	switch {
	case within(mine, theirs):
		return true
	case within(theirs, mine):
		return false
	}
	return bytes.Compare(group, other) < 0
}

// awaitFounding waits for the answer to this device's own first commit in a successor:
// until then nobody knows which one is first.
func (e *Engine) awaitFounding(ctx context.Context, l *link, id ConversationID) error {
	for {
		conv, s := e.conversations[id], e.slot
		if conv == nil || s == nil || s.Kind != slotCommit || s.Intent == 0 || s.Intent != conv.Founding {
			return nil
		}
		if err := e.awaitNews(ctx, l); err != nil {
			return err
		}
	}
}

// broken finds out whether a conversation's group can go on, as far as this device
// can tell by itself.
func (e *Engine) broken(ctx context.Context, l *link, conv *conversation, name label) (bool, error) {
	if conv == nil || conv.State == stateBroken {
		return true, nil
	}
	if f := e.forks[string(conv.Group)]; f != nil && (f.resyncs > 0 || len(f.senders) > 0) {
		return true, nil
	}
	if name.Predecessor != string(conv.Group) {
		return false, nil
	}
	_, epoch := e.viewEpoch(conv.Group)
	answer, err := e.call(ctx, l, &wire.GetGroup{Group: conv.Group})
	if err != nil {
		return false, err
	}
	info, ok := answer.(*wire.Group)
	if !ok {
		code := codeOf(answer)
		return errors.Is(code, wire.UnknownGroup) || errors.Is(code, wire.NotMember), nil
	}
	_, err = mls.NewPublicGroup(authenticator{e.cfg.Trust}, info.GroupInfo, info.Tree, time.Time{})
	return err != nil || info.Epoch < epoch, nil
}

func (e *Engine) viewOf(group []byte) []member {
	list, _ := e.viewEpoch(group)
	return list
}

func (e *Engine) viewEpoch(group []byte) (list []member, epoch uint64) {
	err := e.cfg.Vault.View(context.Background(), func(tx *vault.Tx) (err error) {
		list, epoch, err = e.view(tx, group)
		return err
	})
	if err != nil {
		e.cfg.Log.Error("a group's members cannot be read", "error", err)
		return nil, 0
	}
	return list, epoch
}

// legitimate says who founded a successor, or why it is none.
func (e *Engine) legitimate(conv *conversation, g *mls.Group, name label) (member, error) {
	former := []byte(name.Predecessor)
	switch {
	case len(former) == 0:
		return member{}, errors.New("a group for a conversation that has one")
	case !bytes.Equal(former, conv.Group) && !bytes.Equal(former, conv.Predecessor):
		return member{}, errors.New("a successor of a group that this conversation does not have")
	case g.Epoch() != 1:
		return member{}, fmt.Errorf("a successor is joined in epoch 1, not %d", g.Epoch())
	}
	first, ok := g.Member(0) // who created the group, and alone could commit in epoch 0
	if !ok {
		return member{}, errors.New("a successor without a founder")
	}
	founder, err := e.member(first)
	if err != nil {
		return member{}, err
	}
	list, err := e.members(g)
	if err != nil {
		return member{}, err
	}
	// A sibling of the present group must not bring back who was removed since.
	views := [][]member{e.viewOf(former)}
	if conv.State != stateBroken && !bytes.Equal(former, conv.Group) {
		views = append(views, e.viewOf(conv.Group))
	}
	for _, view := range views {
		if !slices.Contains(view, founder) {
			return member{}, fmt.Errorf("founded by %s, who was not a member", founder.Address)
		}
		if !covers(view, list) {
			return member{}, errors.New("it has members who are strangers to the conversation")
		}
	}
	return founder, nil
}

// adopt moves a conversation into a successor.
func (e *Engine) adopt(c *change, conv *conversation, group []byte, g *mls.Group, founder member, used []byte) error {
	if _, err := e.keepView(c, conv); err != nil {
		return err
	}
	l, err := labelOf(g.Extensions())
	if err != nil {
		return err
	}
	next := conv.edit()
	next.Former = append(next.Former, conv.Group)
	next.Group, next.Predecessor, next.State = slices.Clone(group), []byte(l.Predecessor), stateActive
	next.Founding, next.Lost = 0, false
	e.forget(conv.Group)
	delete(e.foundAt, conv.ID)
	if used != nil {
		if err := c.Delete(tablePackage, nil, used); err != nil {
			return err
		}
	}
	err = errors.Join(c.end(conv.Founding, nil), c.DeleteAll(tableGroup, conv.Group), c.putHealing(conv.Group, nil),
		putDelta(c.Tx, group, g.State()), c.put(next), e.freshPackages(c, conv.ID))
	if err != nil {
		return err
	}
	return e.entered(c, next, g, founder, false)
}

// freshPackages lets queued changes of a conversation gather KeyPackages again: those
// that they have were for the former group.
func (e *Engine) freshPackages(c *change, id ConversationID) error {
	waiting, err := listJSON[intent](c.Tx, tableIntent, nil)
	if err != nil {
		return err
	}
	for _, in := range waiting {
		if in.Conversation != id || in.Packages == nil {
			continue
		}
		in.Packages = nil
		if err := c.keepIntent(in); err != nil {
			return err
		}
	}
	return nil
}

// hear keeps a legitimate successor for which only its founder speaks so far.
func (e *Engine) hear(c *change, conv *conversation, group []byte, g *mls.Group, founder member, used []byte) error {
	e.cfg.Log.Warn("a member founded a successor of a group that works here; a second member is waited for", "founder", founder.Address.String())
	waiting := &conversation{ID: NewConversationID(), Group: slices.Clone(group), State: stateCandidate, Of: conv.ID, Founder: founder, Started: e.now().Unix()}
	if used != nil {
		if err := c.Delete(tablePackage, nil, used); err != nil {
			return err
		}
	}
	return errors.Join(putDelta(c.Tx, group, g.State()), c.put(waiting))
}

// candidate is the successor that waits for a conversation.
func (e *Engine) candidate(conv *conversation) *conversation {
	for _, w := range e.conversations {
		if w.State == stateCandidate && w.Of == conv.ID {
			return w
		}
	}
	return nil
}

// adoptCandidate follows a successor that waited.
func (e *Engine) adoptCandidate(c *change, conv, waiting *conversation) error {
	g, err := e.stored(c.Tx, waiting.Group)
	if err != nil {
		return err
	}
	// What came in it meanwhile was not opened: it is asked for.
	rows, err := c.List(tablePeer, waiting.ID[:])
	if err != nil {
		return err
	}
	for _, row := range rows {
		device := identity.DeviceID(row.Row)
		missed, err := c.peer(waiting.ID, device)
		if err != nil {
			return err
		}
		p, err := c.peer(conv.ID, device)
		if err != nil {
			return err
		}
		for n := range missed.Missing {
			if n > p.Last || p.Fresh {
				p.Missing[n] += 0
			}
		}
		if err := c.putPeer(conv.ID, device, p); err != nil {
			return err
		}
	}
	if err := errors.Join(c.drop(waiting), c.DeleteAll(tablePeer, waiting.ID[:])); err != nil {
		return err
	}
	return e.adopt(c, conv, waiting.Group, g, waiting.Founder, nil)
}

// overheard deals with a delivery in a candidate. It says whether a second member has
// spoken: then the conversation is in the candidate's group now.
func (e *Engine) overheard(d *wire.Deliver, waiting *conversation) (bool, error) {
	conv := e.conversations[waiting.Of]
	g, err := e.group(waiting.Group)
	if err != nil {
		return false, stopped(err)
	}
	r, err := g.Receive(d.Payload, e.now())
	e.forget(waiting.Group) // opened again once it is followed
	var who member
	switch {
	case err != nil || conv == nil:
		return false, e.done(d, nil)
	case r.Kind == mls.ContentCommit && r.Commit != nil:
		who, err = e.member(r.Commit.Change.Committer)
	default:
		who, err = e.member(r.Sender)
	}
	if err != nil {
		return false, stopped(err)
	}
	if who.Address != waiting.Founder.Address {
		return true, stopped(e.update(func(c *change) error { return e.adoptCandidate(c, conv, waiting) }))
	}
	return false, e.done(d, func(c *change) error {
		if d.Kind == wire.DeliverCommit {
			// A founder who changes the group before anybody has vouched for it is
			// not followed.
			return errors.Join(c.DeleteAll(tableGroup, waiting.Group), c.drop(waiting))
		}
		return e.missed(c, d)
	})
}

// formerOf finds the conversation that a group once belonged to.
func (e *Engine) formerOf(group []byte) *conversation {
	for _, conv := range e.conversations {
		if slices.ContainsFunc(conv.Former, func(f []byte) bool { return bytes.Equal(f, group) }) {
			return conv
		}
	}
	return nil
}
