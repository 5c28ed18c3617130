// SPDX-License-Identifier: Apache-2.0

package mailbox

import (
	"context"
	"errors"
	"time"
)

// News is what one of several gateways on a store has done and the others are to know at
// once. It only says where to look: what is so, the store says. All of it may be lost with
// the gateway that was to tell it, so nobody may depend on it.
type News struct {
	Mail    []Letter // mailboxes in which something has changed
	Groups  [][]byte // have been founded or moved to another epoch
	Arrived []Seat   // devices that have connected
	Notices []Notice // for devices that are not connected to this gateway
	Law     uint64   // holds have been laid and lifted as the bulletin of this number says; 0: none have
	// All says that news may have been missed: whatever is in memory may be old, and any
	// mailbox may have something new in it.
	All bool
}

// A Letter says that something has come into a device's mailbox.
type Letter struct {
	Device     Device
	Number     uint64 // the highest that it may have; 0: not known
	Precedence uint8  // Immediate or Flash if some of it is that urgent; others say nothing
}

// A Notice is something that a device is to be told if it is connected: a wire.NoticeCode.
type Notice struct {
	Device Device
	Code   uint8
}

// A Seat is one arrival of a device. Turn rises with each, at whatever gateway: the
// connection of a lower one is over.
type Seat struct {
	Device Device
	Turn   uint64
}

// A Node is a Store whose database other gateways use at the same time. All decisions are
// made under locks in the database, so whatever they do at once is as if one had done it
// after the other; what a gateway keeps in memory beside it (groups, holds) may be old
// at any moment. The [Box] follows what the others tell and hands it on to Config.Hear.
type Node interface {
	Store

	// Follow calls hear for what the others tell, one after the other, until ctx ends. It
	// listens on a connection of its own and comes back by itself when that is lost; then
	// the first that is heard is All. It returns an error only if it can never listen.
	Follow(ctx context.Context, hear func(News)) error
	// Deaf says why nothing is heard now: what is in memory may be old, and nobody says so.
	// It is not nil from the loss of the connection until hear has returned from All.
	Deaf() error
	// Tell has the others told, after the transaction that it is about: never in it. It
	// does not wait; what comes together goes out together, and what is too much becomes All.
	Tell(News)

	// Latest returns the last number in each of some mailboxes; none for a device that
	// never arrived. It is Last for those who wait for news that may have been lost.
	Latest(ctx context.Context, devices []Device) (map[Device]uint64, error)
	// Moved says which of some devices have arrived once more since: what Arrived would have
	// said if it had not been lost.
	Moved(ctx context.Context, seats []Seat) ([]Device, error)

	// Epochs returns the epochs at which some groups stand now, LostEpoch included; none for a
	// group that is not known. It is what tells a group in memory from an old one.
	Epochs(ctx context.Context, groups [][]byte) (map[string]uint64, error)

	// Govern says by which bulletin this gateway lays and lifts holds from now on. After a
	// newer one was laid by another gateway, it returns ErrOlderLaw, and so do Quarantine and
	// Purge until this one has it too. The same is returned to who would lift a hold that was
	// laid under the very bulletin that he has: another gateway obeys a statement that he
	// has not heard of yet. Without a call, everything is laid and lifted as asked.
	Govern(ctx context.Context, law uint64) error

	// Turn says that housekeeping of some kind is this gateway's until done is called, so that
	// not all do the same at once. It returns ErrOthersTurn while another one does it. One that
	// ends, however, gives it back. No more than a few may be taken at a time.
	Turn(ctx context.Context, task string) (done func(), err error)

	// TransportKeys returns the keys that the gateways share, and makes them if there are none.
	TransportKeys(ctx context.Context) (TransportKeys, error)

	// Nodes lists the gateways that use the database or have used it.
	Nodes(ctx context.Context) ([]NodeSign, error)
}

var (
	// ErrOlderLaw is returned when another gateway has laid holds by a newer bulletin.
	ErrOlderLaw = errors.New("mailbox: another gateway has laid holds by a newer bulletin, or obeys a statement that has not come here yet")
	// ErrOthersTurn is returned when another gateway does some housekeeping now.
	ErrOthersTurn = errors.New("mailbox: another gateway does this at the moment")
)

// TransportKeys are shared by gateways behind one address: with them any can tell a device
// at once that its connection is gone, and takes the address tokens that another gave out.
// They protect no content (RFC 9000, Sections 8.1.3 and 10.3).
type TransportKeys struct {
	Reset   [32]byte  // of stateless resets
	Token   [32]byte  // of address tokens
	Version uint64    // rises when they are exchanged
	Made    time.Time // when they were
}

// A NodeSign is what is known of one gateway on a database.
type NodeSign struct {
	Name    string
	Version string    // of the program
	Started time.Time // when it began
	Seen    time.Time // its last sign of life
	Alive   bool      // it holds its name now
}
