// SPDX-License-Identifier: Apache-2.0

package wire

import "fmt"

// Protocol is the ALPN name of this protocol. A change that an older peer could
// misread takes a new name.
const Protocol = "valise/1"

// RenewProtocol is the ALPN name of a connection on which a device may do nothing but
// reach its authority, also shortly after its certificate has expired.
const RenewProtocol = "valise-renew/1"

// Version is the protocol version that Hello and Welcome carry.
const Version = 1

// A StreamKind is the first byte of every stream that a device opens.
type StreamKind uint8

// The kinds of streams. See spec/wire.md, Section 2.
const (
	StreamControl  StreamKind = 1
	StreamDelivery StreamKind = 2
	StreamBlobPut  StreamKind = 3
	StreamBlobGet  StreamKind = 4
	StreamTunnel   StreamKind = 5
	StreamAttach   StreamKind = 6
)

// A Code says how a request ended. Codes are coarse on purpose: the sender
// learns what to do next, the full reason goes to the gateway's audit stream.
type Code uint16

// The codes. See spec/wire.md, Section 6; a number is never used again for
// something else.
const (
	OK                Code = 0
	Malformed         Code = 1  // the request is not well formed; do not retry
	StateConflict     Code = 2  // counter already used for other bytes: this state is an old copy
	CounterGap        Code = 3  // an earlier request was refused; send again in order
	OldIncarnation    Code = 4  // another copy of this device has taken over
	NotMember         Code = 5  // the device is not in this group
	UnknownGroup      Code = 6  // no such group here
	GroupExists       Code = 7  // the group id is taken
	StaleEpoch        Code = 8  // the group has moved on; process deliveries, then try again
	InvalidCommit     Code = 9  // the commit breaks a rule of RFC 9420 or of the group
	InvalidKeyPackage Code = 10 // a KeyPackage is not valid or not this device's
	NotAllowed        Code = 11 // refused by policy or standing
	RecipientRefused  Code = 12 // a recipient may not receive this
	LabelRefused      Code = 13 // header or label not acceptable
	MailboxFull       Code = 14 // a recipient's mailbox is full; nothing was stored
	RateLimited       Code = 15 // too fast; wait
	TooLarge          Code = 16 // over a bound
	NotFound          Code = 17 // no such object, or none for this device
	HashMismatch      Code = 18 // the blob's bytes do not hash to its id
	Unavailable       Code = 19 // the gateway cannot do this now; retry the same bytes
	NoRecord          Code = 20 // the gateway holds no copy of the authority's record
	NotCovered        Code = 21 // the record that the gateway holds does not reach so far; ask again
	LabelRequired     Code = 22 // messages without a label are not carried
	BundleChanged     Code = 23 // the label was made under another bundle than the one in force
	NotCleared        Code = 24 // a recipient is not cleared for the label; the detail says which device
	CeilingLowered    Code = 25 // the device that is added would lower the conversation's ceiling; the detail says which
	NoBundle          Code = 26 // the gateway does not hold the policy bundle in force
	RemovalDue        Code = 27 // a member is no longer in good standing and must be removed first
	StandingsStale    Code = 28 // the gateway's standings are too old for this classification; later, or a lower one
	FileQuota         Code = 29 // the device's own files leave no room for this one
	NoRoom            Code = 30 // the gateway has no room for a file of this size now; later
)

var codeNames = [...]string{
	"ok", "malformed", "state_conflict", "counter_gap", "old_incarnation", "not_member", "unknown_group",
	"group_exists", "stale_epoch", "invalid_commit", "invalid_key_package", "not_allowed", "recipient_refused",
	"label_refused", "mailbox_full", "rate_limited", "too_large", "not_found", "hash_mismatch", "unavailable",
	"no_record", "not_covered", "label_required", "bundle_changed", "not_cleared", "ceiling_lowered", "no_bundle",
	"removal_due", "standings_stale", "file_quota", "no_room",
}

// String gives the code's name as audit streams and messages show it.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code_%d", uint16(c))
}

// Error lets a Code other than OK be returned as an error.
func (c Code) Error() string { return "gateway answered " + c.String() }

// A CloseCode is the application error code of a closed connection.
type CloseCode uint64

// The reasons to close a connection. See spec/wire.md, Section 7.
const (
	CloseNormal      CloseCode = 0
	CloseProtocol    CloseCode = 1 // the peer broke this protocol
	CloseNotAdmitted CloseCode = 2 // certificate or standing
	CloseReplaced    CloseCode = 3 // the same device connected again
	CloseShutdown    CloseCode = 4 // the gateway stops; connect again later
	CloseExpired     CloseCode = 5 // the device's certificate has run out
)
