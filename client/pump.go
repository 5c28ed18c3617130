// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"valise/client/vault"
	"valise/mls"
	"valise/wire"
)

// pump makes submissions of intents, one after another, while a link lasts.
func (e *Engine) pump(ctx context.Context, l *link) error {
	for {
		news := e.bell.wait()
		did, err := e.step(ctx, l)
		if err != nil {
			return err
		}
		if did {
			continue
		}
		timer := time.NewTimer(e.untilRetry())
		select {
		case <-news:
		case <-timer.C:
		case <-l.dead:
			err = l.cause()
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		timer.Stop()
		if err != nil {
			return err
		}
	}
}

func (e *Engine) untilRetry() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if wait := e.hold.Sub(e.now()); wait > 0 {
		return wait
	}
	wait := time.Minute
	if len(e.want) > 0 {
		wait = time.Second
	}
	if due := e.law.due; !due.IsZero() {
		wait = min(wait, max(due.Sub(e.now()), time.Millisecond))
	}
	if turn, ok := e.untilHealing(); ok {
		wait = min(wait, turn)
	}
	if len(e.leases) > 0 {
		wait = min(wait, lookPause)
	}
	if pause, ok := e.untilPauseEnds(); ok {
		wait = min(wait, pause)
	}
	if founding, ok := e.untilFounding(); ok {
		wait = min(wait, founding)
	}
	if heard, ok := e.untilHeard(); ok {
		wait = min(wait, heard)
	}
	return wait
}

// step does one thing: offers the submission under way, or makes the next one. It
// says whether there was anything to do.
func (e *Engine) step(ctx context.Context, l *link) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.now().Before(e.hold) {
		return false, nil
	}
	if e.slot != nil {
		return true, e.submit(ctx, l, e.slot)
	}
	if !e.drained {
		return false, nil // what waits at the gateway may change what is to be done
	}
	return e.fill(ctx, l)
}

// call asks the gateway with e.mu released.
func (e *Engine) call(ctx context.Context, l *link, r wire.Request) (wire.Answer, error) {
	e.mu.Unlock()
	defer e.mu.Lock()
	return l.call(ctx, r)
}

// fill makes the next submission: resyncs first, for they unblock conversations;
// then what people wait for; then new KeyPackages.
func (e *Engine) fill(ctx context.Context, l *link) (bool, error) {
	if due := e.law.due; !due.IsZero() && !e.now().Before(due) {
		return true, e.refreshLaw(ctx, l)
	}
	if e.law.settled() {
		return true, e.collect()
	}
	for _, conv := range e.conversations {
		if e.paused(conv) {
			continue
		}
		if conv.State == stateResync {
			return true, e.resync(ctx, l, conv)
		}
		if conv.State == stateBroken {
			if did, err := e.goOn(ctx, l, conv); did || err != nil {
				return did, err
			}
		}
	}
	if did, err := e.serveLeases(ctx, l); did || err != nil {
		return did, err
	}
	if did, err := e.keepFresh(ctx, l); did || err != nil {
		return did, err
	}
	blocked := map[ConversationID]bool{}
	for _, h := range e.backlog.heads() {
		if ready, err := e.tryHead(ctx, l, h); err != nil || ready {
			return ready, err
		}
		blocked[h.conv] = true
	}
	if did, err := e.publish(); did || err != nil {
		return did, err
	}
	if e.cfg.RecordRoot != nil && e.now().Sub(e.standings.asked).Abs() > standingsEvery {
		return true, e.lookUp(ctx, l)
	}
	return e.heal(blocked)
}

// tryHead makes a submission of a conversation's oldest intent. It returns false if that
// has to wait. Where a full mailbox is what it waits for, taking its owner out may not
// have to wait behind it.
func (e *Engine) tryHead(ctx context.Context, l *link, h head) (bool, error) {
	if conv := e.conversations[h.conv]; conv != nil && e.paused(conv) {
		if h.number = e.mayOvertake(conv.ID); h.number == 0 {
			return false, nil
		}
	} else if r, ok := e.pauses[h.conv]; ok && r.overtook != 0 {
		r.overtook = 0
		e.pauses[h.conv] = r
	}
	in, err := e.intent(h.number)
	if err != nil {
		return false, stopped(err)
	}
	if in == nil {
		e.backlog.remove(h.number)
		return true, nil
	}
	return e.make(ctx, l, in)
}

// make turns an intent into the submission under way, or ends it with an error. It
// returns false if the intent has to wait.
func (e *Engine) make(ctx context.Context, l *link, in *intent) (bool, error) {
	conv := e.conversations[in.Conversation]
	if conv == nil {
		return true, e.abandon(in, conv, errNoConversation)
	}
	switch {
	case conv.State == stateLeft:
		return true, e.abandon(in, conv, ErrNotMember)
	case conv.State == stateFailed:
		return true, e.abandon(in, conv, &hintError{"the conversation could not be started: " + conv.Why, conv.Hint})
	case conv.State == stateBroken:
		return false, nil
	case in.Kind == intentFound:
		return e.found(ctx, l, in, conv)
	case conv.State != stateActive:
		return false, nil
	}
	g, err := e.group(conv.Group)
	if err != nil {
		return true, stopped(err)
	}
	if w, ok := e.want[string(conv.Group)]; ok && g.Epoch() < w.epoch {
		if e.now().Sub(w.since) < catchUpTimeout {
			return false, nil
		}
		return true, e.lose(conv, "a commit did not arrive")
	}
	delete(e.want, string(conv.Group))
	switch in.Kind {
	case intentContent:
		if in.Resend {
			if ended, err := e.endUnentitled(in, g); ended || err != nil {
				return true, err
			}
		}
		if old := e.tooOldToReturn(conv, g); old != nil {
			return e.waitFresh(ctx, l, in, conv, old)
		}
		if did, err := e.clearFirst(ctx, l, in, conv, g); did || err != nil {
			return true, err
		}
		if who := e.unheard(conv, g); len(who) > 0 && !in.Service && !in.Resend {
			return e.waitHeard(ctx, l, in, conv, who)
		}
		if e.law.missing {
			return false, nil // what the officers changed is not known yet
		}
		if old := e.tooOld(e.markNow(in)); old != nil {
			return e.waitFresh(ctx, l, in, conv, old)
		}
		return true, e.seal(in, conv, g)
	case intentAdd:
		return e.add(ctx, l, in, conv)
	case intentRemove:
		return true, e.remove(in, conv, g)
	}
	return true, e.abandon(in, conv, fmt.Errorf("unknown intent %q", in.Kind))
}

// abandon ends an intent that cannot be fulfilled. One that the card did not sign stays
// queued: it is tried again, after the next unlocking if the card was pulled.
func (e *Engine) abandon(in *intent, conv *conversation, why error) error {
	if cardFailed(why) {
		e.cfg.Log.Warn("the card did not sign", "error", why)
		e.hold = e.now().Add(retryRefused)
		return nil
	}
	return stopped(e.update(func(c *change) error { return e.giveUp(c, in, conv, why) }))
}

func (e *Engine) giveUp(c *change, in *intent, conv *conversation, why error) error {
	if conv != nil && conv.State == stateBroken && conv.Founding == in.Number {
		e.cfg.Log.Warn("a successor was not founded", "conversation", conv.ID.String(), "error", why)
		return e.foundAgain(c, conv)
	}
	if err := c.end(in.Number, why); err != nil {
		return err
	}
	switch in.Kind {
	case intentContent:
		return errors.Join(c.outcome(in, OutcomeRefused, why), e.noteFailed(c, in, conv, why))
	case intentFound, intentAdd:
		if conv == nil || in.Kind == intentAdd && !e.begins(conv) {
			return nil
		}
		failed := conv.edit()
		failed.State, failed.Why, failed.Hint = stateFailed, why.Error(), hintOf(why)
		return c.put(failed)
	}
	return nil
}

// begins says whether nobody was added to a conversation yet: what is written into it
// would be for nobody.
func (e *Engine) begins(conv *conversation) bool {
	if conv.State != stateActive {
		return false
	}
	g, err := e.group(conv.Group)
	return err == nil && g.Epoch() == 0 && len(g.Members()) == 1
}

// seal encrypts a content for the present epoch. Ciphertext, ratchet state, counter
// and sequence number are on disk before the first byte leaves.
func (e *Engine) seal(in *intent, conv *conversation, g *mls.Group) error {
	m := e.markNow(in)
	if err := e.decide(m, g.Members()); err != nil {
		return e.unfit(in, conv, err)
	}
	if again, err := e.sealedBefore(in, conv, g.Epoch()); again || err != nil {
		return err
	}
	if in.Sequence == 0 {
		in.Sequence = conv.Sequence + 1
	}
	h, err := e.header(m, in.Sequence)
	if err != nil {
		return e.unfit(in, conv, err)
	}
	header, err := h.Marshal()
	if err != nil {
		return stopped(err)
	}
	roster, err := e.members(g)
	if err != nil {
		return stopped(err)
	}
	sealed, err := g.Encrypt(in.Content, header)
	if err != nil {
		e.forget(conv.Group)
		return e.abandon(in, conv, fmt.Errorf("encrypt: %w", err))
	}
	frame := &wire.Send{Group: conv.Group, Epoch: g.Epoch(), Message: sealed.Message}
	err = e.update(func(c *change) error {
		s := &slot{Kind: intentContent, Intent: in.Number, Conversation: conv.ID, Group: conv.Group, Epoch: g.Epoch(), Sequence: in.Sequence}
		if err := s.encode(frame, c.meta.Counter+1); err != nil {
			return err
		}
		numbered := conv.edit()
		numbered.Sequence = max(numbered.Sequence, in.Sequence)
		return errors.Join(putDelta(c.Tx, conv.Group, sealed.Delta), c.fillSlot(s), c.put(numbered),
			putJSON(c.Tx, tableRoster, conv.Group, vault.Numbered(g.Epoch()), roster))
	})
	if err != nil {
		e.forget(conv.Group) // its ratchet is ahead of the disk
		return stopped(err)
	}
	return stoppedAt(e.at("sealed"))
}

// encode keeps the frame's bytes under the counter that it will have.
func (s *slot) encode(f wire.Submission, counter uint64) (err error) {
	f.SetSubmissionCounter(counter)
	s.Frame, err = wire.Marshal(f)
	return err
}

func (s *slot) frame() (wire.Submission, error) {
	if len(s.Frame) < 4 {
		return nil, errors.New("the submission under way is cut short")
	}
	f, err := wire.Parse(wire.Type(s.Frame[0]), s.Frame[4:])
	if err != nil {
		return nil, err
	}
	sub, ok := f.(wire.Submission)
	if !ok {
		return nil, errors.New("the submission under way is of another kind")
	}
	return sub, nil
}

func (s *slot) renumber(counter uint64) error {
	f, err := s.frame()
	if err != nil {
		return err
	}
	s.Counter = counter
	return s.encode(f, counter)
}

// submit offers the submission under way and deals with the answer. e.mu is held,
// but not while the gateway is waited for.
func (e *Engine) submit(ctx context.Context, l *link, s *slot) error {
	f, err := s.frame()
	if err != nil {
		return stopped(err)
	}
	if err := e.at("submit"); err != nil {
		return stopped(err)
	}
	answer, err := e.call(ctx, l, f)
	if err != nil {
		return err
	}
	if err := e.at("answered"); err != nil {
		return stopped(err)
	}
	r, ok := answer.(*wire.Result)
	if !ok {
		return l.fail(wire.ErrMalformed)
	}
	switch r.Code {
	case wire.OK:
		e.unsure.taken()
		err = e.settle(s)
	case wire.StaleEpoch:
		err = e.stale(s, r.Detail)
	case wire.Unavailable:
		return e.unavailable(s)
	case wire.RateLimited:
		e.hold = e.now().Add(ratePause)
		err = e.postpone(s, r)
	case wire.MailboxFull, wire.StandingsStale:
		err = e.postpone(s, r)
	case wire.RemovalDue:
		return e.removalDue(ctx, l, s, r)
	case wire.BundleChanged, wire.NoBundle:
		e.expectLaw()
		err = e.relabel(s, r)
	case wire.StateConflict, wire.OldIncarnation:
		return e.behind(l.welcome)
	case wire.CounterGap:
		return l.fail(errors.New("the gateway misses a submission")) // Welcome tells which
	default:
		err = e.refused(s, r)
	}
	return stopped(err)
}

// stale takes a submission back whose epoch has passed: the winner's commit is among
// the deliveries, and the intent is made anew after it.
func (e *Engine) stale(s *slot, detail []byte) error {
	if back, err := e.rolledBack(s, detail); back || err != nil {
		return err
	}
	if _, present := e.byGroup[string(s.Group)]; len(detail) == 8 && present && s.Kind != slotResync {
		e.want[string(s.Group)] = wanted{binary.BigEndian.Uint64(detail), e.now()}
	}
	return e.putBack(s)
}

// putBack ends a submission whose intent is made anew.
func (e *Engine) putBack(s *slot) error {
	return e.update(func(c *change) error { return errors.Join(e.reopen(c, s), c.emptySlot(true)) })
}

// reopen gives the intent of a message back its sequence number, so that it is sealed
// again under the same one.
func (e *Engine) reopen(c *change, s *slot) error {
	in, err := e.reopened(c, s)
	if err != nil || in == nil {
		return err
	}
	in.Sealed, in.Bundle = nil, nil
	return c.keepIntent(in)
}

// postpone waits with what was refused for a passing reason, and with its conversation;
// others go on.
func (e *Engine) postpone(s *slot, r *wire.Result) error {
	switch {
	case s.heals():
		return e.healRefused(s, r.Code)
	case s.Duty:
		return e.dutyRefused(s, r)
	case e.conversations[s.Conversation] == nil: // KeyPackages
		return e.unpublished(s, r.Code)
	}
	return e.setAside(s, r)
}

// relabel waits with a message for the bundle under which it is to be labelled.
func (e *Engine) relabel(s *slot, r *wire.Result) error {
	switch {
	case s.heals():
		return e.healRefused(s, r.Code)
	case s.Duty:
		return e.dutyRefused(s, r)
	case e.conversations[s.Conversation] != nil:
		e.pauseFor(s.Conversation, r.Code, lawPause)
	}
	return e.putBack(s)
}

// refused ends a submission that the gateway will never take.
func (e *Engine) refused(s *slot, r *wire.Result) error {
	conv, code := e.conversations[s.Conversation], r.Code
	switch {
	case code == wire.UnknownGroup && len(s.Group) > 0:
		return e.groupGone(s)
	case conv != nil && len(s.Group) > 0 && !bytes.Equal(conv.Group, s.Group):
		return e.putBack(s)
	case s.heals() && code != wire.NotMember:
		return e.healRefused(s, code)
	case s.Duty && code != wire.NotMember:
		return e.dutyRefused(s, r)
	case code == wire.NotMember && s.Kind != slotResync && conv != nil && conv.State != stateLeft:
		return e.putOut(s, conv)
	case s.Kind == slotResync && code == wire.InvalidCommit && conv != nil:
		return e.update(func(c *change) error { return errors.Join(c.emptySlot(true), e.resyncFailed(c, conv, refusal(code))) })
	}
	if code == wire.NotCleared || code == wire.LabelRefused || code == wire.LabelRequired {
		e.law.due = e.now() // it knows more than this device does
	}
	e.cfg.Log.Warn("refused by the gateway", "what", s.Kind, "code", code.String())
	if s.Kind == slotResync && code != wire.NotMember && conv != nil {
		e.pause(conv.ID, code)
	}
	why := e.refusalAbout(s, r)
	return e.update(func(c *change) error {
		if err := c.emptySlot(true); err != nil {
			return err
		}
		conv := e.conversations[s.Conversation]
		if conv == nil {
			return c.end(s.Intent, why)
		}
		next := conv.edit()
		in, err := getJSON[intent](c.Tx, tableIntent, nil, vault.Numbered(s.Intent))
		if err != nil {
			return err
		}
		switch {
		case code == wire.NotMember:
			next.State = stateLeft
		case s.Kind == slotResync:
			return nil
		case in != nil && in.Kind == intentContent && !in.Resend && s.Sequence == conv.Sequence:
			next.Sequence-- // sequence numbers have no gaps
		}
		if err := c.put(next); err != nil || in == nil {
			return err
		}
		return e.giveUp(c, in, next, why)
	})
}

// putOut takes a submission back whose sender was removed. The commit that removed this
// device is among the deliveries, and before it everything that was still written to it:
// the conversation is left when that has been read, and not before.
func (e *Engine) putOut(s *slot, conv *conversation) error {
	g, err := e.group(conv.Group)
	if err != nil {
		return err
	}
	e.want[string(conv.Group)] = wanted{g.Epoch() + 1, e.now()}
	return e.putBack(s)
}

// settle writes what follows from an accepted submission.
func (e *Engine) settle(s *slot) error {
	if !s.heals() {
		e.goesOn(s.Conversation)
	}
	switch s.Kind {
	case intentContent:
		return e.settleContent(s)
	case slotCreate:
		return e.settleCreate(s)
	case slotCommit, slotResync:
		return e.settleCommit(s)
	}
	return e.update(func(c *change) error { return c.emptySlot(false) })
}

func (e *Engine) settleContent(s *slot) error {
	return e.update(func(c *change) error {
		delete(e.behindUs, string(s.Group))
		in, err := getJSON[intent](c.Tx, tableIntent, nil, vault.Numbered(s.Intent))
		if err != nil {
			return err
		}
		if in == nil {
			return c.emptySlot(false)
		}
		if err := c.keepSubmitted(in, s); err != nil {
			return err
		}
		if !in.Resend {
			sent := sentRecord{Content: in.Content, Mark: in.Mark, Group: s.Group, Epoch: s.Epoch, Time: e.now().Unix()}
			if err := putJSON(c.Tx, tableSent, s.Conversation[:], vault.Numbered(s.Sequence), sent); err != nil {
				return err
			}
			if s.Sequence > historyDepth {
				if err := c.DeleteThrough(tableSent, s.Conversation[:], s.Sequence-historyDepth); err != nil {
					return err
				}
			}
			if err := e.logSent(c, in, s); err != nil {
				return err
			}
		}
		return errors.Join(c.outcome(in, OutcomeSent, nil), c.end(in.Number, nil), c.emptySlot(false), e.counted(c, s.Group, s.Epoch), e.released(c, s.Conversation))
	})
}

func stoppedAt(err error) error { return stopped(err) }
