// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"errors"
	"time"

	"valise/client/vault"
	"valise/identity"
	"valise/wire"
)

// What the gateway does not take at present waits with its conversation, and holds up
// no other one. It is offered again after a pause that doubles up to restMost, as the
// same bytes where nothing has changed: each sealing uses up a key of the sender's
// ratchet, which recipients follow for some way only, and a signature of the card.

// A rest is a conversation in which nothing is tried for a while. It is kept in memory
// only: who starts anew tries at once.
type rest struct {
	until time.Time
	wait  time.Duration // the last pause
	code  wire.Code     // what the gateway said

	overtook uint64 // the removal that was tried meanwhile
}

// pause lets a conversation rest, twice as long each time that nothing went through in
// it meanwhile; its messages stay queued.
func (e *Engine) pause(conv ConversationID, code wire.Code) { e.pauseFor(conv, code, retryRefused) }

// pauseFor is pause with the first pause given.
func (e *Engine) pauseFor(conv ConversationID, code wire.Code, least time.Duration) {
	r := e.pauses[conv]
	r.wait = min(max(2*r.wait, least), restMost)
	r.until, r.code = e.now().Add(r.wait), code
	e.pauses[conv] = r
}

// paused says whether a conversation rests.
func (e *Engine) paused(conv *conversation) bool { return e.now().Before(e.pauses[conv.ID].until) }

// mayOvertake is a removal that need not wait for a message to a full mailbox, 0 for
// none; each is tried once between
// two tries of the message.
func (e *Engine) mayOvertake(conv ConversationID) uint64 {
	r := e.pauses[conv]
	number := e.backlog.removal(conv)
	if r.code != wire.MailboxFull || number == r.overtook {
		return 0
	}
	r.overtook = number
	e.pauses[conv] = r
	return number
}

// goesOn ends a conversation's rests: something of it went through.
func (e *Engine) goesOn(conv ConversationID) { delete(e.pauses, conv) }

// untilPauseEnds is how long the pump may rest before a conversation goes on. What is
// over by then does not count, and is forgotten when it has been for a long time.
func (e *Engine) untilPauseEnds() (time.Duration, bool) {
	least, any := time.Duration(0), false
	for id, r := range e.pauses {
		wait := r.until.Sub(e.now())
		switch {
		case wait < -restMost:
			delete(e.pauses, id)
		case wait > 0 && (!any || wait < least):
			least, any = wait, true
		}
	}
	return least, any
}

// wake ends the rests of conversations that wait for the authority's word, because there
// is news of it.
func (e *Engine) wake() {
	for id, r := range e.pauses {
		if r.code == wire.RemovalDue || r.code == wire.StandingsStale {
			r.until = time.Time{}
			e.pauses[id] = r
		}
	}
}

// tellAtOnce are the reasons for which a conversation is said to wait at its first
// refusal; for others only when it has waited for as long as tellAfter: they mostly pass
// by themselves.
var tellAtOnce = map[wire.Code]bool{wire.MailboxFull: true, wire.StandingsStale: true, wire.Unavailable: true}

// setAside keeps a message that was refused for a reason that passes, with the bytes
// that were refused, and lets other conversations go on. Its person is told.
func (e *Engine) setAside(s *slot, r *wire.Result) error {
	e.pause(s.Conversation, r.Code)
	e.cfg.Log.Info("held back by the gateway", "code", r.Code.String(), "conversation", s.Conversation.String(), "for", e.pauses[s.Conversation].wait)
	return e.update(func(c *change) error {
		in, err := e.reopened(c, s)
		if err != nil {
			return err
		}
		if in != nil {
			in.Sealed = s
			if b := e.law.bundle; b != nil {
				in.Bundle = b.Hash[:]
			}
			if err := c.keepIntent(in); err != nil {
				return err
			}
		}
		return errors.Join(c.emptySlot(true), e.tellHeld(c, s, in, r))
	})
}

// tellHeld tells, once, that what is written into a conversation waits, and why.
func (e *Engine) tellHeld(c *change, s *slot, in *intent, r *wire.Result) error {
	conv := e.conversations[s.Conversation]
	if conv == nil || !tellAtOnce[r.Code] && e.pauses[conv.ID].wait < tellAfter {
		return nil
	}
	var who []Member
	if about, named := r.About(); named {
		who = e.membersNamed(s, identity.DeviceID(about))
	}
	return e.held(c, conv, in, r.Code.String(), who)
}

// held notes that a conversation waits for a reason, and what the message is told that is
// the first to wait.
func (e *Engine) held(c *change, conv *conversation, in *intent, reason string, who []Member) error {
	if in != nil && in.Kind == intentContent {
		if err := c.outcome(in, OutcomeQueued, &hintError{HeldText(reason) + " (" + reason + ")", heldHint[reason]}); err != nil {
			return err
		}
	}
	if conv.Held == reason {
		return nil
	}
	next := conv.edit()
	next.Held = reason
	return errors.Join(c.put(next), e.note(c, conv, Event{Kind: EventHeld, Time: e.now(), Reason: reason, Members: who}))
}

// released notes that a conversation waits no more.
func (e *Engine) released(c *change, id ConversationID) error {
	conv := e.conversations[id]
	if changed, ok := c.conversations[id]; ok {
		conv = changed
	}
	if conv == nil || conv.Held == "" {
		return nil
	}
	next := conv.edit()
	next.Held = ""
	return c.put(next)
}

// sealedBefore makes the bytes that were refused the submission under way once more, if
// they are still what would be sealed now.
func (e *Engine) sealedBefore(in *intent, conv *conversation, epoch uint64) (bool, error) {
	s := in.Sealed
	if s == nil || s.Epoch != epoch || !bytes.Equal(s.Group, conv.Group) || s.Sequence != in.Sequence {
		return false, nil
	}
	if b := e.law.bundle; b == nil && in.Bundle != nil || b != nil && !bytes.Equal(b.Hash[:], in.Bundle) {
		return false, nil
	}
	again := *s
	err := e.update(func(c *change) error {
		copied := again
		if err := copied.renumber(c.meta.Counter + 1); err != nil {
			return err
		}
		return c.fillSlot(&copied)
	})
	if err != nil {
		return true, stopped(err)
	}
	return true, stoppedAt(e.at("sealed"))
}

// membersNamed finds a device among the members of a submission's group, and among those
// whom it adds.
func (e *Engine) membersNamed(s *slot, device identity.DeviceID) []Member {
	for _, ev := range s.Events {
		for _, m := range ev.Members {
			if m.Device == device {
				return []Member{m}
			}
		}
	}
	g, err := e.group(s.Group)
	if err != nil {
		return nil
	}
	list, _ := e.members(g)
	for _, m := range list {
		if m.Device == device {
			return []Member{{Address: m.Address.String(), Device: m.Device}}
		}
	}
	return nil
}

// HeldText says in words why what is written into a conversation waits, for the reasons
// in events of the kind EventHeld.
func HeldText(reason string) string {
	text := map[string]string{
		"mailbox_full":    "the mailbox of somebody in it is full at the gateway",
		"standings_stale": "the gateway has heard nothing from the authority for too long",
		"removal_due":     "somebody has to be removed from it first, and nobody shows an officer's word for that",
		"rate_limited":    "the gateway takes no more from this device at present",
		"unavailable":     "something is wrong with it at the gateway, which does not take it at present",

		reasonStaleBulletin: "the gateway shows no newer list of standings",
		reasonNoBulletin:    "the gateway shows no list of standings",
		reasonUnheard:       "the gateway was restored from a backup, and not everybody has been heard since: somebody who was removed may be in it again",
	}[reason]
	if text == "" {
		text = "the gateway does not take it at present"
	}
	return text
}

// heldHint says what to do about it.
var heldHint = map[string]string{
	"mailbox_full":    "it goes out by itself once they have fetched their mail; valise remove takes out of the conversation who does not read any more",
	"standings_stale": "it goes out by itself once the gateway hears from the authority again; a lower classification may pass now: tell your operator",
	"removal_due":     "it goes out by itself once the removal is done; if it stays, ask a security officer",
	"rate_limited":    "it goes out by itself, in a while",
	"unavailable":     "it goes out by itself once the gateway takes it: tell your operator; valise withdraw takes it back",

	reasonStaleBulletin: staleHint,
	reasonNoBulletin:    staleHint,
	reasonUnheard:       "it goes out by itself once everybody was heard; if those in it are the right people (valise conversations), valise confirm lets it go on now",
}

// codeIn is the gateway's code in an error, Unavailable if there is none.
func codeIn(err error) wire.Code {
	code := wire.Unavailable
	errors.As(err, &code)
	return code
}

// reopened is the intent of a message whose submission ended, with the sequence number
// that it had; nil for submissions of another kind.
func (e *Engine) reopened(c *change, s *slot) (*intent, error) {
	if s.Kind != intentContent {
		return nil, nil
	}
	in, err := getJSON[intent](c.Tx, tableIntent, nil, vault.Numbered(s.Intent))
	if err != nil || in == nil {
		return nil, err
	}
	in.Sequence = s.Sequence
	return in, nil
}

// noteFailed tells that a message was given up. Whoever waits for it is told too; this is
// for those who do not any more.
func (e *Engine) noteFailed(c *change, in *intent, conv *conversation, why error) error {
	if in.Resend || in.Service || conv == nil {
		return nil
	}
	content, err := wire.ParseContent(in.Content)
	if err != nil {
		return err
	}
	r := &eventRecord{Event: Event{Conversation: conv.ID, Name: conv.Name, From: e.cfg.Address.String(), Device: e.self, Outgoing: true, Label: e.labelOf(in.Mark)}}
	if err := r.fill(content); err != nil {
		return err
	}
	r.Kind, r.Reference, r.Time, r.Reason, r.Hint = EventFailed, nil, e.now(), why.Error(), hintOf(why)
	return c.log(r)
}
