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

// found prepares a conversation's first group: a KeyPackage of every device of the
// people named, and of our own other devices, then a group of one at the gateway.
// The others are added by the first commit; see settleCreate.
// It returns false if it has to wait.
func (e *Engine) found(ctx context.Context, l *link, in *intent, conv *conversation) (bool, error) {
	if in.Packages == nil {
		packages, err := e.gather(ctx, l, in.Addresses)
		if err != nil {
			return true, e.unable(in, conv, err)
		}
		in.Packages = packages
	}
	if may, did, err := e.letIn(ctx, l, in, conv, nil); !may {
		return did, err
	}
	return true, e.create(in, conv)
}

// create makes a group of one and has the gateway register it.
func (e *Engine) create(in *intent, conv *conversation) error {
	ext, err := label{conv.ID, conv.Name, conv.predecessor()}.extension()
	if err != nil {
		return e.abandon(in, conv, err)
	}
	required := mls.RequiredCapabilities{Extensions: []mls.ExtensionType{extensionConversation}, Credentials: []mls.CredentialType{mls.CredentialX509}}
	g, err := mls.Create(e.groupConfig(), e.identity(), mls.CreateParams{
		Suite: e.suite, Extensions: []mls.Extension{required.Extension(), ext}, Capabilities: capabilities(),
		Lifetime: e.lifetime(), At: e.now(),
	})
	if err != nil {
		return e.abandon(in, conv, fmt.Errorf("create the group: %w", err))
	}
	info, err := g.GroupInfo()
	if err != nil {
		return e.abandon(in, conv, fmt.Errorf("describe the group: %w", err))
	}
	err = e.update(func(c *change) error {
		s := &slot{Kind: slotCreate, Intent: in.Number, Conversation: conv.ID, Group: g.ID()}
		if err := s.encode(&wire.CreateGroup{GroupInfo: info, Tree: g.Tree()}, c.meta.Counter+1); err != nil {
			return err
		}
		next := conv.edit()
		next.Group = g.ID()
		if len(conv.Group) > 0 {
			next.Former = append(next.Former, conv.Group)
		}
		return errors.Join(c.DeleteAll(tableGroup, conv.Group), putDelta(c.Tx, g.ID(), g.State()), c.put(next), c.keepIntent(in), c.fillSlot(s))
	})
	return stopped(err)
}

// settleCreate goes on with the founding: its intent becomes the adding of the
// others, in the same place of the queue.
func (e *Engine) settleCreate(s *slot) error {
	return e.update(func(c *change) error {
		conv := e.conversations[s.Conversation]
		in, err := getJSON[intent](c.Tx, tableIntent, nil, vault.Numbered(s.Intent))
		if err != nil || in == nil || conv == nil {
			return errors.Join(err, c.emptySlot(false))
		}
		if !bytes.Equal(conv.Group, s.Group) {
			return c.emptySlot(false) // somebody else's successor was faster
		}
		next := conv.edit()
		if conv.State != stateBroken {
			next.State = stateActive
		}
		in.Kind = intentAdd
		return errors.Join(c.put(next), c.keepIntent(in), c.emptySlot(false))
	})
}

// add brings people's devices into a conversation. It returns false if that has to wait.
func (e *Engine) add(ctx context.Context, l *link, in *intent, conv *conversation) (bool, error) {
	if in.Packages == nil {
		packages, err := e.gatherNew(ctx, l, conv, in.Addresses)
		if err != nil {
			return true, e.unable(in, conv, err)
		}
		in.Packages = packages
	}
	g, err := e.group(conv.Group) // the deliveries went on meanwhile
	if err != nil {
		return true, stopped(err)
	}
	if may, did, err := e.letIn(ctx, l, in, conv, g); !may {
		return did, err
	}
	return true, e.addNow(in, conv, g)
}

// addNow makes the commit that brings in those whose KeyPackages an intent has.
func (e *Engine) addNow(in *intent, conv *conversation, g *mls.Group) error {
	inside, err := e.members(g)
	if err != nil {
		return stopped(err)
	}
	var proposals []mls.Proposal
	var event Event
	for _, raw := range in.Packages {
		kp, err := mls.ParseKeyPackage(raw)
		if err != nil {
			return e.abandon(in, conv, err)
		}
		d, err := deviceOf(e.cfg.Trust, kp.Leaf.Credential)
		if err != nil {
			return e.abandon(in, conv, err)
		}
		if slices.ContainsFunc(inside, func(m member) bool { return m.Device == d.ID }) {
			continue
		}
		proposals = append(proposals, mls.AddProposal(kp))
		event.Members = append(event.Members, Member{Address: d.Address.String(), Device: d.ID})
	}
	if len(proposals) == 0 {
		return stopped(e.update(func(c *change) error { return c.end(in.Number, nil) }))
	}
	event.Kind = EventAdded
	return e.commit(in, conv, g, proposals, event)
}

// remove takes a person's devices, or one device, out of a conversation.
func (e *Engine) remove(in *intent, conv *conversation, g *mls.Group) error {
	var proposals []mls.Proposal
	event := Event{Kind: EventRemoved}
	for _, m := range g.Members() {
		d, err := e.member(m)
		if err != nil {
			return stopped(err)
		}
		if d.Device == e.self || !(slices.Contains(in.Addresses, d.Address.String()) || d.Device == in.Device) {
			continue
		}
		proposals = append(proposals, mls.RemoveProposal(m.Leaf))
		event.Members = append(event.Members, Member{Address: d.Address.String(), Device: d.Device})
	}
	if len(proposals) == 0 {
		return e.abandon(in, conv, errors.New("no such member in this conversation"))
	}
	return e.commit(in, conv, g, proposals, event)
}

// commit prepares a commit and makes it the submission under way. Nothing about the
// group changes before the gateway has taken it; if another one wins, this is
// forgotten and made anew.
func (e *Engine) commit(in *intent, conv *conversation, g *mls.Group, proposals []mls.Proposal, event Event) error {
	own := mls.X509Credential(e.leaf)
	p, err := g.PrepareCommit(mls.CommitParams{
		Proposals: proposals, IgnorePending: true, TreeInWelcome: true, Credential: &own, At: e.now(),
	})
	if err != nil {
		return e.abandon(in, conv, fmt.Errorf("prepare the change: %w", err))
	}
	event.Conversation, event.From, event.Device, event.Outgoing = conv.ID, e.cfg.Address.String(), e.self, true
	event.Epoch = g.Epoch() + 1
	err = e.update(func(c *change) error {
		s := &slot{
			Kind: slotCommit, Intent: in.Number, Conversation: conv.ID, Group: conv.Group, Epoch: g.Epoch(),
			Delta: p.Delta.Marshal(), Events: []Event{event},
		}
		frame := &wire.Commit{Group: conv.Group, Epoch: g.Epoch(), Commit: p.Commit, Welcome: p.Welcome, GroupInfo: p.GroupInfo}
		if err := s.encode(frame, c.meta.Counter+1); err != nil {
			return err
		}
		return errors.Join(c.keepIntent(in), c.fillSlot(s))
	})
	if err != nil {
		return stopped(err)
	}
	return stoppedAt(e.at("sealed"))
}

// settleCommit takes an accepted commit's new state.
func (e *Engine) settleCommit(s *slot) error {
	conv := e.conversations[s.Conversation]
	if conv == nil {
		return e.update(func(c *change) error { return c.emptySlot(false) })
	}
	delta, err := mls.ParseDelta(s.Delta)
	if err != nil {
		return err
	}
	e.forget(s.Group)
	if s.Kind == slotResync {
		return e.settleResync(s, conv, delta)
	}
	if !bytes.Equal(conv.Group, s.Group) {
		// It goes on in a successor, where what was to be changed is changed again.
		return e.update(func(c *change) error { return c.emptySlot(false) })
	}
	return e.update(func(c *change) error {
		if s.heals() {
			if err := c.healed(s.Group, s.Epoch+1, mls.LeafIndex(s.Leaf)); err != nil {
				return err
			}
		}
		if err := errors.Join(putDelta(c.Tx, s.Group, delta), c.emptySlot(false), c.end(s.Intent, nil)); err != nil {
			return err
		}
		if s.Duty {
			if err := c.put(conv.clearedBy(s.Events)); err != nil {
				return err
			}
		}
		if conv.State == stateBroken && s.Intent != 0 && conv.Founding == s.Intent {
			return e.founded(c, conv)
		}
		if s.adds() {
			if err := e.released(c, conv.ID); err != nil {
				return err
			}
		}
		for _, ev := range s.Events {
			ev.Time, ev.Name = e.now(), conv.Name
			if err := e.note(c, conv, ev); err != nil {
				return err
			}
		}
		return nil
	})
}

// adds says whether a submission brings people in.
func (s *slot) adds() bool {
	return s.Intent != 0 && slices.ContainsFunc(s.Events, func(ev Event) bool { return ev.Kind == EventAdded })
}

// unable deals with an error while KeyPackages were gathered: a broken link is tried
// again, all others end the intent.
func (e *Engine) unable(in *intent, conv *conversation, err error) error {
	var broken *linkError
	if errors.As(err, &broken) {
		return broken.err
	}
	if errors.Is(err, wire.RateLimited) || errors.Is(err, wire.Unavailable) {
		e.pause(conv.ID, codeIn(err))
		return nil
	}
	return e.abandon(in, conv, err)
}

// linkError tells an error of the connection from an answer.
type linkError struct{ err error }

func (l *linkError) Error() string { return l.err.Error() }
func (l *linkError) Unwrap() error { return l.err }

// gather asks for a KeyPackage of every device of the people named, and of our own
// other devices.
func (e *Engine) gather(ctx context.Context, l *link, addresses []string) ([][]byte, error) {
	var all [][]byte
	for _, a := range addresses {
		if a == e.cfg.Address.String() {
			continue
		}
		some, err := e.packages(ctx, l, a, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	others, err := e.devices(ctx, l, e.cfg.Address.String(), func(id identity.DeviceID) bool { return id != e.self })
	if err != nil {
		return nil, err
	}
	if len(others) > 0 {
		some, err := e.packages(ctx, l, e.cfg.Address.String(), others)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// gatherNew asks for KeyPackages of those devices only that are not members yet.
func (e *Engine) gatherNew(ctx context.Context, l *link, conv *conversation, addresses []string) ([][]byte, error) {
	g, err := e.group(conv.Group)
	if err != nil {
		return nil, err
	}
	inside, err := e.members(g)
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for _, a := range addresses {
		fresh, err := e.devices(ctx, l, a, func(id identity.DeviceID) bool {
			return !slices.ContainsFunc(inside, func(m member) bool { return m.Device == id })
		})
		if err != nil {
			return nil, err
		}
		if len(fresh) == 0 {
			if slices.ContainsFunc(inside, func(m member) bool { return m.Address.String() == a }) {
				continue // everybody is here already
			}
			return nil, &NoDevice{a}
		}
		some, err := e.packages(ctx, l, a, fresh)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// NoDevice says that somebody cannot be written to.
type NoDevice struct{ Address string }

func (n *NoDevice) Error() string {
	return fmt.Sprintf("%s has no device that can be written to", n.Address)
}

// Hint says what may be the matter.
func (n *NoDevice) Hint() string {
	return "check the address (valise contacts lists who can be written to); a device can be reached once it was enrolled and unlocked for the first time, with a key on the same curve as yours"
}

// devices lists a person's devices in the gateway's directory. Each chain is checked.
func (e *Engine) devices(ctx context.Context, l *link, address string, want func(identity.DeviceID) bool) ([]identity.DeviceID, error) {
	answer, err := e.call(ctx, l, &wire.GetDirectory{Prefix: address})
	if err != nil {
		return nil, &linkError{err}
	}
	dir, ok := answer.(*wire.Directory)
	if !ok {
		return nil, codeOf(answer)
	}
	var out []identity.DeviceID
	for _, chain := range dir.Chains {
		d, err := deviceOf(e.cfg.Trust, mls.X509Credential(chain))
		if err != nil {
			e.cfg.Log.Warn("directory entry refused", "error", err)
			continue
		}
		if d.Address.String() == address && want(d.ID) {
			out = append(out, d.ID)
		}
	}
	return out, nil
}

// packages fetches and checks KeyPackages: each must be of the person and device
// that was asked for, whatever the gateway says.
func (e *Engine) packages(ctx context.Context, l *link, address string, devices []identity.DeviceID) ([][]byte, error) {
	req := &wire.GetKeyPackages{Suite: uint16(e.suite), Address: address}
	for _, d := range devices {
		req.Devices = append(req.Devices, d)
	}
	answer, err := e.call(ctx, l, req)
	if err != nil {
		return nil, &linkError{err}
	}
	list, ok := answer.(*wire.KeyPackages)
	if !ok {
		if code := codeOf(answer); !errors.Is(code, wire.NotFound) {
			return nil, code
		}
		return nil, &NoDevice{address}
	}
	var out [][]byte
	var refused *Unrecorded
	var shut *Barred
	for _, entry := range list.Entries {
		if identity.DeviceID(entry.Device) == e.self {
			continue
		}
		kp, err := e.checkPackage(&entry, address)
		if err != nil {
			return nil, fmt.Errorf("a key package that the gateway gave for %s is refused: %w", address, err)
		}
		barred, err := e.checkStanding(ctx, l, kp.Leaf.Credential)
		if err != nil {
			return nil, &linkError{err}
		}
		if barred != nil {
			e.cfg.Log.Warn("not let in", "address", barred.Address, "device", barred.Device.String(), "reason", barred.Reason)
			shut = barred
			continue // the person's other devices are let in
		}
		unrecorded, err := e.vouch(ctx, l, e.strangers([]mls.Member{{Credential: kp.Leaf.Credential}}))
		if err != nil {
			return nil, &linkError{err}
		}
		if unrecorded != nil {
			refused = unrecorded
			if err := e.update(func(c *change) error { return e.noteUnrecorded(c, nil, unrecorded) }); err != nil {
				return nil, &linkError{stopped(err)}
			}
			continue // the person's other devices are let in
		}
		out = append(out, entry.Package)
	}
	switch {
	case len(out) > 0:
		return out, nil
	case shut != nil:
		return nil, shut
	case refused != nil:
		return nil, refused
	}
	return nil, &NoDevice{address}
}

func (e *Engine) checkPackage(entry *wire.KeyPackageEntry, address string) (*mls.KeyPackage, error) {
	kp, err := mls.ParseKeyPackage(entry.Package)
	if err != nil {
		return nil, err
	}
	if err := kp.Verify(authenticator{e.cfg.Trust}, e.now()); err != nil {
		return nil, err
	}
	d, err := deviceOf(e.cfg.Trust, kp.Leaf.Credential)
	if err != nil {
		return nil, err
	}
	if d.Address.String() != address || d.ID != identity.DeviceID(entry.Device) {
		return nil, errors.New("it belongs to another person or device")
	}
	return kp, nil
}

// codeOf is the error in an answer that should have been another frame.
func codeOf(a wire.Answer) error {
	if r, ok := a.(*wire.Result); ok && r.Code != wire.OK {
		return refusal(r.Code)
	}
	return fmt.Errorf("%w: unexpected answer of type %#02x", wire.ErrMalformed, uint8(a.Type()))
}
