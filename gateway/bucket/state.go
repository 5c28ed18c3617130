// SPDX-License-Identifier: Apache-2.0

package bucket

import (
	"crypto/sha256"
	"errors"

	"golang.org/x/crypto/cryptobyte"
)

// A state is what it takes to go on with an upload:
//
//	struct { uint8 version = 1; opaque upload<1..2048>; uint16 pieces; opaque chain[32]; } State;
//
// chain is SHA-256 over the chain before and the tag of the last piece.
type state struct {
	upload string
	pieces int
	chain  [32]byte
}

var errState = errors.New("bucket: malformed state of an upload")

func (s *state) marshal() ([]byte, error) {
	if len(s.upload) == 0 || len(s.upload) > maxUpload || s.pieces < 1 || s.pieces > maxPieces {
		return nil, errState
	}
	var b cryptobyte.Builder
	b.AddUint8(1)
	b.AddUint16LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes([]byte(s.upload)) })
	b.AddUint16(uint16(s.pieces))
	b.AddBytes(s.chain[:])
	return b.Bytes()
}

func parseState(data []byte) (*state, error) {
	s := cryptobyte.String(data)
	var version uint8
	var upload cryptobyte.String
	var pieces uint16
	out := new(state)
	if !s.ReadUint8(&version) || version != 1 || !s.ReadUint16LengthPrefixed(&upload) || len(upload) == 0 || len(upload) > maxUpload ||
		!s.ReadUint16(&pieces) || pieces == 0 || pieces > maxPieces || !s.CopyBytes(out.chain[:]) || !s.Empty() {
		return nil, errState
	}
	out.upload, out.pieces = string(upload), int(pieces)
	return out, nil
}

// add continues the chain with a piece's tag.
func (s *state) add(tag string) {
	h := sha256.New()
	h.Write(s.chain[:])
	h.Write([]byte(tag))
	h.Sum(s.chain[:0])
	s.pieces++
}
