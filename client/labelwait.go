// SPDX-License-Identifier: Apache-2.0

package client

import (
	"valise/identity"
)

// A message that was decided under a bundle which this device does not have yet cannot be
// judged, and MLS opens nothing twice. It is noted as missing. When the bundle is here, or
// one more look has found none, its sender is asked for it again, as for any message that
// did not open: at most maxTries times, so that a bundle that nobody has costs little.

// tableOwed has, below "", the conversation and device of senders that are to be asked
// when the law is settled.
const tableOwed = "owed"

// unjudged reports whether a message was refused only for what this device does not know
// yet.
func (e *Engine) unjudged(reason string) bool {
	return reason == reasonLabelBundle || reason == reasonLabel && e.cfg.RecordRoot != nil
}

// putOff notes that a message is to be asked for when the law is settled.
func (e *Engine) putOff(c *change, conv *conversation, sender identity.DeviceID, n uint64) error {
	noted, err := e.notArrived(c, conv, sender, n)
	if err != nil || !noted {
		return err
	}
	if e.law.due.IsZero() {
		e.law.due = e.now().Add(lawPause)
	}
	e.law.owed = true
	return c.Put(tableOwed, nil, owedRow(conv.ID, sender), nil)
}

func owedRow(conv ConversationID, device identity.DeviceID) []byte {
	return append(append([]byte(nil), conv[:]...), device[:]...)
}

// settled reports whether senders are to be asked now: the bundle in force is here, and
// no further look is due.
func (w *law) settled() bool { return w.owed && !w.missing && w.due.IsZero() }

// collect asks the senders again for what could not be judged.
func (e *Engine) collect() error {
	err := e.update(func(c *change) error {
		cells, err := c.List(tableOwed, nil)
		if err != nil {
			return err
		}
		for _, cell := range cells {
			if err := c.Delete(tableOwed, nil, cell.Row); err != nil {
				return err
			}
			var id ConversationID
			var sender identity.DeviceID
			if len(cell.Row) != len(id)+len(sender) {
				continue
			}
			copy(id[:], cell.Row)
			copy(sender[:], cell.Row[len(id):])
			conv := e.conversations[id]
			if conv == nil || conv.State != stateActive {
				continue // asked for after the resync, with everything else
			}
			if err := e.askAgain(c, conv, sender, false); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		e.law.owed = false
	}
	return stopped(err)
}
