// SPDX-License-Identifier: Apache-2.0

package wire

import "golang.org/x/crypto/cryptobyte"

// A Precedence orders deliveries of different conversations.
type Precedence uint8

// The precedences of military messaging (ACP 127, ACP 123).
const (
	Routine   Precedence = 0
	Priority  Precedence = 1
	Immediate Precedence = 2
	Flash     Precedence = 3
)

// String names a precedence as rules and people do.
func (p Precedence) String() string {
	if p > Flash {
		return "unknown"
	}
	return [...]string{"routine", "priority", "immediate", "flash"}[p]
}

// A Header stands in authenticated_data of every content message: the gateway
// reads it, the sender's card signs it, the recipient checks it.
// See spec/message.md, Section 2.
//
//	struct {
//	    uint8 version = 1;
//	    opaque policy<0..64>;
//	    opaque policy_hash<0..32>;
//	    uint8 labelled;
//	    opaque label<0..2^16-1>;
//	    uint8 precedence;
//	    uint64 sequence;
//	} Header;
type Header struct {
	Policy     []byte // policy id: DER contents of its object identifier
	PolicyHash []byte // SHA-256 of the policy bundle decided under, 32 bytes or none
	Labelled   bool   // false is an explicit "unlabelled"
	Label      []byte // canonical label
	Precedence Precedence
	Sequence   uint64 // the sender's own count in this conversation, from 1
}

func (h *Header) fields(f field) {
	version := uint8(1)
	f.u8(&version)
	f.check(version == 1)
	f.opaque(&h.Policy, 0, 64)
	f.opaque(&h.PolicyHash, 0, 32)
	f.flag(&h.Labelled)
	f.opaque(&h.Label, 0, MaxLabel)
	f.u8((*uint8)(&h.Precedence))
	f.u64(&h.Sequence)
	// A label needs its policy, and nothing else may carry one: an unlabelled
	// message has exactly one encoding of that fact.
	f.check(h.Labelled == (len(h.Label) > 0) && h.Labelled == (len(h.Policy) > 0))
	f.check(len(h.PolicyHash) == 0 || len(h.PolicyHash) == 32)
	f.check(h.Precedence <= Flash && h.Sequence > 0)
}

// ParseHeader parses authenticated_data.
func ParseHeader(data []byte) (*Header, error) {
	h := new(Header)
	if err := parse(data, h, "message header"); err != nil {
		return nil, err
	}
	return h, nil
}

// Marshal encodes h.
func (h *Header) Marshal() ([]byte, error) { return marshal(h, "message header") }

// ReadHeader is ParseHeader for who asks at every message: it allocates nothing, and
// what it returns refers to data.
func ReadHeader(data []byte) (h Header, err error) {
	s := cryptobyte.String(data)
	var version, labelled, precedence uint8
	var policy, hash, label cryptobyte.String
	ok := s.ReadUint8(&version) && s.ReadUint8LengthPrefixed(&policy) && s.ReadUint8LengthPrefixed(&hash) && s.ReadUint8(&labelled) &&
		s.ReadUint16LengthPrefixed(&label) && s.ReadUint8(&precedence) && s.ReadUint64(&h.Sequence) && s.Empty()
	h.Policy, h.PolicyHash, h.Labelled, h.Label = some(policy), some(hash), labelled == 1, some(label)
	h.Precedence = Precedence(precedence)
	if !ok || version != 1 || labelled > 1 || len(policy) > 64 || len(label) > MaxLabel || len(hash) != 0 && len(hash) != 32 ||
		h.Labelled != (len(label) > 0) || h.Labelled != (len(policy) > 0) || h.Precedence > Flash || h.Sequence == 0 {
		return Header{}, errHeader
	}
	return h, nil
}

var errHeader = malformed("message header")

// some is nil for nothing.
func some(s cryptobyte.String) []byte {
	if len(s) == 0 {
		return nil
	}
	return s
}
