// SPDX-License-Identifier: Apache-2.0

package wire

// A Precedence orders deliveries of different conversations.
type Precedence uint8

// The precedences of military messaging (ACP 127, ACP 123).
const (
	Routine   Precedence = 0
	Priority  Precedence = 1
	Immediate Precedence = 2
	Flash     Precedence = 3
)

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
