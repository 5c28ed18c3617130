// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// A Kind says what an entry records.
type Kind uint8

// The kinds and their payloads. Their numbers never change.
const (
	KindIssuance  Kind = 1 // the authority decided to sign a certificate: its TBSCertificate in DER
	KindStatement Kind = 2 // an officer's statement: its compact JWS
	KindManifest  Kind = 3 // a manifest under the root's signature: its compact JWS
	KindFounding  Kind = 4 // how the authority began, under the root's signature: its compact JWS
)

var kindNames = [...]string{KindIssuance: "issuance", KindStatement: "statement", KindManifest: "manifest", KindFounding: "founding"}

func (k Kind) known() bool { return k >= KindIssuance && k <= KindFounding }

func (k Kind) String() string {
	if k.known() {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// EntrySize is the size of an encoded entry of version 2.
const EntrySize = 2 + 8 + 32 + sha256.Size

const leafVersion = 1

// An Entry is one decision.
//
//	struct {
//	    uint8  version = 2;
//	    uint8  kind;           // 1: issuance, 2: statement, 3: manifest, 4: founding
//	    uint64 time;           // when it was decided, seconds since 1970, never 0
//	    opaque salt[32];       // random
//	    opaque subject[32];    // SHA-256 of the payload
//	} Entry;
//
// Version 1 knew issuances only and had no time; an entry whose Time is zero
// is one.
type Entry struct {
	Kind    Kind
	Time    time.Time // whole seconds in UTC; never decreasing along a record
	Salt    [32]byte
	Subject [sha256.Size]byte
}

// NewEntry returns the entry of a decision taken at a time, under a fresh
// salt. Fractions of a second are cut off.
func NewEntry(k Kind, payload []byte, at time.Time) (*Entry, error) {
	switch {
	case !k.known():
		return nil, fmt.Errorf("ledger: recording a payload of unknown %v", k)
	case len(payload) == 0:
		return nil, fmt.Errorf("ledger: %v without a payload", k)
	case len(payload) > MaxPayload:
		return nil, fmt.Errorf("ledger: %v with a payload of %d bytes, at most %d are recorded", k, len(payload), MaxPayload)
	case at.Unix() <= 0 || at.Unix() > maxTime:
		return nil, fmt.Errorf("ledger: %v at %v: time out of range", k, at)
	}
	e := &Entry{Kind: k, Time: time.Unix(at.Unix(), 0).UTC(), Subject: sha256.Sum256(payload)}
	rand.Read(e.Salt[:])
	return e, nil
}

// NewIssuance returns the entry, of version 1, of a certificate that is going
// to be signed, given its TBSCertificate in DER.
func NewIssuance(tbs []byte) (*Entry, error) {
	if len(tbs) == 0 {
		return nil, errors.New("ledger: no certificate to record")
	}
	e := &Entry{Kind: KindIssuance, Subject: sha256.Sum256(tbs)}
	rand.Read(e.Salt[:])
	return e, nil
}

// Records reports whether e is the entry of this payload: for an issuance, the
// TBSCertificate in DER.
func (e *Entry) Records(payload []byte) bool {
	return e.Subject == sha256.Sum256(payload)
}

// Marshal returns the entry's encoding.
func (e *Entry) Marshal() []byte {
	b := cryptobyte.NewFixedBuilder(make([]byte, 0, EntrySize))
	if e.Time.IsZero() {
		b.AddUint8(1)
		b.AddUint8(uint8(e.Kind))
	} else {
		b.AddUint8(2)
		b.AddUint8(uint8(e.Kind))
		b.AddUint64(uint64(e.Time.Unix()))
	}
	b.AddBytes(e.Salt[:])
	b.AddBytes(e.Subject[:])
	return b.BytesOrPanic()
}

// ParseEntry reads an entry; it accepts exactly what Marshal writes.
func ParseEntry(data []byte) (*Entry, error) {
	var (
		s             = cryptobyte.String(data)
		e             Entry
		version, kind uint8
		at            uint64
	)
	if !s.ReadUint8(&version) || !s.ReadUint8(&kind) {
		return nil, fmt.Errorf("ledger: an entry of %d bytes", len(data))
	}
	e.Kind = Kind(kind)
	switch {
	case version == 1 && e.Kind == KindIssuance:
	case version == 2 && e.Kind.known():
		if !s.ReadUint64(&at) || at == 0 || at > maxTime {
			return nil, errors.New("ledger: entry without a time, or with one out of range")
		}
		e.Time = time.Unix(int64(at), 0).UTC()
	default:
		return nil, fmt.Errorf("ledger: entry of unknown version %d or kind %d", version, kind)
	}
	if !s.CopyBytes(e.Salt[:]) || !s.CopyBytes(e.Subject[:]) || !s.Empty() {
		return nil, fmt.Errorf("ledger: an entry of version %d does not have %d bytes", version, len(data))
	}
	return &e, nil
}

// MarshalText gives the encoding in base64, which is how an entry travels in
// JSON.
func (e *Entry) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, e.Marshal()), nil
}

// UnmarshalText reads what MarshalText writes.
func (e *Entry) UnmarshalText(text []byte) error {
	data, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil {
		return fmt.Errorf("ledger: entry is not base64: %w", err)
	}
	got, err := ParseEntry(data)
	if err != nil {
		return err
	}
	*e = *got
	return nil
}

// LeafSize is the size of a leaf.
const LeafSize = 1 + sha256.Size

// A Leaf is what the tree holds of an entry.
//
//	struct { uint8 version = 1; opaque commitment[32]; } Leaf;
//	commitment = SHA-256("valise ledger leaf 1" 00 ‖ Entry)
type Leaf [LeafSize]byte

// Leaf returns the entry's leaf.
func (e *Entry) Leaf() Leaf {
	sum := sha256.Sum256(append([]byte("valise ledger leaf 1\x00"), e.Marshal()...))
	leaf := Leaf{leafVersion}
	copy(leaf[1:], sum[:])
	return leaf
}

// An Item is a leaf with all that it stands for: how the record travels
// between authority, gateway and auditor.
type Item struct {
	Index   int64  `json:"index"`
	Entry   *Entry `json:"entry"`
	Payload []byte `json:"payload"`
}
