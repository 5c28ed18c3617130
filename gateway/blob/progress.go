// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"errors"

	"golang.org/x/crypto/cryptobyte"
)

// A progress is what it takes to go on with a partial file, kept in its record:
//
//	struct { uint8 version = 1; opaque hash<1..255>; opaque place<0..4096>; } Progress;
//
// hash is the state of SHA-256 over what has arrived, and place what the Place says.
type progress struct{ hash, place []byte }

var errProgress = errors.New("blob: malformed progress of an upload")

func (p *progress) marshal() ([]byte, error) {
	if len(p.hash) == 0 || len(p.hash) > maxHash || len(p.place) > maxProgress {
		return nil, errProgress
	}
	var b cryptobyte.Builder
	b.AddUint8(1)
	b.AddUint8LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes(p.hash) })
	b.AddUint16LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes(p.place) })
	return b.Bytes()
}

func parseProgress(data []byte) (*progress, error) {
	s := cryptobyte.String(data)
	var version uint8
	var hash, place cryptobyte.String
	if !s.ReadUint8(&version) || version != 1 || !s.ReadUint8LengthPrefixed(&hash) || len(hash) == 0 ||
		!s.ReadUint16LengthPrefixed(&place) || len(place) > maxProgress || !s.Empty() {
		return nil, errProgress
	}
	return &progress{hash: hash, place: place}, nil
}
