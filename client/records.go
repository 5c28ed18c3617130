// SPDX-License-Identifier: Apache-2.0

package client

import (
	"encoding/json"
	"fmt"
	"slices"

	"valise/client/vault"
	"valise/identity"
	"valise/mls"
)

// The vault's tables, with parent and row of their cells.
const (
	tableMeta         = "meta"         // "", "meta": meta
	tableConversation = "conversation" // "", conversation id: conversation
	tableGroup        = "group"        // group id, record key: a record of mls
	tableRoster       = "roster"       // group id, epoch: the devices that could read it
	tablePackage      = "package"      // "", KeyPackageRef: packageRecord
	tableIntent       = "intent"       // "", number: intent
	tableSlot         = "slot"         // "", "slot": slot
	tableEvent        = "event"        // "", number: eventRecord
	tableSeen         = "seen"         // sender device, message id: nothing
	tableSent         = "sent"         // conversation id, sequence: sentRecord
	tableMine         = "mine"         // "", message id: Outcome
	tablePeer         = "peer"         // conversation id, device id: peer
	tableHealing      = "healing"      // "", group id: healing
	tableRefused      = "refused"      // "", group id of a successor that was refused: nothing
	tableTransfer     = "transfer"     // "", message id: transfer
	tableFile         = "file"         // "", blob id: fileRecord
	tableFetched      = "fetched"      // message id, folder: path
	tableRecord       = "record"       // "", "record": recordCell
	tableSubmitted    = "submitted"    // incarnation, counter: submitted
	tableVouched      = "vouched"      // "", SHA-256 of a certificate that is in the authority's record: nothing
)

// meta is what the engine knows about itself.
type meta struct {
	Incarnation []byte   `json:"incarnation"`      // 16 bytes
	Begun       bool     `json:"begun"`            // the gateway knows this incarnation
	Counter     uint64   `json:"counter"`          // last submission counter assigned
	Cursor      uint64   `json:"cursor"`           // last delivery persisted
	Copies      []copied `json:"copies,omitempty"` // deliveries beyond Cursor that were taken ahead, in order
	Ahead       bool     `json:"ahead,omitempty"`  // the gateway has forgotten submissions of this device
	Intents     uint64   `json:"intents"`          // number of the last intent
	Events      uint64   `json:"events"`           // number of the last event
	Lives       []life   `json:"lives"`
	LastResort  int64    `json:"last_resort"` // when the last-resort KeyPackage was made, Unix seconds
}

// A life is the time of one incarnation, as the log of events sees it: its events
// begin after number After and end where the next life begins.
type life struct {
	Name  string `json:"name"`
	After uint64 `json:"after"`
}

// The states of a conversation.
const (
	stateFounding  = "founding" // the gateway does not know its group yet
	stateActive    = "active"
	stateResync    = "resync"    // this device must come back by an external commit
	stateLeft      = "left"      // this device is no member any more
	stateFailed    = "failed"    // could not be founded
	stateBroken    = "broken"    // its group cannot go on; a successor is founded
	stateCandidate = "candidate" // not a conversation: a successor for which only its founder speaks
)

type conversation struct {
	ID       ConversationID `json:"id"`
	Name     string         `json:"name"`
	Group    []byte         `json:"group"`
	Former   [][]byte       `json:"former,omitempty"` // groups before Group, oldest first
	State    string         `json:"state"`
	Sequence uint64         `json:"sequence"` // last one given to a message of ours
	Started  int64          `json:"started"`
	Lost     bool           `json:"lost,omitempty"`    // the state was an older copy: ask everybody for more
	Unnamed  bool           `json:"unnamed,omitempty"` // made for a group that this device did not know
	With     []string       `json:"with,omitempty"`    // addresses it was started with, our own not among them
	Cleared  []string       `json:"cleared,omitempty"` // addresses of devices that were removed for their standing
	Why      string         `json:"why,omitempty"`     // of stateFailed
	Hint     string         `json:"hint,omitempty"`    // what to do about it
	Held     string         `json:"held,omitempty"`    // why what is written into it waits, as its person was told

	Predecessor []byte         `json:"predecessor,omitempty"` // group that Group succeeds; of stateBroken: that broke
	Broken      string         `json:"broken,omitempty"`      // why it broke, where this device has seen it
	Founding    uint64         `json:"founding,omitempty"`    // of stateBroken: this device's intent to found a successor
	Patient     int64          `json:"patient,omitempty"`     // until when, Unix seconds, a founder waits for members without KeyPackages
	FoundAfter  int64          `json:"found_after,omitempty"` // of stateBroken: when, Unix seconds; others first
	Unknowing   bool           `json:"unknowing,omitempty"`   // of a restored gateway: this device has seen nothing of what was forgotten
	Of          ConversationID `json:"of,omitzero"`           // of stateCandidate: the conversation
	Founder     member         `json:"founder,omitzero"`      // of stateCandidate

	// Unheard are the people who have not been heard in this successor, for whom what is
	// written in it waits, until UnheardUntil in Unix seconds if that is set.
	Unheard      []string `json:"unheard,omitempty"`
	UnheardUntil int64    `json:"unheard_until,omitempty"`
}

// A peer is another device in a conversation.
type peer struct {
	Last    uint64         `json:"last"`  // highest sequence seen
	Fresh   bool           `json:"fresh"` // Last means nothing: it joined or resynced
	Missing map[uint64]int `json:"missing,omitempty"`

	// Claimed has digests of the labels with which messages were delivered that did
	// not open, by their sequence.
	Claimed map[uint64][]byte `json:"claimed,omitempty"`
}

// Kinds of intents.
const (
	intentContent = "content"
	intentFound   = "found"
	intentAdd     = "add"
	intentRemove  = "remove"
)

// An intent is something to be submitted, in order within its conversation.
type intent struct {
	Number       uint64            `json:"number"`
	Kind         string            `json:"kind"`
	Conversation ConversationID    `json:"conversation"`
	Content      []byte            `json:"content,omitempty"`
	Sequence     uint64            `json:"sequence,omitempty"` // fixed once it was sealed
	Resend       bool              `json:"resend,omitempty"`
	Service      bool              `json:"service,omitempty"` // between devices: nobody reads it
	Mark         mark              `json:"mark,omitzero"`
	Addresses    []string          `json:"addresses,omitempty"`
	Packages     [][]byte          `json:"packages,omitempty"`
	Device       identity.DeviceID `json:"device,omitzero"`  // intentRemove: this one only
	Sealed       *slot             `json:"sealed,omitempty"` // refused for a reason that passes
	Bundle       []byte            `json:"bundle,omitempty"` // policy bundle that Sealed was labelled under
}

// Kinds of slots beyond those of intents.
const (
	slotCreate  = "create"
	slotCommit  = "commit"
	slotResync  = "resync"
	slotPublish = "publish"
)

// A slot is the one submission under way.
type slot struct {
	Kind         string         `json:"kind"` // intentContent or a slot kind
	Counter      uint64         `json:"counter"`
	Frame        []byte         `json:"frame"`  // as wire.Marshal made it
	Intent       uint64         `json:"intent"` // 0: none
	Conversation ConversationID `json:"conversation"`
	Group        []byte         `json:"group,omitempty"`
	Epoch        uint64         `json:"epoch,omitempty"`
	Sequence     uint64         `json:"sequence,omitempty"`
	Duty         bool           `json:"duty,omitempty"`  // removes devices that are out of good standing, or takes them back
	For          uint64         `json:"for,omitempty"`   // of Duty: the intent that somebody is taken back for
	Leaf         uint32         `json:"leaf,omitempty"`  // of who heals
	Delta        []byte         `json:"delta,omitempty"` // applied when the gateway has accepted it
	Events       []Event        `json:"events,omitempty"`
}

// A sentRecord is a content that may be asked for again.
type sentRecord struct {
	Content []byte `json:"content"`
	Mark    mark   `json:"mark,omitzero"`
	Group   []byte `json:"group"`
	Epoch   uint64 `json:"epoch"`
	Time    int64  `json:"time"`
}

type packageRecord struct {
	Package    []byte `json:"package"`
	Secrets    []byte `json:"secrets"`
	LastResort bool   `json:"last_resort"`
	Made       int64  `json:"made"`
}

// member is a device that belonged to a group in some epoch.
type member struct {
	Device  identity.DeviceID `json:"device"`
	Address identity.Address  `json:"address"`
}

func (m meta) clone() meta {
	m.Lives = slices.Clone(m.Lives)
	m.Copies = slices.Clone(m.Copies)
	return m
}

func getJSON[T any](tx *vault.Tx, table string, parent, row []byte) (*T, error) {
	raw, err := tx.Get(table, parent, row)
	if err != nil || raw == nil {
		return nil, err
	}
	return decode[T](table, raw)
}

func decode[T any](table string, raw []byte) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(raw, v); err != nil {
		return nil, fmt.Errorf("read a record of table %s: %w", table, err)
	}
	return v, nil
}

func putJSON(tx *vault.Tx, table string, parent, row []byte, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Put(table, parent, row, raw)
}

func listJSON[T any](tx *vault.Tx, table string, parent []byte) ([]*T, error) {
	cells, err := tx.List(table, parent)
	if err != nil {
		return nil, err
	}
	out := make([]*T, len(cells))
	for i, c := range cells {
		if out[i], err = decode[T](table, c.Value); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// putDelta writes what a change of a group changed.
func putDelta(tx *vault.Tx, group []byte, d mls.Delta) error {
	for _, r := range d {
		var err error
		if r.Value == nil {
			err = tx.Delete(tableGroup, group, []byte(r.Key))
		} else {
			err = tx.Put(tableGroup, group, []byte(r.Key), r.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
