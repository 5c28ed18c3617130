// SPDX-License-Identifier: Apache-2.0

package client

import (
	"time"

	"valise/client/vault"
	"valise/mls"
	"valise/wire"
)

// Healing: a commit with an update path and no proposals (RFC 9420, Section 12.4)
// renews the group's secrets and its maker's keys, so that whoever has copied them
// reads no further. It is due once an epoch has seen healAfter messages, sent or
// received: all members count the same ones. It is due, too, healWithin after the
// epoch's first message.
//
// No two members make it at once. Everybody has a turn of their own, in the order of
// the leaves behind whoever healed last, so that each member's keys are renewed in the
// end; who comes later sees the commit of who came before, and stands down. A member
// who has not seen the last healing (it has just joined or resynced) counts from the
// first leaf, and its turns lie between those of the others. Members who are offline
// let their turn pass. Where clocks or networks are slower than that, two may still
// collide: the gateway lets one win.
//
// Messages come first: nothing is committed while something waits to be sent in the
// conversation, and the turns begin at a lull in the traffic. An engine runs only while
// its device is unlocked, so that a locked card is never asked to sign.

// A healing is what the policy knows of a group's present epoch.
type healing struct {
	Epoch    uint64        `json:"epoch"`
	Messages int           `json:"messages,omitempty"` // sent or received in it
	First    time.Time     `json:"first,omitzero"`     // when the first of them was
	Last     time.Time     `json:"last,omitzero"`      // and the last
	Full     time.Time     `json:"full,omitzero"`      // and number healAfter
	Known    bool          `json:"known,omitempty"`    // Healer is who healed last
	Healer   mls.LeafIndex `json:"healer,omitempty"`

	pause time.Time // not before; in memory only
	turn  *int      // computed for Epoch; in memory only
}

// due says when the turns of this epoch begin, if it has any. A device that was
// offline then begins when it is back.
func (h *healing) due(online time.Time) (time.Time, bool) {
	if h.Messages == 0 {
		return time.Time{}, false
	}
	at := h.First.Add(healWithin)
	if !h.Full.IsZero() && h.Full.Before(at) {
		at = h.Full
	}
	end := at.Add(healPatience)
	if quiet := h.Last.Add(healLull); quiet.After(at) {
		at = quiet
	}
	if at.After(end) {
		at = end
	}
	if online.After(at) {
		at = online
	}
	return at, true
}

// turnOf is a member's place in the order, counted in turns: even ones for those who
// know who healed last, odd ones for the others.
func (h *healing) turnOf(own mls.LeafIndex, members []mls.Member) int {
	after := ^mls.LeafIndex(0) // begins with leaf 0
	if h.Known {
		after = h.Healer
	}
	rank := 0
	for _, m := range members {
		if m.Leaf-after-1 < own-after-1 { // modulo the type's size
			rank++
		}
	}
	if h.Known {
		return 2 * rank
	}
	return 2*rank + 1
}

// healAt says when this device's turn to heal a group comes, if nobody does before.
func (e *Engine) healAt(group string, h *healing) (time.Time, bool) {
	id, ok := e.byGroup[group]
	if !ok || e.conversations[id].State != stateActive || e.state.Name != StateOnline {
		return time.Time{}, false
	}
	at, ok := h.due(e.state.Since)
	if !ok || e.now().Before(at) {
		return at, ok // not before; the group need not be loaded yet
	}
	g, err := e.group([]byte(group))
	if err != nil || g.Epoch() != h.Epoch {
		return time.Time{}, false
	}
	if h.turn == nil {
		members := g.Members()
		if len(members) < 2 {
			return time.Time{}, false
		}
		turn := h.turnOf(g.OwnLeaf(), members)
		h.turn = &turn
	}
	at = at.Add(time.Duration(*h.turn) * healTurn)
	if h.pause.After(at) {
		at = h.pause
	}
	return at, true
}

// heal makes the healing commit whose turn has come. Conversations in which something
// waits to be sent are left alone.
func (e *Engine) heal(waiting map[ConversationID]bool) (bool, error) {
	for group, h := range e.healings {
		at, ok := e.healAt(group, h)
		if !ok || e.now().Before(at) || waiting[e.byGroup[group]] {
			continue
		}
		conv := e.conversations[e.byGroup[group]]
		if w, ok := e.want[group]; ok {
			switch {
			case h.Epoch >= w.epoch:
				delete(e.want, group)
			case e.now().Sub(w.since) < catchUpTimeout:
				continue
			default:
				return true, e.lose(conv, "a commit did not arrive")
			}
		}
		return true, e.healNow(conv, h)
	}
	return false, nil
}

// healNow prepares an empty commit and makes it the submission under way. It signs
// three times: the leaf, the commit, and the GroupInfo that resyncs need.
func (e *Engine) healNow(conv *conversation, h *healing) error {
	g, err := e.group(conv.Group)
	if err != nil {
		return stopped(err)
	}
	own := mls.X509Credential(e.leaf)
	p, err := g.PrepareCommit(mls.CommitParams{IgnorePending: true, Credential: &own, At: e.now()})
	if err != nil {
		e.cfg.Log.Warn("a group was not healed", "conversation", conv.ID.String(), "error", err)
		h.pause = e.now().Add(healPause)
		return nil
	}
	err = e.update(func(c *change) error {
		s := &slot{Kind: slotCommit, Conversation: conv.ID, Group: conv.Group, Epoch: g.Epoch(), Leaf: uint32(g.OwnLeaf()), Delta: p.Delta.Marshal()}
		if err := s.encode(&wire.Commit{Group: conv.Group, Epoch: g.Epoch(), Commit: p.Commit, GroupInfo: p.GroupInfo}, c.meta.Counter+1); err != nil {
			return err
		}
		return c.fillSlot(s)
	})
	if err != nil {
		return stopped(err)
	}
	return stoppedAt(e.at("sealed"))
}

// heals says whether a submission is a healing commit.
func (s *slot) heals() bool { return s.Kind == slotCommit && s.Intent == 0 && !s.Duty }

// healRefused drops a healing commit that the gateway did not take. Nothing waits for
// it, and nothing may be held up by it.
func (e *Engine) healRefused(s *slot, code wire.Code) error {
	e.cfg.Log.Info("a healing commit was refused", "code", code.String())
	if h := e.healings[string(s.Group)]; h != nil {
		h.pause = e.now().Add(healPause)
	}
	return e.update(func(c *change) error { return c.emptySlot(true) })
}

// counted notes a message of a group for the policy.
func (e *Engine) counted(c *change, group []byte, epoch uint64) error {
	next := healing{Epoch: epoch}
	if h := e.healings[string(group)]; h != nil {
		if h.Epoch > epoch {
			return nil
		}
		next.Known, next.Healer = h.Known, h.Healer
		if h.Epoch == epoch {
			next = *h
		}
	}
	now := e.now()
	if next.Messages == 0 {
		next.First = now
	}
	next.Messages++
	next.Last = now
	if next.Messages == healAfter {
		next.Full = now
	}
	return c.putHealing(group, &next)
}

// healed notes that a commit without proposals renewed a member's keys.
func (c *change) healed(group []byte, epoch uint64, by mls.LeafIndex) error {
	return c.putHealing(group, &healing{Epoch: epoch, Known: true, Healer: by})
}

// healedBy notes a commit of another member.
func (c *change) healedBy(group []byte, ch *mls.Change) error {
	if ch.External || !ch.Path || len(ch.Proposals) > 0 {
		return nil
	}
	return c.healed(group, ch.Epoch, ch.Committer.Leaf)
}

// putHealing writes what the policy knows of a group; nil forgets it.
func (c *change) putHealing(group []byte, h *healing) error {
	c.healings[string(group)] = h
	if h == nil {
		return c.Delete(tableHealing, nil, group)
	}
	return putJSON(c.Tx, tableHealing, nil, group, h)
}

func (e *Engine) loadHealings(tx *vault.Tx) error {
	cells, err := tx.List(tableHealing, nil)
	if err != nil {
		return err
	}
	for _, cell := range cells {
		h, err := decode[healing](tableHealing, cell.Value)
		if err != nil {
			return err
		}
		e.healings[string(cell.Row)] = h
	}
	return nil
}

// untilHealing is how long the pump may rest before a turn comes.
func (e *Engine) untilHealing() (time.Duration, bool) {
	least, any := time.Duration(0), false
	for group, h := range e.healings {
		at, ok := e.healAt(group, h)
		if wait := at.Sub(e.now()); ok && wait > 0 && (!any || wait < least) {
			least, any = wait, true
		}
	}
	return least, any
}
