// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"valise/client/vault"
	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// A conversation is a chain of groups. When its group cannot go on, a member founds a
// successor with fresh KeyPackages of everybody, and says in the group's extension
// which group it succeeds (spec/message.md, Section 7).
//
// The successor is not tied to its predecessor by MLS's ReInit or branching (RFC 9420,
// Sections 11.2 and 11.3): a ReInit is a commit in the very group that takes none any
// more, and both give the new group a secret of the old one's epoch, which is what the
// members of a forked group do not share, and what a resynced device does not have.
// What ties the two is the certificate of each member, and the judgement in succeed.go.
//
// Nothing is lost: what is queued belongs to the conversation and goes to its new
// group, with the ids and sequence numbers that it has; what had been sent and did not
// arrive shows as a gap, because everybody says in the successor how far it has come,
// and is asked for again.

// Why a group was left.
const (
	brokenUnknown  = "unknown_group"     // the gateway has lost it
	brokenResync   = "resync_impossible" // what the gateway has of it is not valid
	brokenRollback = "rolled_back"       // the gateway went back behind an epoch that was reached
	brokenRestored = "gateway_restored"  // the gateway has forgotten what came after its backup
	brokenForked   = "forked"            // members are at odds, and a resync did not help
)

// predecessor is the group that a conversation's next group succeeds.
func (conv *conversation) predecessor() string {
	if conv.State != stateBroken {
		return ""
	}
	return string(conv.Predecessor)
}

// brick leaves a group that cannot go on. This device founds the successor after a
// while, unless somebody else does before: everybody has another while.
func (e *Engine) brick(c *change, conv *conversation, reason string) error {
	view, err := e.keepView(c, conv)
	if err != nil {
		return err
	}
	if conv.Unnamed {
		return c.drop(conv)
	}
	next := conv.edit()
	if len(view) == 0 {
		next.State, next.Lost = stateLeft, false
		return errors.Join(c.put(next), e.note(c, conv, Event{Kind: EventLeft, Time: e.now(), Reason: reason}))
	}
	e.cfg.Log.Warn("a group cannot go on", "conversation", conv.ID.String(), "reason", reason)
	e.forget(conv.Group)
	if waiting := e.candidate(conv); waiting != nil {
		return e.adoptCandidate(c, conv, waiting)
	}
	next.State, next.Predecessor, next.Broken, next.Founding = stateBroken, conv.Group, reason, 0
	people := addresses(view)
	if !conv.Lost || len(people) <= 2 {
		// A state that was an older copy may not know who was removed since: in a
		// larger group it waits for somebody who does.
		in := &intent{Kind: intentFound, Conversation: conv.ID, Addresses: people}
		if err := c.queue(in); err != nil {
			return err
		}
		next.Founding = in.Number
	}
	e.foundAt[conv.ID] = e.now().Add(min(time.Duration(e.rank(view))*foundTurn, foundLatest))
	return errors.Join(c.DeleteAll(tableGroup, conv.Group), c.putHealing(conv.Group, nil), c.put(next))
}

// rank is this device's place among a group's devices.
func (e *Engine) rank(view []member) int {
	n := 0
	for _, m := range view {
		if bytes.Compare(m.Device[:], e.self[:]) < 0 {
			n++
		}
	}
	return n
}

func addresses(view []member) []string {
	var out []string
	for _, m := range view {
		out = append(out, m.Address.String())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// view is who was in a group by this device's last knowledge, and in which epoch.
func (e *Engine) view(tx *vault.Tx, group []byte) ([]member, uint64, error) {
	if g, err := e.stored(tx, group); err == nil {
		list, err := e.members(g)
		return list, g.Epoch(), err
	}
	epoch, err := tx.Last(tableRoster, group)
	if err != nil {
		return nil, 0, err
	}
	list, err := getJSON[[]member](tx, tableRoster, group, vault.Numbered(epoch))
	if err != nil || list == nil {
		return nil, 0, err
	}
	return *list, epoch, nil
}

// stored is a group's state as a transaction sees it.
func (e *Engine) stored(tx *vault.Tx, group []byte) (*mls.Group, error) {
	cells, err := tx.List(tableGroup, group)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errVault, err)
	}
	if len(cells) == 0 {
		return nil, errNoGroup
	}
	var records mls.Delta
	for _, c := range cells {
		records = append(records, mls.Record{Key: string(c.Row), Value: c.Value})
	}
	return mls.Load(e.groupConfig(), e.identity(), records)
}

// keepView writes down who was in a group before its state is forgotten.
func (e *Engine) keepView(c *change, conv *conversation) ([]member, error) {
	list, epoch, err := e.view(c.Tx, conv.Group)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list, putJSON(c.Tx, tableRoster, conv.Group, vault.Numbered(epoch), list)
}

// groupGone deals with a submission to a group that the gateway does not know: what
// was to be sent stays queued for the successor.
func (e *Engine) groupGone(s *slot) error {
	return e.update(func(c *change) error {
		if err := errors.Join(e.reopen(c, s), c.emptySlot(true)); err != nil {
			return err
		}
		conv := e.conversations[s.Conversation]
		switch {
		case conv == nil:
			return c.end(s.Intent, refusal(wire.UnknownGroup))
		case !bytes.Equal(conv.Group, s.Group):
			return nil
		case conv.State == stateBroken:
			return e.foundAgain(c, conv)
		}
		return e.brick(c, conv, brokenUnknown)
	})
}

// uploadGone leaves a group that turned out to be gone while a file was uploaded; the
// file waits for the successor.
func (e *Engine) uploadGone(was *conversation) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	conv := e.conversations[was.ID]
	if conv == nil || conv.State != stateActive || !bytes.Equal(conv.Group, was.Group) {
		return nil
	}
	return stopped(e.update(func(c *change) error { return e.brick(c, conv, brokenUnknown) }))
}

// rolledBack says whether a refusal as stale means that the gateway is behind this
// device, and leaves the group once that has gone on for longer than the gateway needs
// to take over a commit.
func (e *Engine) rolledBack(s *slot, detail []byte) (bool, error) {
	conv := e.conversations[s.Conversation]
	if len(detail) != 8 || s.Kind == slotResync || conv == nil || !bytes.Equal(conv.Group, s.Group) || binary.BigEndian.Uint64(detail) >= s.Epoch {
		return false, nil
	}
	since, ok := e.behindUs[string(s.Group)]
	if !ok {
		since = e.now()
		e.behindUs[string(s.Group)] = since
	}
	e.hold = e.now().Add(rollbackPause)
	return true, e.update(func(c *change) error {
		if err := errors.Join(e.reopen(c, s), c.emptySlot(true)); err != nil || e.now().Sub(since) < rollbackAfter {
			return err
		}
		return e.brick(c, conv, brokenRollback)
	})
}

// resyncFailed counts attempts at a resync that what the gateway has does not allow.
func (e *Engine) resyncFailed(c *change, conv *conversation, why error) error {
	e.cfg.Log.Error("resync is not possible", "conversation", conv.ID.String(), "error", why)
	e.pause(conv.ID, wire.InvalidCommit)
	if e.failed[conv.ID]++; e.failed[conv.ID] < resyncTries {
		return nil
	}
	delete(e.pauses, conv.ID)
	delete(e.failed, conv.ID)
	return e.brick(c, conv, brokenResync)
}

// A fork is what speaks for a fork of a group: messages of this epoch that do not open.
type fork struct {
	epoch   uint64
	senders map[[32]byte]int
	resyncs int
}

// unopened notes a message of the present epoch that did not open. Two members whose
// messages do not (one, where there is only one other) are a fork: first this device
// resyncs, and if that does not help the group is left.
func (e *Engine) unopened(c *change, conv *conversation, g *mls.Group, d *wire.Deliver) error {
	f := e.forks[string(conv.Group)]
	if f == nil {
		f = &fork{}
		e.forks[string(conv.Group)] = f
	}
	if f.epoch != g.Epoch() || f.senders == nil {
		f.epoch, f.senders = g.Epoch(), map[[32]byte]int{}
	}
	f.senders[d.Sender]++
	witnesses := 0
	for _, n := range f.senders {
		if n >= forkMessages {
			witnesses++
		}
	}
	if witnesses < min(2, len(g.Members())-1) {
		return nil
	}
	f.senders = nil
	if f.resyncs++; f.resyncs == 1 {
		return c.lose(conv)
	}
	return e.brick(c, conv, brokenForked)
}

// agrees notes a message that did open: its sender and this device agree.
func (e *Engine) agrees(group []byte, sender [32]byte) {
	if f := e.forks[string(group)]; f != nil {
		delete(f.senders, sender)
		f.resyncs = 0
	}
}

// found or add, whichever the founding of a successor has come to.
func (e *Engine) goOn(ctx context.Context, l *link, conv *conversation) (bool, error) {
	if conv.Founding == 0 || e.now().Before(e.foundingDue(conv)) {
		return false, nil
	}
	var in *intent
	err := e.cfg.Vault.View(ctx, func(tx *vault.Tx) (err error) {
		in, err = getJSON[intent](tx, tableIntent, nil, vault.Numbered(conv.Founding))
		return err
	})
	switch {
	case err != nil:
		return false, stopped(err)
	case in == nil:
		return true, stopped(e.update(func(c *change) error { return e.foundAgain(c, conv) }))
	case in.Kind == intentAdd:
		return e.add(ctx, l, in, conv)
	}
	if in.Packages == nil {
		packages, err := e.gatherReachable(ctx, l, in.Addresses, e.now().Unix() < conv.Patient)
		// Deliveries went on meanwhile: somebody else may have founded it.
		if now := e.conversations[conv.ID]; now == nil || now.State != stateBroken || now.Founding != in.Number {
			return true, nil
		}
		if errors.Is(err, errNotThere) {
			e.foundAt[conv.ID] = e.now().Add(foundTurn)
			return true, nil
		}
		if err != nil {
			return true, e.unable(in, conv, err)
		}
		in.Packages = packages
	}
	return true, e.create(in, conv)
}

// gatherReachable gathers KeyPackages of everybody who has any: one who has left the
// service must not keep the others from going on. If it is to be patient, it does not do
// without anybody.
func (e *Engine) gatherReachable(ctx context.Context, l *link, people []string, patient bool) ([][]byte, error) {
	var all [][]byte
	for _, a := range people {
		some, err := e.packagesOf(ctx, l, a)
		var none *NoDevice
		var refused *Unrecorded
		if patient && errors.As(err, &none) {
			return nil, errNotThere
		}
		if errors.As(err, &none) || errors.As(err, &refused) {
			e.cfg.Log.Warn("not carried over into the successor", "address", a)
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	if len(all) == 0 {
		return nil, &NoDevice{"everybody else"}
	}
	return all, nil
}

// errNotThere says that somebody has published no KeyPackages yet.
var errNotThere = errors.New("a member has not come back to the gateway yet")

// packagesOf gathers KeyPackages of a person's devices, other than this one.
func (e *Engine) packagesOf(ctx context.Context, l *link, address string) ([][]byte, error) {
	var only []identity.DeviceID // nil: all
	if address == e.cfg.Address.String() {
		others, err := e.devices(ctx, l, address, func(id identity.DeviceID) bool { return id != e.self })
		if err != nil || len(others) == 0 {
			return nil, err
		}
		only = others
	}
	return e.packages(ctx, l, address, only)
}

// foundAgain begins the founding anew, after a pause.
func (e *Engine) foundAgain(c *change, conv *conversation) error {
	view, _, err := e.view(c.Tx, conv.Predecessor)
	if err != nil {
		return err
	}
	in := &intent{Kind: intentFound, Conversation: conv.ID, Addresses: addresses(view)}
	if err := errors.Join(c.end(conv.Founding, nil), c.queue(in)); err != nil {
		return err
	}
	e.foundAt[conv.ID] = e.now().Add(retryRefused)
	next := conv.edit()
	next.Founding = in.Number
	return c.put(next)
}

// founded ends the founding: everybody has been added by the first commit.
func (e *Engine) founded(c *change, conv *conversation) error {
	g, err := e.stored(c.Tx, conv.Group)
	if err != nil {
		return err
	}
	next := conv.edit()
	next.State, next.Founding, next.Lost = stateActive, 0, false
	delete(e.foundAt, conv.ID)
	if err := c.put(next); err != nil {
		return err
	}
	return e.entered(c, next, g, member{Device: e.self, Address: e.cfg.Address}, true)
}

// foundingDue is when it is this device's turn to found a successor.
func (e *Engine) foundingDue(conv *conversation) time.Time {
	turn, after := e.foundAt[conv.ID], time.Unix(conv.FoundAfter, 0)
	if after.After(turn) {
		return after
	}
	return turn
}

// untilFounding is how long the pump may rest before a founding is due.
func (e *Engine) untilFounding() (time.Duration, bool) {
	var waits []time.Duration
	for _, conv := range e.conversations {
		if wait := e.foundingDue(conv).Sub(e.now()); conv.State == stateBroken && conv.Founding != 0 && wait > 0 {
			waits = append(waits, wait)
		}
	}
	if len(waits) == 0 {
		return 0, false
	}
	return slices.MinFunc(waits, cmp.Compare), true
}
