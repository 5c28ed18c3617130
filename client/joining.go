// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"valise/client/vault"
	"valise/mls"
	"valise/wire"
)

// welcomed joins a group that this device was added to.
func (e *Engine) welcomed(ctx context.Context, l *link, d *wire.Deliver) error {
	if e.formerOf(d.Group) != nil {
		return e.done(d, nil) // it was left already
	}
	if id, ok := e.byGroup[string(d.Group)]; ok && e.conversations[id].State == stateActive {
		if g, err := e.group(d.Group); err == nil && g.Epoch() >= d.Epoch {
			return e.done(d, nil) // from before a resync
		}
	}
	g, used, err := e.join(d)
	if err == nil {
		if list := e.strangers(g.Members()); len(list) > 0 {
			refused, err := e.vouch(ctx, l, list)
			if err != nil {
				return err
			}
			if refused == nil {
				return e.welcomed(ctx, l, d) // much may have changed meanwhile
			}
			return e.keepOut(ctx, l, d, refused)
		}
	}
	if err != nil {
		// The group counts this device as a member all the same: come in by an
		// external commit.
		if err := e.report(ctx, l, d, reasonWelcome, err); err != nil {
			return err
		}
		return e.done(d, func(c *change) error {
			conv, err := e.conversationOf(c, d.Group)
			if err != nil || conv == nil {
				return err
			}
			return c.lose(conv)
		})
	}
	name, err := labelOf(g.Extensions())
	if err != nil {
		name.ID = NewConversationID()
	}
	taken := e.conversations[name.ID]
	if taken != nil && !bytes.Equal(taken.Group, d.Group) && taken.State != stateFailed {
		return e.successorArrived(ctx, l, d, g, name, used)
	}
	err = e.done(d, func(c *change) error { return e.enter(c, d, g, name, used) })
	if err == nil {
		e.groups[string(g.ID())] = g
	}
	return err
}

// keepOut refuses a delivery that would bring somebody in who is not in the
// authority's record. The group counts this device as a member all the same: it is
// looked at again at the resync, and left for a successor if that does not help.
func (e *Engine) keepOut(ctx context.Context, l *link, d *wire.Deliver, refused *Unrecorded) error {
	if err := e.report(ctx, l, d, refused.Reason, refused); err != nil {
		return err
	}
	return e.done(d, func(c *change) error {
		conv, err := e.conversationOf(c, d.Group)
		if err != nil || conv == nil {
			return err
		}
		return errors.Join(e.noteUnrecorded(c, conv, refused), c.lose(conv))
	})
}

// join opens a Welcome with whichever of our KeyPackages it was made for.
func (e *Engine) join(d *wire.Deliver) (*mls.Group, []byte, error) {
	var cells []vault.Cell
	err := e.cfg.Vault.View(context.Background(), func(tx *vault.Tx) (err error) {
		cells, err = tx.List(tablePackage, nil)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	for _, cell := range cells {
		p, err := decode[packageRecord](tablePackage, cell.Value)
		if err != nil {
			return nil, nil, err
		}
		kp, err := mls.ParseKeyPackage(p.Package)
		if err != nil {
			return nil, nil, err
		}
		secrets, err := mls.ParseKeyPackageSecrets(p.Secrets)
		if err != nil {
			return nil, nil, err
		}
		g, err := mls.Join(e.groupConfig(), e.identity(), d.Payload, kp, secrets, mls.JoinParams{})
		if errors.Is(err, mls.ErrNotForUs) {
			continue
		}
		if err == nil && !bytes.Equal(g.ID(), d.Group) {
			err = errors.New("the welcome is for another group than the gateway says")
		}
		used := cell.Row
		if p.LastResort {
			used = nil
		}
		return g, used, err
	}
	return nil, nil, mls.ErrNotForUs
}

// enter records a joined group and its conversation.
func (e *Engine) enter(c *change, d *wire.Deliver, g *mls.Group, name label, used []byte) error {
	conv := e.conversations[name.ID]
	if old, ok := e.byGroup[string(d.Group)]; ok && old != name.ID {
		if err := c.drop(e.conversations[old]); err != nil {
			return err
		}
	}
	if conv == nil {
		conv = &conversation{ID: name.ID, Started: e.now().Unix()}
	} else {
		conv = conv.edit()
		if !bytes.Equal(conv.Group, d.Group) {
			conv.Former = append(conv.Former, conv.Group)
		}
		if conv.State == stateLeft {
			// What was said meanwhile was not for this device: nothing of it is missing.
			if err := c.DeleteAll(tablePeer, conv.ID[:]); err != nil {
				return err
			}
		}
	}
	conv.Name, conv.Group, conv.State, conv.Unnamed = name.Name, slices.Clone(d.Group), stateActive, false
	if used != nil {
		if err := c.Delete(tablePackage, nil, used); err != nil {
			return err
		}
	}
	if err := errors.Join(c.DeleteAll(tableGroup, d.Group), putDelta(c.Tx, d.Group, g.State()), c.put(conv)); err != nil {
		return err
	}
	return e.noteJoined(c, conv, g, d.Sender)
}
