// SPDX-License-Identifier: Apache-2.0

package mls

import "time"

// A ContentType says what a message carries, RFC 9420, Section 6.
type ContentType uint8

const (
	ContentApplication ContentType = 1
	ContentProposal    ContentType = 2
	ContentCommit      ContentType = 3
)

// A Sealed message must be persisted with its Delta before it is sent.
type Sealed struct {
	Message []byte // MLSMessage
	Delta   Delta
}

// Encrypt seals content for the group, RFC 9420, Section 6.3. It signs once.
// authenticatedData travels in clear, signed and authenticated.
func (g *Group) Encrypt(plaintext, authenticatedData []byte) (*Sealed, error) { return nil, errUnbuilt }

// Propose makes a proposal for others to commit, as a PublicMessage. It signs
// once.
func (g *Group) Propose(p Proposal, authenticatedData []byte) (*Sealed, error) {
	return nil, errUnbuilt
}

// ProposeUpdate proposes new keys for this member, RFC 9420, Section 12.1.2.
// It signs twice.
func (g *Group) ProposeUpdate(authenticatedData []byte) (*Sealed, error) { return nil, errUnbuilt }

// A Received message.
type Received struct {
	Kind              ContentType
	Epoch             uint64
	Sender            Member // as of that epoch
	AuthenticatedData []byte
	Plaintext         []byte    // ContentApplication
	Proposal          *Proposal // ContentProposal; kept until the epoch ends
	Commit            *Staged   // ContentCommit; nothing has changed yet
	Delta             Delta     // ContentApplication and ContentProposal
}

// Receive opens an MLSMessage. A refused message changes nothing.
func (g *Group) Receive(message []byte, at time.Time) (*Received, error) { return nil, errUnbuilt }

// PadToClasses is the default padding: sizes are rounded up to multiples of
// 256 bytes up to 4 KiB, above to the next of eight steps in each power of two.
func PadToClasses(n int) int { return n }

// A WireFormat is a number of RFC 9420, Section 17.2.
type WireFormat uint16

const (
	WirePublicMessage  WireFormat = 1
	WirePrivateMessage WireFormat = 2
	WireWelcome        WireFormat = 3
	WireGroupInfo      WireFormat = 4
	WireKeyPackage     WireFormat = 5
)

// MessageInfo is what anybody can read in a PublicMessage or PrivateMessage,
// unverified.
type MessageInfo struct {
	Wire              WireFormat
	GroupID           []byte
	Epoch             uint64
	Content           ContentType
	AuthenticatedData []byte
}

// ParseMessageInfo reads the clear fields of an MLSMessage.
func ParseMessageInfo(message []byte) (*MessageInfo, error) { return nil, errUnbuilt }

// ParsePrivateMessageInfo is ParseMessageInfo that refuses all but a
// PrivateMessage.
func ParsePrivateMessageInfo(message []byte) (*MessageInfo, error) { return nil, errUnbuilt }
