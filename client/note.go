// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"

	"golang.org/x/crypto/cryptobyte"
)

// mediaSuccessor is the media type of a successorNote; the device handles it and shows
// nothing. See spec/message.md, Section 7.
const mediaSuccessor = "application/vnd.valise.successor"

// A successorNote is what each member says first in a successor group: that it goes
// on there, and from which of its sequence numbers on everybody should have all.
//
//	struct { uint8 version = 1; opaque predecessor<1..255>; uint64 since; } SuccessorNote;
type successorNote struct {
	Predecessor []byte
	Since       uint64 // at least 1
}

func (n *successorNote) marshal() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddUint8(1)
	b.AddUint8LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes(n.Predecessor) })
	b.AddUint64(n.Since)
	return b.Bytes()
}

func parseSuccessorNote(data []byte) (*successorNote, error) {
	s, n := cryptobyte.String(data), new(successorNote)
	var version uint8
	var former cryptobyte.String
	if !s.ReadUint8(&version) || version != 1 || !s.ReadUint8LengthPrefixed(&former) || former.Empty() ||
		!s.ReadUint64(&n.Since) || n.Since == 0 || !s.Empty() {
		return nil, errors.New("malformed successor note")
	}
	n.Predecessor = former
	return n, nil
}
