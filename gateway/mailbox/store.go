// SPDX-License-Identifier: Apache-2.0

package mailbox

import (
	"context"
	"errors"
	"math"
	"time"
)

// A Device is a device id.
type Device = [32]byte

// A Kind says what a message is; the numbers are those of wire.DeliveryKind.
type Kind uint8

// The kinds of mail.
const (
	Content Kind = 1
	Commit  Kind = 2
	Welcome Kind = 3
	// Expired stands in a mailbox in the place of content that was not fetched in
	// time, and Undelivered is what its sender gets. Their payloads are notice.go's.
	Expired     Kind = 4
	Undelivered Kind = 5
	// Restored says to a device that the store was put back into an earlier state. It
	// stands for all numbers since the entry before it.
	Restored Kind = 6
	// Withheld stands in a mailbox in the place of content that its device may not have
	// any more, and Forbidden is what its sender gets: as Expired and Undelivered.
	Withheld  Kind = 7
	Forbidden Kind = 8
)

// LostEpoch is the epoch of a group that does not go on, because the store that knew
// it was restored: every submission for it is refused as for an unknown one, and only
// its files can still be read.
const LostEpoch = math.MaxInt64

// A Submission is one request of a device and all that follows from it.
type Submission struct {
	Device      Device
	Incarnation [16]byte
	Counter     uint64
	Hash        [32]byte
	Time        time.Time
	Precedence  uint8 // that of wire.Header: what is higher goes first within a batch
	// Turn is Standing.Turn of the connection that it came over: when the device has arrived
	// once more since, the submission is Moved. 0: it is not looked at.
	Turn uint64

	// Require, if set, is the epoch at which the group must stand.
	Require *Epoch
	// Step, if set, founds a group or moves it to its next epoch.
	Step *Step
	// Messages are stored once each and put into their recipients' mailboxes,
	// in this order.
	Messages []Message
	// KeyPackages are published for Device.
	KeyPackages []KeyPackage
}

// An Epoch names a group at one moment.
type Epoch struct {
	Group []byte
	Epoch uint64
}

// A Step founds a group (Create) or takes it from epoch From to epoch To.
type Step struct {
	Group   []byte
	Create  bool
	From    uint64
	To      uint64
	Records []Record // of the public state; a nil value deletes
	Info    []byte   // GroupInfo of the new epoch
	Joined  []Device // that stand in the tree from now on
	Left    []Device // that stood in it until now
}

// A Record is one piece of a group's public state.
type Record struct {
	Key   string
	Value []byte
}

// A Message is relayed unread.
type Message struct {
	Kind    Kind
	Group   []byte
	Epoch   uint64
	Payload []byte
	To      []Device
}

// A KeyPackage is one device's offer to be added to a group.
type KeyPackage struct {
	Device     Device
	Suite      uint16
	LastResort bool
	Expires    int64 // seconds since 1970
	Package    []byte
}

// A Verdict says what became of a submission.
type Verdict uint8

// The verdicts. All but Done and Repeated mean that nothing has changed.
const (
	Done           Verdict = iota
	Repeated               // done before, with the same bytes
	StateConflict          // done before, with other bytes
	CounterGap             // an earlier counter is missing
	OldIncarnation         // another incarnation has replaced this one
	UnknownGroup
	GroupExists
	StaleEpoch       // Outcome.Epoch says where the group stands
	MailboxFull      // Outcome.Device says whose
	UnknownRecipient // Outcome.Device says who
	TooManyPackages
	Barred // the device is quarantined or purged
	Moved  // the device has arrived once more since, at another gateway
)

// An Outcome is a verdict and what belongs to it.
type Outcome struct {
	Verdict Verdict
	Epoch   uint64
	Device  Device
	Placed  []Placed // Done: where each message went
}

// OK says whether the submission's effect is on disk.
func (o Outcome) OK() bool { return o.Verdict == Done || o.Verdict == Repeated }

// Placed says which number a message has in one device's mailbox.
type Placed struct {
	Device  Device
	Number  uint64
	Message int // index in Submission.Messages
}

// An Entry is one message in one device's mailbox. Numbers rise by one, but for an
// entry of kind Expired, Withheld or Restored, which stands for all numbers up to its own since
// the one before it.
type Entry struct {
	Number  uint64
	Kind    Kind
	Group   []byte
	Epoch   uint64
	Sender  Device
	Time    int64 // milliseconds since 1970
	Payload []byte
}

// An Ack says that a device has persisted everything up to a number.
type Ack struct {
	Device Device
	Number uint64
	// Turn is Standing.Turn of the connection that it came over: of an earlier one than the
	// newest nothing is acknowledged, for it may be another copy's. 0: it is not looked at.
	Turn uint64
}

// An Arrival is a device that has just connected.
type Arrival struct {
	Device      Device
	Address     string
	Chain       [][]byte
	Incarnation [16]byte
	Begin       bool
	Time        time.Time
}

// A Standing is what the store knows of a device after its arrival.
type Standing struct {
	Incarnation  [16]byte // current; all zero when there is none
	Began        bool     // this arrival began it
	Counter      uint64   // last submission done
	Last         uint64   // last delivery number assigned
	Acknowledged uint64
	KeyPackages  int // one-time ones left
	// Turn rises with each arrival of the device, where other gateways use the store too; 0
	// where none do. See Seat.
	Turn uint64
}

// A Group is a group's stored public state.
type Group struct {
	ID      []byte
	Epoch   uint64
	Info    []byte
	Records []Record
}

// A Listing is a device that can be written to.
type Listing struct {
	Device  Device
	Address string
	Chain   [][]byte
}

// A Quota bounds what one device's mailbox holds. Commits and Welcomes may use
// twice as much: a group must be able to go on, and to remove the device.
type Quota struct {
	Messages int
	Bytes    int64
	Packages int // one-time KeyPackages per suite
}

// A Hold says what is kept from a device.
type Hold uint8

// The holds.
const (
	Free        Hold = 0
	Quarantined Hold = 1 // its mail waits; it gets nothing, submits nothing, is offered to nobody
	Purged      Hold = 2 // for ever: what it had is gone, and nothing more is kept for it
)

// A Loss is a row of messages that one device did not fetch in time, or may not have.
type Loss struct {
	Recipient   Device
	First, Last uint64 // their numbers in the recipient's mailbox
	Group       []byte
	Sender      Device
	Lost        []Lost
}

// Lost is one message that expired: by which submission of its sender it came, and
// when. Counter is 0 for one that was stored before this was kept.
type Lost struct {
	Incarnation [16]byte
	Counter     uint64
	Time        int64 // milliseconds since 1970
}

// Totals are the store's sizes, for metrics.
type Totals struct {
	Devices, Groups, Messages, Pointers, KeyPackages, Blobs int64
}

var (
	// ErrNotFound is returned for what is not stored.
	ErrNotFound = errors.New("mailbox: not found")
	// ErrQuota is returned for a file that its owner has no room for, and ErrRoom for
	// one that there is no room for at all.
	ErrQuota = errors.New("mailbox: quota is used up")
	ErrRoom  = errors.New("mailbox: no room for a file of this size")
	// ErrClaimed is returned for a file that another process writes at this moment.
	ErrClaimed = errors.New("mailbox: the file is being written by somebody else")
)

// A Store keeps it all. Every method is one transaction and returns when its
// writes are on disk. All but Apply may be called by any goroutine at any time;
// Apply has one caller.
type Store interface {
	// Apply does the acknowledgements, then the submissions in their order.
	// The check of a submission's counter comes before anything else. An error
	// means that nothing of the batch has happened, or that this is not known.
	Apply(ctx context.Context, batch []*Submission, acks []Ack) ([]Outcome, error)

	// Arrive records a device's certificate, begins an incarnation if asked
	// and if it was never seen before, and returns where the device stands.
	Arrive(ctx context.Context, a Arrival) (Standing, error)

	// Recall returns the hash of a submission that was done, or ErrNotFound.
	Recall(ctx context.Context, device Device, counter uint64) ([32]byte, error)

	// Last returns the highest number in a device's mailbox so far, 0 for none.
	Last(ctx context.Context, device Device) (uint64, error)

	// Read returns the mail after a number, in order, at most count entries
	// and, beyond the first, at most so many bytes of payload.
	Read(ctx context.Context, device Device, after uint64, count, bytes int) ([]Entry, error)

	// Urgent is Read of the content alone that came with one precedence, Immediate or
	// Flash. It does not look at what else is there, and costs nothing where there is
	// nothing urgent.
	Urgent(ctx context.Context, device Device, precedence uint8, after uint64, count, bytes int) ([]Entry, error)

	// TakeKeyPackages removes and returns one unexpired one-time KeyPackage of
	// each device, or returns its last resort; nothing of a device that is held.
	// left tells how many remain.
	TakeKeyPackages(ctx context.Context, suite uint16, devices []Device, now time.Time) (taken []KeyPackage, left map[Device]int, err error)

	// Devices lists the devices of an address that have published KeyPackages and
	// are Free.
	Devices(ctx context.Context, address string) ([]Device, error)

	// Known says which of the devices have ever arrived.
	Known(ctx context.Context, devices []Device) (map[Device]bool, error)

	// Directory lists Free devices with KeyPackages whose address has the prefix.
	Directory(ctx context.Context, prefix string, limit int) ([]Listing, error)

	// Group returns a group's state, or ErrNotFound. One of LostEpoch is shown as it
	// was.
	Group(ctx context.Context, id []byte) (*Group, error)

	// GroupsOf lists the ids of the groups in whose trees a device stands and that go on,
	// at most limit of them, in an order of their own in which new ones come last: those
	// that follow after. It begins after 0, and last is where it goes on. Groups that are
	// unlisted may be missing.
	GroupsOf(ctx context.Context, device Device, after int64, limit int) (ids [][]byte, last int64, err error)

	// Unlisted lists, as GroupsOf does, groups of which it is not known by device who
	// stands in them: they are from before this was kept.
	Unlisted(ctx context.Context, after int64, limit int) (ids [][]byte, last int64, err error)

	// List says who stands in an unlisted group's tree at an epoch. It does nothing if the
	// group is at another epoch by now.
	List(ctx context.Context, group []byte, epoch uint64, members []Device) error

	// Quarantine lays a hold on a device, or lifts it: its mail is kept, and Read
	// finds none of it; its KeyPackages are offered to nobody; what it submits is
	// Barred. It returns ErrNotFound for a device that never arrived, and changes
	// nothing for one that is purged.
	Quarantine(ctx context.Context, device Device, on bool) error

	// Purge deletes for good what a device has: mail, KeyPackages, unfinished files.
	// What marks its submissions and incarnations stays, so that nothing of its can
	// be brought in again, and mail to it is left out from now on. Finished files
	// belong to their groups and expire. One that was interrupted leaves the device
	// in quarantine, and is to be repeated.
	Purge(ctx context.Context, device Device) error

	// Holds returns the devices that are not Free.
	Holds(ctx context.Context) (map[Device]Hold, error)

	// Arrived lists all devices of an address that ever arrived, held or not.
	Arrived(ctx context.Context, address string) ([]Device, error)

	// Expire takes content that was stored before a moment out of the mailboxes, at
	// most so many messages, and says what was lost. In the same transaction
	// both ends are told: Expired takes the place of the mail, Undelivered goes into the
	// sender's mailbox. Commits and Welcomes stay.
	Expire(ctx context.Context, before time.Time, limit int) ([]Loss, error)

	// Withhold takes content out of one mailbox, by its numbers there, as Expire does, and
	// leaves Withheld in its place and Forbidden with its senders. What is not there any
	// more, or no content, is passed over.
	Withhold(ctx context.Context, device Device, numbers []uint64) ([]Loss, error)

	Blobs

	Totals(ctx context.Context) (Totals, error)
	// Tidy does maintenance that must stay off the commit path.
	Tidy(ctx context.Context) error
	Close() error
}
