// SPDX-License-Identifier: Apache-2.0

package client

import (
	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// missed notes that a message could not be opened, and asks for it. What it says of
// itself is not authenticated and serves as a hint only: at worst something is asked
// for in vain.
func (e *Engine) missed(c *change, d *wire.Deliver) error {
	conv, err := e.conversationOf(c, d.Group)
	if err != nil || conv == nil || conv.State == stateLeft || conv.State == stateFailed {
		return err
	}
	info, err := mls.ParsePrivateMessageInfo(d.Payload)
	if err != nil {
		return nil // the next message of this sender shows the gap
	}
	h, err := wire.ParseHeader(info.AuthenticatedData)
	if err != nil {
		return nil
	}
	return e.missing(c, conv, d.Sender, h.Sequence)
}

// missing notes one sequence number of a sender as not delivered, and asks for it.
func (e *Engine) missing(c *change, conv *conversation, sender identity.DeviceID, n uint64) error {
	noted, err := e.notArrived(c, conv, sender, n)
	if err != nil || !noted || conv.State != stateActive {
		return err // asked for after the resync
	}
	return e.askAgain(c, conv, sender, false)
}

// notArrived notes a sequence number, unless its message was delivered before.
func (e *Engine) notArrived(c *change, conv *conversation, sender identity.DeviceID, n uint64) (bool, error) {
	p, err := c.peer(conv.ID, sender)
	if err != nil || n > p.Last+maxGap && !p.Fresh {
		return false, err
	}
	if _, asked := p.Missing[n]; n <= p.Last && !asked && !p.Fresh {
		return false, nil
	}
	if !p.Fresh {
		for k := p.Last + 1; k < n; k++ {
			p.Missing[k] += 0
		}
	}
	p.Missing[n] += 0
	p.Last, p.Fresh = max(n, p.Last), false
	return true, c.putPeer(conv.ID, sender, p)
}

// progress follows a sender's sequence numbers: what lies between the last one and
// this one has been lost on the way, and is asked for.
func (e *Engine) progress(c *change, conv *conversation, sender identity.DeviceID, n uint64) error {
	p, err := c.peer(conv.ID, sender)
	if err != nil {
		return err
	}
	delete(p.Missing, n)
	gap := !p.Fresh && n > p.Last+1 && n-p.Last <= maxGap
	if gap {
		for k := p.Last + 1; k < n; k++ {
			p.Missing[k] += 0
		}
	}
	if p.Fresh {
		p.Last = n
	}
	p.Last, p.Fresh = max(p.Last, n), false
	if err := c.putPeer(conv.ID, sender, p); err != nil || !gap {
		return err
	}
	return e.askAgain(c, conv, sender, false)
}
