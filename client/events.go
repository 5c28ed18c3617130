// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"valise/client/file"
	"valise/client/vault"
	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// The kinds of events.
const (
	EventMessage     = "message"
	EventFile        = "file"
	EventOther       = "other"        // a message of a media type that is not shown
	EventJoined      = "joined"       // this device is in a conversation now
	EventAdded       = "added"        // devices came in
	EventRemoved     = "removed"      // devices went out
	EventSuccessor   = "successor"    // the conversation goes on in a new group, and why
	EventLeft        = "left"         // this device is out
	EventRefused     = "refused"      // a message was refused, and why
	EventLost        = "lost"         // a message could not be obtained again from its sender
	EventExpired     = "expired"      // messages to this device waited too long at the gateway, as it says
	EventWithheld    = "withheld"     // messages to this device were withheld: it is not cleared for them any more
	EventForbidden   = "forbidden"    // messages of this device were withheld from another
	EventUnfetched   = "unfetched"    // messages of this device were not fetched by another in time, as the gateway says
	EventFileFetched = "file_fetched" // all Count recipients of a file of this device have it, and the gateway has deleted it
	EventFileExpired = "file_expired" // a file of this device expired at the gateway; Count of Of recipients have it
	EventRestored    = "restored"     // the gateway was restored from a backup, and has forgotten what it took since
	EventResynced    = "resynced"     // this device's state was an older copy
	EventRecord      = "record"       // the authority's record is not in order, and why; in order again without a reason
	EventPolicy      = "policy"       // another policy bundle is in force, or with a reason: the one in force is not here
	EventRelabelled  = "relabelled"   // a message was delivered with another label than its sender signed
	EventStandings   = "standings"    // the newest bulletin is so old that Count of Of ranks are not sent, and why; without a reason: all are again
	EventFailed      = "failed"       // a message of this device was given up, why, and what to do
	EventHeld        = "held"         // what is written into a conversation waits, and why
	EventUnrecorded  = "unrecorded"   // a device was not let in, because of the authority's record
)

// An Event is one line of what happened, in the order in which it was persisted.
type Event struct {
	Cursor       string            `json:"cursor"` // goes into Query.After
	Kind         string            `json:"kind"`
	Conversation ConversationID    `json:"conversation,omitzero"`
	Name         string            `json:"name,omitempty"` // of the conversation
	ID           MessageID         `json:"id,omitzero"`
	From         string            `json:"from,omitempty"` // address
	Device       identity.DeviceID `json:"device,omitzero"`
	Outgoing     bool              `json:"outgoing,omitempty"`
	Time         time.Time         `json:"time"` // a message's: by its sender's clock
	Taken        time.Time         `json:"taken,omitzero"`
	Sequence     uint64            `json:"sequence,omitempty"`
	Epoch        uint64            `json:"epoch,omitempty"` // of the group: a message's, or the one that a change led to
	Text         string            `json:"text,omitempty"`
	MediaType    string            `json:"media_type,omitempty"`
	InReplyTo    MessageID         `json:"in_reply_to,omitzero"`
	File         *FileInfo         `json:"file,omitempty"`
	Members      []Member          `json:"members,omitempty"`
	Count        int               `json:"count,omitempty"`    // of messages that expired; of ranks that are not sent
	Of           int               `json:"of,omitempty"`       // so many ranks
	Messages     []MessageID       `json:"messages,omitempty"` // of this device that expired, where it is known which
	Reason       string            `json:"reason,omitempty"`
	Hint         string            `json:"hint,omitempty"`    // of a message that failed: what to do
	Marking      string            `json:"marking,omitempty"` // of the label, as people read it
	Label        *Label            `json:"label,omitempty"`   // of a message; none: unlabelled
	Precedence   string            `json:"precedence,omitempty"`
	Version      uint32            `json:"version,omitempty"` // of a policy bundle
}

// A FileInfo describes a file that came or went.
type FileInfo struct {
	Name      string `json:"name"`
	Size      uint64 `json:"size"`
	SHA256    string `json:"sha256"`
	MediaType string `json:"media_type,omitempty"`
	Path      string `json:"path,omitempty"`    // where it was fetched to
	Missing   string `json:"missing,omitempty"` // why it was not: see FileError
}

// A Member is a device in a conversation.
type Member struct {
	Address string            `json:"address"`
	Device  identity.DeviceID `json:"device"`
}

// eventRecord is an Event at rest, with what only the engine needs.
type eventRecord struct {
	Event
	Reference []byte `json:"reference,omitempty"` // wire.FileReference
	Group     []byte `json:"group,omitempty"`
}

// log appends an event.
func (c *change) log(r *eventRecord) error {
	if r.Label != nil {
		r.Marking = r.Label.Marking
	}
	c.meta.Events++
	r.Cursor = c.meta.cursor(c.meta.Events)
	return putJSON(c.Tx, tableEvent, nil, vault.Numbered(c.meta.Events), r)
}

// note appends an event of a conversation.
func (e *Engine) note(c *change, conv *conversation, ev Event) error {
	ev.Conversation, ev.Name = conv.ID, conv.Name
	return c.log(&eventRecord{Event: ev})
}

func (e *Engine) noteJoined(c *change, conv *conversation, g *mls.Group, by identity.DeviceID) error {
	ev := Event{Kind: EventJoined, Time: e.now(), Epoch: g.Epoch()}
	list, err := e.members(g)
	if err != nil {
		return err
	}
	for _, m := range list {
		ev.Members = append(ev.Members, Member{Address: m.Address.String(), Device: m.Device})
		if m.Device == by {
			ev.From, ev.Device = m.Address.String(), m.Device
		}
	}
	return e.note(c, conv, ev)
}

func (e *Engine) logReceived(c *change, conv *conversation, m *arrival) error {
	r := &eventRecord{Group: conv.Group, Event: Event{
		Conversation: conv.ID, Name: conv.Name, From: m.from.Address.String(), Device: m.from.Device,
		Sequence: m.header.Sequence, Epoch: m.delivery.Epoch, Taken: time.UnixMilli(int64(m.delivery.Time)), Label: m.label, Precedence: urgency(m.header.Precedence),
	}}
	if err := r.fill(m.content); err != nil {
		r.Kind, r.Reason = EventRefused, reasonContent
	}
	return c.log(r)
}

func (e *Engine) logSent(c *change, in *intent, s *slot) error {
	content, err := wire.ParseContent(in.Content)
	if err != nil || content.MediaType == wire.MediaResend || content.MediaType == mediaSuccessor {
		return err
	}
	r := &eventRecord{Group: s.Group, Event: Event{
		Conversation: s.Conversation, From: e.cfg.Address.String(), Device: e.self, Outgoing: true, Sequence: s.Sequence, Epoch: s.Epoch, Taken: e.now(), Label: e.labelOf(in.Mark), Precedence: urgency(in.Mark.Precedence),
	}}
	if conv := e.conversations[s.Conversation]; conv != nil {
		r.Name = conv.Name
	}
	if err := r.fill(content); err != nil {
		return err
	}
	if r.Kind == EventFile {
		if err := e.oweFile(c, r, true); err != nil {
			return err
		}
	}
	return c.log(r)
}

// fill shows a content as an event.
func (r *eventRecord) fill(content *wire.Content) error {
	r.ID, r.InReplyTo = content.ID, content.InReplyTo
	r.Time = time.UnixMilli(int64(content.Time))
	switch content.MediaType {
	case wire.MediaText:
		if !utf8.Valid(content.Body) {
			return errors.New("text that is not UTF-8")
		}
		r.Kind, r.Text = EventMessage, string(content.Body)
	case wire.MediaFile:
		ref, err := wire.ParseFileReference(content.Body)
		if err != nil {
			return err
		}
		if err := file.Check(ref); err != nil {
			return err
		}
		r.Kind, r.Reference = EventFile, content.Body
		r.File = &FileInfo{Name: file.CleanName(string(ref.Name)), Size: ref.PlainSize, SHA256: hex.EncodeToString(ref.PlainHash[:]), MediaType: ref.MediaType}
	default:
		r.Kind, r.MediaType = EventOther, content.MediaType
	}
	return nil
}

// cursor names event n: the life that it happened in, and its number. After a
// directory was copied back numbers are given a second time, in another life.
func (m *meta) cursor(n uint64) string {
	for _, l := range slices.Backward(m.Lives) {
		if n > l.After {
			return l.Name + "." + strconv.FormatUint(n, 10)
		}
	}
	return "." + strconv.FormatUint(n, 10)
}

// position is the number after which events follow a cursor. In a life that this
// vault knows a part of, it is at most that part's end; a life that it does not know
// tells nothing, and everything follows.
func (m *meta) position(cursor string) (uint64, error) {
	if cursor == "" {
		return 0, nil
	}
	name, digits, ok := strings.Cut(cursor, ".")
	n, err := strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("cursor %.40q: not one that receive has printed", cursor)
	}
	for i, l := range m.Lives {
		if l.Name != name {
			continue
		}
		end := m.Events
		if i+1 < len(m.Lives) {
			end = m.Lives[i+1].After
		}
		return min(n, end), nil
	}
	return 0, nil
}

// A Query selects events.
type Query struct {
	After        string         // cursor; empty for the beginning
	Latest       bool           // begin with what comes from now on; After is ignored
	Conversation ConversationID // zero for all
	Limit        int            // 0 means 256
}

// Events returns events in order, and the cursor to go on from, which may be beyond
// the last event returned.
func (e *Engine) Events(ctx context.Context, q Query) ([]Event, string, error) {
	e.mu.Lock()
	m := e.meta.clone()
	e.mu.Unlock()
	if q.Latest {
		return nil, m.cursor(m.Events), nil
	}
	at, err := m.position(q.After)
	if err != nil {
		return nil, "", err
	}
	if q.Limit <= 0 || q.Limit > 256 {
		q.Limit = 256
	}
	var out []Event
	err = e.cfg.Vault.View(ctx, func(tx *vault.Tx) error {
		out = nil
		cells, err := tx.Range(tableEvent, nil, at, q.Limit)
		if err != nil {
			return err
		}
		for _, c := range cells {
			r, err := decode[eventRecord](tableEvent, c.Value)
			if err != nil {
				return err
			}
			at = vault.Number(c.Row)
			if q.Conversation == (ConversationID{}) || r.Conversation == q.Conversation {
				out = append(out, r.Event)
			}
		}
		return nil
	})
	if at == 0 {
		return out, "", err
	}
	return out, m.cursor(at), err
}
