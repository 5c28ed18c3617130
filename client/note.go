// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"

	"golang.org/x/crypto/cryptobyte"

	"valise/client/vault"
	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// mediaSuccessor is the media type of a successorNote; the device handles it and shows
// nothing. See spec/message.md, Section 7.
const mediaSuccessor = "application/vnd.valise.successor"

// A successorNote is what each member says first in a successor group: that it goes
// on there, and from which of its sequence numbers on everybody should have all.
//
//	struct { uint8 version = 1; opaque predecessor<1..255>; uint64 since; } SuccessorNote;
type successorNote struct {
	Predecessor []byte
	Since       uint64 // at least 1
}

func (n *successorNote) marshal() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddUint8(1)
	b.AddUint8LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes(n.Predecessor) })
	b.AddUint64(n.Since)
	return b.Bytes()
}

func parseSuccessorNote(data []byte) (*successorNote, error) {
	s, n := cryptobyte.String(data), new(successorNote)
	var version uint8
	var former cryptobyte.String
	if !s.ReadUint8(&version) || version != 1 || !s.ReadUint8LengthPrefixed(&former) || former.Empty() ||
		!s.ReadUint64(&n.Since) || n.Since == 0 || !s.Empty() {
		return nil, errors.New("malformed successor note")
	}
	n.Predecessor = former
	return n, nil
}

// entered says that the conversation goes on in a new group: to the person, and to
// the others, with what they need to notice what they have missed.
func (e *Engine) entered(c *change, conv *conversation, g *mls.Group, founder member, own bool) error {
	list, err := e.members(g)
	if err != nil {
		return err
	}
	e.unhear(conv, list)
	if err := c.put(conv); err != nil {
		return err
	}
	ev := Event{Kind: EventSuccessor, Time: e.now(), From: founder.Address.String(), Device: founder.Device, Outgoing: own, Reason: conv.Broken}
	for _, m := range list {
		ev.Members = append(ev.Members, Member{Address: m.Address.String(), Device: m.Device})
	}
	if err := e.note(c, conv, ev); err != nil {
		return err
	}
	if err := e.announceSuccession(c, conv, g.OwnLeaf(), list); err != nil {
		return err
	}
	for _, m := range list {
		if m.Device == e.self {
			continue
		}
		if err := e.askAgain(c, conv, m.Device, false); err != nil {
			return err
		}
	}
	return nil
}

// announceSuccession queues the note that vouches for the successor and tells how far
// this device's messages have come.
func (e *Engine) announceSuccession(c *change, conv *conversation, own mls.LeafIndex, now []member) error {
	if conv.Sequence == 0 && own >= vouchers && len(conv.Unheard) == 0 {
		return nil
	}
	note := successorNote{Predecessor: conv.Predecessor, Since: conv.Sequence + 1}
	for n := conv.Sequence; n > 0 && conv.Sequence-n < lookAhead; n-- {
		sent, err := getJSON[sentRecord](c.Tx, tableSent, conv.ID[:], vault.Numbered(n))
		if err != nil {
			return err
		}
		if sent == nil {
			continue // still under way
		}
		then, err := getJSON[[]member](c.Tx, tableRoster, sent.Group, vault.Numbered(sent.Epoch))
		if err != nil {
			return err
		}
		if then == nil || !covers(*then, now) {
			break
		}
		note.Since = n
	}
	body, err := note.marshal()
	if err != nil {
		return err
	}
	_, err = e.queueService(c, conv.ID, &wire.Content{ID: NewMessageID(), MediaType: mediaSuccessor, Time: uint64(e.now().UnixMilli()), Body: body})
	return err
}

// noted reads another member's note: where this device has followed none of its
// messages yet, the note says from which on it should have.
func (e *Engine) noted(c *change, conv *conversation, sender identity.DeviceID, sequence uint64, body []byte) error {
	note, err := parseSuccessorNote(body)
	if err != nil || len(conv.Former) == 0 || note.Since > sequence || sequence-note.Since > lookAhead {
		return nil // sequence numbers alone tell what is missing
	}
	p, err := c.peer(conv.ID, sender)
	if err != nil || !p.Fresh {
		return err
	}
	p.Last, p.Fresh = note.Since-1, false
	return c.putPeer(conv.ID, sender, p)
}
