// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// A Kind says what an entry records.
type Kind uint8

// KindIssuance records that the authority decided to sign a certificate; the
// subject is the SHA-256 of its TBSCertificate.
const KindIssuance Kind = 1

func (k Kind) String() string {
	if k == KindIssuance {
		return "issuance"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// EntrySize is the size of an encoded entry.
const EntrySize = 2 + 32 + sha256.Size

const (
	entryVersion = 1
	leafVersion  = 1
)

// An Entry is one decision.
//
//	struct {
//	    uint8  version = 1;
//	    uint8  kind;           // 1: issuance
//	    opaque salt[32];       // random
//	    opaque subject[32];    // SHA-256 of what the kind says
//	} Entry;
type Entry struct {
	Kind    Kind
	Salt    [32]byte
	Subject [sha256.Size]byte
}

// NewIssuance returns the entry of a certificate that is going to be signed,
// given its TBSCertificate in DER, under a fresh salt.
func NewIssuance(tbs []byte) (*Entry, error) {
	if len(tbs) == 0 {
		return nil, errors.New("ledger: no certificate to record")
	}
	e := &Entry{Kind: KindIssuance, Subject: sha256.Sum256(tbs)}
	rand.Read(e.Salt[:])
	return e, nil
}

// Records reports whether e is the issuance of the certificate with this
// TBSCertificate.
func (e *Entry) Records(tbs []byte) bool {
	return e.Kind == KindIssuance && e.Subject == sha256.Sum256(tbs)
}

// Marshal returns the entry's encoding, EntrySize bytes.
func (e *Entry) Marshal() []byte {
	b := make([]byte, 0, EntrySize)
	b = append(b, entryVersion, byte(e.Kind))
	b = append(b, e.Salt[:]...)
	return append(b, e.Subject[:]...)
}

// ParseEntry reads an entry; it accepts exactly what Marshal writes.
func ParseEntry(data []byte) (*Entry, error) {
	var (
		s             = cryptobyte.String(data)
		e             Entry
		version, kind uint8
	)
	if !s.ReadUint8(&version) || !s.ReadUint8(&kind) ||
		!s.CopyBytes(e.Salt[:]) || !s.CopyBytes(e.Subject[:]) || !s.Empty() {
		return nil, fmt.Errorf("ledger: an entry has %d bytes, these are %d", EntrySize, len(data))
	}
	if version != entryVersion || Kind(kind) != KindIssuance {
		return nil, fmt.Errorf("ledger: entry of unknown version %d or kind %d", version, kind)
	}
	e.Kind = Kind(kind)
	return &e, nil
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
