// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// Reason codes of reports to the gateway, for its audit stream.
const (
	reasonAltered   = "message_altered"
	reasonReplayed  = "message_replayed"
	reasonSender    = "sender_mismatch"
	reasonHeader    = "header_malformed"
	reasonContent   = "content_malformed"
	reasonCritical  = "unknown_critical_extension"
	reasonCommit    = "commit_invalid"
	reasonExternal  = "external_commit_not_resync"
	reasonWelcome   = "welcome_invalid"
	reasonTaken     = "conversation_taken"
	reasonGroup     = "group_mismatch"
	reasonDuplicate = "group_exists"
)

// receive takes deliveries while a link lasts. Each is on disk before its Ack.
func (e *Engine) receive(ctx context.Context, l *link) error {
	stop := context.AfterFunc(ctx, func() { l.fail(context.Cause(ctx)) })
	defer stop()
	var last wire.Last
	for {
		f, err := last.Read(l.delivery)
		if err != nil {
			return l.fail(err)
		}
		switch f := f.(type) {
		case *wire.Notice:
			e.notice(f)
		case *wire.Lease:
			e.leased(f)
		case *wire.Deliver:
			l.use()
			if err := e.at("deliver"); err != nil {
				return stopped(err)
			}
			if err := e.deliver(ctx, l, f); err != nil {
				return err
			}
			if err := e.at("stored"); err != nil {
				return stopped(err)
			}
			if f.Kind == wire.DeliverAhead {
				continue // it is acknowledged in its place
			}
			if err := wire.Write(l.delivery, &wire.Ack{Number: e.cursor()}); err != nil {
				return l.fail(err)
			}
		default:
			return l.fail(wire.ErrMalformed)
		}
	}
}

func (e *Engine) notice(n *wire.Notice) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch n.Code {
	case wire.NoticeKeyPackagesLow:
		e.stock = 0
	case wire.NoticeDrained:
		e.drained = true
	case wire.NoticeBundle:
		e.expectLaw()
	case wire.NoticeFiles:
		e.filesNews = true
	}
	e.bell.ring()
}

// deliver deals with one delivery: afterwards it is on disk, with everything that
// follows from it.
func (e *Engine) deliver(ctx context.Context, l *link, d *wire.Deliver) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d.Number <= e.meta.Cursor {
		return nil // delivered again after a reconnect
	}
	switch {
	case d.Kind == wire.DeliverAhead:
		return e.ahead(ctx, l, d)
	case e.taken(d):
		return e.done(d, nil)
	}
	if err := e.await(ctx, l, d); err != nil {
		return err
	}
	switch d.Kind {
	case wire.DeliverExpired:
		return e.expired(l, d, EventExpired)
	case wire.DeliverWithheld:
		return e.expired(l, d, EventWithheld)
	case wire.DeliverUndelivered:
		return e.undelivered(l, d, EventUnfetched)
	case wire.DeliverForbidden:
		return e.undelivered(l, d, EventForbidden)
	case wire.DeliverRestored:
		return e.restored(l, d)
	case wire.DeliverWelcome:
		return e.welcomed(ctx, l, d)
	case wire.DeliverCommit:
		return e.committed(ctx, l, d)
	}
	return e.contentArrived(ctx, l, d)
}

// await lets a delivery of the next epoch wait while this device's own commit may be
// what led there: the two streams have no common order.
func (e *Engine) await(ctx context.Context, l *link, d *wire.Deliver) error {
	for {
		s := e.slot
		ours := s != nil && (s.Kind == slotCommit || s.Kind == slotResync) && bytes.Equal(s.Group, d.Group)
		if !ours || d.Kind >= wire.DeliverWelcome || d.Epoch <= s.Epoch {
			return nil
		}
		if err := e.awaitNews(ctx, l); err != nil {
			return err
		}
	}
}

// awaitNews releases e.mu until something has changed.
func (e *Engine) awaitNews(ctx context.Context, l *link) error {
	news := e.bell.wait()
	e.mu.Unlock()
	defer e.mu.Lock()
	select {
	case <-news:
		return nil
	case <-l.dead:
		return l.cause()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// done persists that a delivery was dealt with, and f with it.
func (e *Engine) done(d *wire.Deliver, f func(c *change) error) error {
	err := e.update(func(c *change) error {
		c.meta.Cursor = d.Number
		if f == nil {
			return nil
		}
		return f(c)
	})
	if err != nil {
		e.forget(d.Group)
	}
	return stopped(err)
}

// report tells the gateway that a delivery was not accepted, for its audit stream.
func (e *Engine) report(ctx context.Context, l *link, d *wire.Deliver, reason string, why error) error {
	e.cfg.Log.Warn("delivery refused", "reason", reason, "delivery", d.Number, "error", why)
	_, err := e.call(ctx, l, &wire.Report{Delivery: d.Number, Group: d.Group, Sender: d.Sender, Reason: reason})
	return err
}

// conversationOf finds the conversation of a delivery's group, or makes a nameless
// one for a group that this device does not know but seems to be a member of. It is nil
// for a group that was refused.
func (e *Engine) conversationOf(c *change, group []byte) (*conversation, error) {
	if id, ok := e.byGroup[string(group)]; ok {
		return e.conversations[id], nil
	}
	if conv := e.formerOf(group); conv != nil {
		return conv, nil
	}
	if refused, err := c.Has(tableRefused, nil, group); err != nil || refused {
		return nil, err
	}
	conv := &conversation{ID: NewConversationID(), Group: group, State: stateResync, Unnamed: true, Started: e.now().Unix()}
	return conv, c.put(conv)
}

func (e *Engine) contentArrived(ctx context.Context, l *link, d *wire.Deliver) error {
	id, known := e.byGroup[string(d.Group)]
	if known && e.conversations[id].State == stateCandidate {
		if spoken, err := e.overheard(d, e.conversations[id]); !spoken || err != nil {
			return err
		}
		id = e.byGroup[string(d.Group)]
	}
	if !known || e.conversations[id].State != stateActive {
		return e.done(d, func(c *change) error { return e.missed(c, d) })
	}
	if released, err := e.enlighten(ctx, l, d); err != nil {
		return err
	} else if released {
		return e.contentArrived(ctx, l, d) // much may have changed meanwhile
	}
	conv := e.conversations[id]
	g, err := e.group(conv.Group)
	if err != nil {
		return stopped(err)
	}
	if d.Epoch > g.Epoch() {
		return e.done(d, func(c *change) error { return errors.Join(e.missed(c, d), c.lose(conv)) })
	}
	r, err := g.Receive(d.Payload, e.now())
	switch {
	case err == nil && r.Kind == mls.ContentApplication:
		return e.opened(ctx, l, d, conv, g, r)
	case errors.Is(err, mls.ErrPastEpoch):
		return e.done(d, func(c *change) error { return e.missed(c, d) })
	case err == nil:
		err = fmt.Errorf("a message of content type %d", r.Kind)
		e.forget(conv.Group)
	}
	reason := reasonAltered
	if errors.Is(err, mls.ErrUsedKey) {
		reason = reasonReplayed
	}
	if err := e.report(ctx, l, d, reason, err); err != nil {
		return err
	}
	return e.done(d, func(c *change) error {
		conv := e.conversations[id]
		if err := e.missed(c, d); err != nil || reason != reasonAltered || conv == nil || !bytes.Equal(conv.Group, d.Group) || conv.State != stateActive {
			return err
		}
		if err := e.remark(c, conv, d); err != nil {
			return err
		}
		return e.unopened(c, conv, g, d)
	})
}

// opened deals with a message that MLS has opened: its sender's signature holds.
func (e *Engine) opened(ctx context.Context, l *link, d *wire.Deliver, conv *conversation, g *mls.Group, r *mls.Received) error {
	from, err := e.member(r.Sender)
	if err != nil {
		return stopped(err) // every leaf was approved when it came in
	}
	e.agrees(conv.Group, from.Device)
	m := &arrival{from: from, delivery: d, members: len(g.Members())}
	reason, err := m.check(r, d)
	mislabelled := false
	if err == nil {
		reason, err = e.judge(m, r.Sender.Credential)
		mislabelled = err != nil
	}
	if err != nil {
		if err := e.report(ctx, l, d, reason, err); err != nil {
			return err
		}
	}
	relabelled := false
	if m.header != nil {
		if relabelled, err = e.altered(conv, m); err != nil {
			return err
		}
	}
	if relabelled {
		if err := e.report(ctx, l, d, reasonLabelAltered, errors.New("it was delivered before with another label than its sender signed")); err != nil {
			return err
		}
	}
	if reason != "" || relabelled { // e.mu was released
		if conv = e.conversations[conv.ID]; conv == nil || conv.State != stateActive || !bytes.Equal(conv.Group, d.Group) || e.groups[string(d.Group)] != g {
			return e.done(d, func(c *change) error { return e.missed(c, d) })
		}
	}
	return e.done(d, func(c *change) error {
		if err := errors.Join(putDelta(c.Tx, conv.Group, r.Delta), e.counted(c, conv.Group, g.Epoch())); err != nil {
			return err
		}
		if relabelled {
			ev := Event{Kind: EventRelabelled, Time: e.now(), From: from.Address.String(), Device: from.Device, Sequence: m.header.Sequence, Reason: reasonLabelAltered, Label: m.label}
			if err := errors.Join(e.note(c, conv, ev), e.forgetClaim(c, conv, from.Device, m.header.Sequence)); err != nil {
				return err
			}
		}
		switch {
		case reason == "":
			return e.accept(c, conv, m)
		case e.unjudged(reason):
			return e.putOff(c, conv, from.Device, m.header.Sequence)
		case mislabelled:
			return e.refusedLabel(c, conv, m, reason)
		case reason == reasonSender:
			// The gateway named another sender: the message is asked for again from
			// the one who signed it.
			return e.missing(c, conv, from.Device, m.header.Sequence)
		}
		return e.note(c, conv, Event{Kind: EventRefused, Time: e.now(), From: from.Address.String(), Device: from.Device, Reason: reason})
	})
}

// An arrival is a message whose signature holds.
type arrival struct {
	from     member
	header   *wire.Header
	content  *wire.Content
	delivery *wire.Deliver
	members  int    // devices in the group
	label    *Label // as it is shown; nil: unlabelled
}

// check judges what the sender signed. The reason says why it is refused.
func (m *arrival) check(r *mls.Received, d *wire.Deliver) (reason string, err error) {
	if m.header, err = wire.ParseHeader(r.AuthenticatedData); err != nil {
		return reasonHeader, err
	}
	if d.Sender != [32]byte(m.from.Device) {
		return reasonSender, errors.New("the gateway names another sender than the one who signed")
	}
	if m.content, err = wire.ParseContent(r.Plaintext); err != nil {
		return reasonContent, err
	}
	for _, x := range m.content.Extensions {
		if x.Critical {
			return reasonCritical, fmt.Errorf("critical extension %d is not known here", x.Type)
		}
	}
	return "", nil
}

// accept records a message once, whatever happens to it on the way.
func (e *Engine) accept(c *change, conv *conversation, m *arrival) error {
	if err := e.heard(c, conv, m.from.Address.String()); err != nil {
		return err
	}
	if m.content.MediaType == mediaSuccessor {
		if err := e.noted(c, conv, m.from.Device, m.header.Sequence, m.content.Body); err != nil {
			return err
		}
	}
	if err := e.progress(c, conv, m.from.Device, m.header.Sequence); err != nil {
		return err
	}
	id := m.content.ID
	seen, err := c.Has(tableSeen, m.from.Device[:], id[:])
	if err != nil || seen {
		return err
	}
	if err := c.Put(tableSeen, m.from.Device[:], id[:], nil); err != nil {
		return err
	}
	if m.content.MediaType == wire.MediaResend {
		r, err := wire.ParseResendRequest(m.content.Body)
		if err != nil {
			return e.note(c, conv, Event{Kind: EventRefused, Time: e.now(), From: m.from.Address.String(), Device: m.from.Device, Reason: reasonContent})
		}
		return e.answerResend(c, conv, r)
	}
	if m.content.MediaType == mediaSuccessor {
		return nil
	}
	return e.logReceived(c, conv, m)
}

// committed deals with another member's commit.
func (e *Engine) committed(ctx context.Context, l *link, d *wire.Deliver) error {
	id, known := e.byGroup[string(d.Group)]
	if !known {
		return e.done(d, func(c *change) error { _, err := e.conversationOf(c, d.Group); return err })
	}
	if e.conversations[id].State == stateCandidate {
		if spoken, err := e.overheard(d, e.conversations[id]); !spoken || err != nil {
			return err
		}
		id = e.byGroup[string(d.Group)]
	}
	conv := e.conversations[id]
	if conv.State != stateActive {
		return e.done(d, nil) // the resync will find a later epoch
	}
	g, err := e.group(conv.Group)
	if err != nil {
		return stopped(err)
	}
	switch {
	case d.Epoch < g.Epoch():
		return e.done(d, nil) // from before this device joined or resynced
	case d.Epoch > g.Epoch():
		return e.done(d, func(c *change) error { return c.lose(conv) })
	}
	r, err := g.Receive(d.Payload, e.now())
	reason := reasonCommit
	if err == nil && (r.Kind != mls.ContentCommit || r.Commit == nil) {
		err = errors.New("not a commit")
		e.forget(conv.Group)
	}
	if err == nil {
		reason, err = e.inspect(d, &r.Commit.Change)
	}
	if err != nil {
		// The gateway has stepped the group by this commit, or has forged it. What it
		// takes for the group is checked again at the resync.
		if err := e.report(ctx, l, d, reason, err); err != nil {
			return err
		}
		return e.done(d, func(c *change) error { return e.loseStill(c, id, d.Group) })
	}
	if list := e.strangers(newcomers(&r.Commit.Change)); len(list) > 0 {
		refused, err := e.vouch(ctx, l, list)
		if err != nil {
			return err
		}
		if refused == nil {
			return e.committed(ctx, l, d) // much may have changed meanwhile
		}
		return e.keepOut(ctx, l, d, refused)
	}
	if asked, err := e.explain(ctx, l, d, &r.Commit.Change); err != nil {
		return err
	} else if asked {
		return e.committed(ctx, l, d)
	}
	return e.follow(d, conv, g, r.Commit)
}

// loseStill marks a conversation's group as lost, if the conversation is still in it: e.mu
// was released, and what was known of it before may be out of date.
func (e *Engine) loseStill(c *change, id ConversationID, group []byte) error {
	if conv := e.conversations[id]; conv != nil && conv.State == stateActive && bytes.Equal(conv.Group, group) {
		return c.lose(conv)
	}
	return nil
}

// inspect refuses commits that RFC 9420 allows and Valise does not: an external
// commit only brings a device back into its own place.
func (e *Engine) inspect(d *wire.Deliver, ch *mls.Change) (string, error) {
	who, err := e.member(ch.Committer)
	if err != nil {
		return reasonCommit, err
	}
	if d.Sender != [32]byte(who.Device) {
		return reasonSender, errors.New("the gateway names another sender than the one who signed")
	}
	sameDevice := func(old, fresh mls.Member) bool {
		a, errA := e.member(old)
		b, errB := e.member(fresh)
		return errA == nil && errB == nil && a == b
	}
	if ch.External && !mls.IsResync(*ch, sameDevice) {
		return reasonExternal, errors.New("an external commit that is not a resync")
	}
	if ch.ReInit != nil {
		return reasonCommit, errors.New("the group was closed for a successor, which this version does not follow")
	}
	return "", nil
}

// follow takes a commit's new state.
func (e *Engine) follow(d *wire.Deliver, conv *conversation, g *mls.Group, staged *mls.Staged) error {
	events, err := e.describe(&staged.Change)
	if err != nil {
		return stopped(err)
	}
	err = e.done(d, func(c *change) error {
		if staged.SelfGone {
			left := conv.edit()
			left.State = stateLeft
			return errors.Join(c.DeleteAll(tableGroup, conv.Group), c.putHealing(conv.Group, nil), c.put(left),
				e.note(c, conv, Event{Kind: EventLeft, Time: e.now(), From: events.by.Address.String(), Device: events.by.Device, Reason: "removed", Epoch: staged.Change.Epoch}))
		}
		if err := errors.Join(putDelta(c.Tx, conv.Group, staged.Delta), c.healedBy(conv.Group, &staged.Change)); err != nil {
			return err
		}
		if events.cleared {
			if err := c.put(conv.clearedBy(events.list)); err != nil {
				return err
			}
		}
		for _, m := range events.fresh {
			p, err := c.peer(conv.ID, m)
			if err != nil {
				return err
			}
			p.Fresh = true
			if err := c.putPeer(conv.ID, m, p); err != nil {
				return err
			}
		}
		for _, ev := range events.list {
			ev.Time = e.now()
			if err := e.note(c, conv, ev); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || staged.SelfGone {
		e.forget(conv.Group)
		return err
	}
	if err := g.Apply(staged); err != nil {
		e.forget(conv.Group)
	}
	return nil
}

// described is what a commit means to people.
type described struct {
	by    member
	list  []Event
	fresh []identity.DeviceID // devices whose sequence numbers begin anew

	cleared bool // members out of good standing were removed
}

func (e *Engine) describe(ch *mls.Change) (*described, error) {
	by, err := e.member(ch.Committer)
	if err != nil {
		return nil, err
	}
	out := &described{by: by}
	if ch.External {
		out.fresh = append(out.fresh, by.Device)
		return out, nil
	}
	for _, group := range []struct {
		kind string
		list []mls.Member
	}{{EventAdded, ch.Added}, {EventRemoved, ch.Removed}} {
		if len(group.list) == 0 {
			continue
		}
		ev := Event{Kind: group.kind, From: by.Address.String(), Device: by.Device, Epoch: ch.Epoch}
		for _, m := range group.list {
			who, err := e.member(m)
			if err != nil {
				return nil, err
			}
			out.fresh = append(out.fresh, who.Device)
			if reason := e.against(who); group.kind == EventRemoved && reason != "" {
				out.cleared = true
				one := ev // each with what speaks against it
				one.Reason, one.Members = reason, []Member{{Address: who.Address.String(), Device: who.Device}}
				out.list = append(out.list, one)
				continue
			}
			ev.Members = append(ev.Members, Member{Address: who.Address.String(), Device: who.Device})
		}
		if len(ev.Members) > 0 {
			out.list = append(out.list, ev)
		}
	}
	return out, nil
}
