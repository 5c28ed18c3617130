// SPDX-License-Identifier: Apache-2.0

package client

import (
	"time"

	"valise/client/vault"
	"valise/identity"
	"valise/wire"
)

// submitted says what a submission of this device carried, for a notice of the
// gateway that somebody has not fetched it.
type submitted struct {
	Message MessageID `json:"message,omitzero"` // zero: nothing that is shown
}

// keepSubmitted notes a message that the gateway has taken.
func (c *change) keepSubmitted(in *intent, s *slot) error {
	content, err := wire.ParseContent(in.Content)
	if err != nil {
		return err
	}
	var kept submitted
	if content.MediaType != wire.MediaResend && content.MediaType != mediaSuccessor {
		kept.Message = content.ID
	}
	if err := putJSON(c.Tx, tableSubmitted, c.meta.Incarnation, vault.Numbered(s.Counter), kept); err != nil || s.Counter <= historyDepth {
		return err
	}
	return c.DeleteThrough(tableSubmitted, c.meta.Incarnation, s.Counter-historyDepth)
}

// expired shows that messages to this device waited too long, or that the gateway withheld
// them. It stands for several numbers, some of which this device may have behind it.
func (e *Engine) expired(l *link, d *wire.Deliver, kind string) error {
	m, err := wire.ParseExpiredMail(d.Payload)
	if err != nil || m.First > d.Number {
		return l.fail(wire.ErrMalformed)
	}
	lost := d.Number - max(m.First-1, e.meta.Cursor)
	if lost -= e.copiesUpTo(m.First, d.Number); lost == 0 {
		return e.done(d, nil)
	}
	return e.done(d, func(c *change) error {
		ev := Event{Kind: kind, Time: e.now(), Taken: time.UnixMilli(int64(d.Time)), Device: d.Sender, Count: int(min(lost, 1<<31-1))}
		ev.From = e.addressIn(d.Group, d.Sender)
		return e.noteIn(c, d.Group, ev)
	})
}

// undelivered shows which messages of this device another one has not fetched, or may not
// have.
func (e *Engine) undelivered(l *link, d *wire.Deliver, kind string) error {
	m, err := wire.ParseUndeliveredMail(d.Payload)
	if err != nil {
		return l.fail(wire.ErrMalformed)
	}
	return e.done(d, func(c *change) error {
		to := Member{Address: e.addressIn(d.Group, d.Sender), Device: d.Sender}
		ev := Event{Kind: kind, Time: e.now(), Taken: time.UnixMilli(int64(d.Time)), Outgoing: true, Members: []Member{to}}
		for _, counter := range m.Counters {
			kept, err := getJSON[submitted](c.Tx, tableSubmitted, m.Incarnation[:], vault.Numbered(counter))
			if err != nil {
				return err
			}
			if kept != nil && kept.Message == (MessageID{}) {
				continue
			}
			if ev.Count++; kept != nil {
				ev.Messages = append(ev.Messages, kept.Message)
			}
		}
		if ev.Count == 0 {
			return nil
		}
		return e.noteIn(c, d.Group, ev)
	})
}

// noteIn appends an event of a group's conversation; without a conversation if this
// device knows none.
func (e *Engine) noteIn(c *change, group []byte, ev Event) error {
	conv := e.formerOf(group)
	if id, ok := e.byGroup[string(group)]; ok {
		conv = e.conversations[id]
	}
	if conv == nil {
		return c.log(&eventRecord{Event: ev, Group: group})
	}
	return e.note(c, conv, ev)
}

// addressIn is the address of a device in a group, "" if it is not there now.
func (e *Engine) addressIn(group []byte, device identity.DeviceID) string {
	if _, ok := e.byGroup[string(group)]; !ok {
		return ""
	}
	g, err := e.group(group)
	if err != nil {
		return ""
	}
	list, err := e.members(g)
	if err != nil {
		return ""
	}
	for _, m := range list {
		if m.Device == device {
			return m.Address.String()
		}
	}
	return ""
}
