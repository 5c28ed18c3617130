// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"slices"
	"time"

	"valise/mls"
)

// After a restore of the gateway nobody can tell whether somebody was removed meanwhile:
// the commit that did it is forgotten, and those who have seen it may be away. Who founds
// a successor by an older view brings back whoever was removed, and would write to him.
// Those who know of the removal never enter such a successor. So in one of more than two
// people what is written waits until each of them has been heard there, or until this
// device's person has looked who is in it and says that it may go on. A device that has
// seen what was forgotten waits only as long as the others wait for its like.

// reasonUnheard is why what is written waits: not everybody has been heard in the
// successor that followed a restore.
const reasonUnheard = "members_unheard"

// unhear notes whose word is waited for in a successor that a restore is the reason of.
func (e *Engine) unhear(conv *conversation, list []member) {
	conv.Unheard, conv.UnheardUntil = nil, 0
	if conv.Broken != brokenRestored {
		return
	}
	people := addresses(list)
	if len(people) <= 2 {
		return
	}
	conv.Unheard = slices.DeleteFunc(people, func(a string) bool { return a == e.cfg.Address.String() })
	if !conv.Unknowing {
		conv.UnheardUntil = e.now().Add(foundUnknowing).Unix()
	}
}

// heard notes that somebody speaks in a conversation's present group.
func (e *Engine) heard(c *change, conv *conversation, who string) error {
	now := e.conversations[conv.ID]
	if changed, ok := c.conversations[conv.ID]; ok {
		now = changed
	}
	if now == nil || !slices.Contains(now.Unheard, who) {
		return nil
	}
	next := now.edit()
	next.Unheard = slices.DeleteFunc(slices.Clone(now.Unheard), func(a string) bool { return a == who })
	return c.put(next)
}

// unheard lists the devices of those members whose word is still waited for.
func (e *Engine) unheard(conv *conversation, g *mls.Group) []Member {
	if len(conv.Unheard) == 0 || conv.UnheardUntil > 0 && e.now().Unix() >= conv.UnheardUntil {
		return nil
	}
	list, err := e.members(g)
	if err != nil {
		return nil // it fails when it is sealed
	}
	var out []Member
	for _, m := range list {
		if slices.Contains(conv.Unheard, m.Address.String()) {
			out = append(out, Member{Address: m.Address.String(), Device: m.Device})
		}
	}
	return out
}

// waitHeard keeps a message back until everybody was heard. What devices say to each
// other goes before it, and so does a removal.
func (e *Engine) waitHeard(ctx context.Context, l *link, in *intent, conv *conversation, who []Member) (bool, error) {
	if number := e.backlog.passing(conv.ID); number != 0 {
		other, err := e.intent(number)
		if err != nil {
			return false, stopped(err)
		}
		if other != nil && (other.Kind != intentContent || other.Service || other.Resend) {
			return e.make(ctx, l, other)
		}
	}
	if conv.Held == reasonUnheard {
		return false, nil
	}
	return true, stopped(e.update(func(c *change) error { return e.held(c, conv, in, reasonUnheard, who) }))
}

// Confirm says for this device's person that the people in a conversation are the right
// ones: what is written there waits for nobody's word any more.
func (e *Engine) Confirm(_ context.Context, id ConversationID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	conv := e.conversations[id]
	switch {
	case conv == nil:
		return errNoConversation
	case conv.State != stateActive || len(conv.Unheard) == 0:
		return errNothingToConfirm
	}
	return e.update(func(c *change) error {
		next := conv.edit()
		next.Unheard, next.UnheardUntil = nil, 0
		return errors.Join(c.put(next), e.released(c, id))
	})
}

var errNothingToConfirm error = &hintError{"nothing there waits for a confirmation", "valise conversations shows what waits, and why"}

// untilHeard is how long the pump may rest before a wait for somebody's word ends.
func (e *Engine) untilHeard() (least time.Duration, any bool) {
	for _, conv := range e.conversations {
		if len(conv.Unheard) == 0 || conv.UnheardUntil == 0 || conv.State != stateActive {
			continue
		}
		if wait := time.Unix(conv.UnheardUntil, 0).Sub(e.now()); wait > 0 && (!any || wait < least) {
			least, any = wait, true
		}
	}
	return least, any
}

// entitled says whether everybody who is in a group now may have a content that somebody
// asked for: who could read it when it was sent. It is looked at again when it is sealed,
// for others may have come in since it was asked for.
func (e *Engine) entitled(c *change, in *intent, g *mls.Group) (bool, error) {
	sent, then, err := e.sentTo(c, in.Conversation, in.Sequence)
	if err != nil || sent == nil || then == nil {
		return false, err
	}
	now, err := e.members(g)
	return err == nil && covers(then, now), err
}

// endUnentitled drops what is to be sent again, if somebody would read it who could not
// when it was sent.
func (e *Engine) endUnentitled(in *intent, g *mls.Group) (ended bool, err error) {
	err = e.update(func(c *change) error {
		may, err := e.entitled(c, in, g)
		if ended = err == nil && !may; !ended {
			return err
		}
		e.cfg.Log.Warn("not sent again: the conversation has new members", "sequence", in.Sequence)
		return c.end(in.Number, nil)
	})
	return ended && err == nil, stopped(err)
}
