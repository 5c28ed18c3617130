// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"time"

	"valise/wire"
)

// restored deals with the notice that the gateway was put back into an earlier state.
// It stands behind all mail that the gateway still had, and before all that came
// later. The groups that this device has do not go on there, for the gateway
// may know them only as they were before somebody was removed; each conversation goes on
// in a successor, in which everybody says how far he has come and is asked for what the
// gateway has forgotten.
func (e *Engine) restored(l *link, d *wire.Deliver) error {
	m, err := wire.ParseRestoredMail(d.Payload)
	if err != nil || m.First > d.Number {
		return l.fail(wire.ErrMalformed)
	}
	// Who has seen what the gateway has forgotten goes first: others may not know who was
	// removed since the backup.
	knows := e.meta.Cursor >= m.First || e.meta.Ahead
	e.cfg.Log.Warn("the gateway was restored from a backup", "backup", time.UnixMilli(int64(m.Since)))
	err = e.update(func(c *change) error { // a candidate's group is gone as well
		var all []error
		for _, conv := range e.conversations {
			if conv.State == stateCandidate {
				all = append(all, c.DeleteAll(tableGroup, conv.Group), c.DeleteAll(tablePeer, conv.ID[:]), c.drop(conv))
			}
		}
		return errors.Join(all...)
	})
	if err != nil {
		return stopped(err)
	}
	return e.done(d, func(c *change) error {
		all := []error{c.log(&eventRecord{Event: Event{Kind: EventRestored, Time: e.now(), Taken: time.UnixMilli(int64(m.Since))}})}
		c.meta.Ahead = false
		for _, conv := range e.conversations {
			if conv.State == stateActive || conv.State == stateResync {
				waits := conv.edit()
				waits.Patient, waits.Unknowing = e.now().Add(foundPatience).Unix(), !knows
				all = append(all, e.brick(c, waits, brokenRestored), e.giveWay(c, conv, knows))
			}
		}
		return errors.Join(all...)
	})
}

// giveWay lets others found a successor first, if this device has seen nothing of what the
// gateway has forgotten and there are others than the two people of the conversation.
func (e *Engine) giveWay(c *change, conv *conversation, knows bool) error {
	now := c.conversations[conv.ID] // as brick has left it
	if knows || now == nil || now.State != stateBroken || now.Founding == 0 {
		return nil
	}
	view, _, err := e.view(c.Tx, now.Predecessor)
	if err != nil || len(addresses(view)) <= 2 {
		return err
	}
	next := now.edit()
	next.FoundAfter = e.now().Add(foundUnknowing).Unix()
	return c.put(next)
}
