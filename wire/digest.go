// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/sha256"
	"hash"
	"sync"
)

// Digest is what the gateway keeps of a submission to tell a repetition from a
// different request under the same counter: SHA-256 over the frame's type (one
// byte) and its body with the request id, the first four bytes, set to zero.
// See spec/wire.md, Section 5.
func Digest(s Submission) ([sha256.Size]byte, error) {
	frame, err := Marshal(s)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return DigestBody(s.Type(), frame[headSize:]), nil
}

// DigestBody is Digest of a submission whose body is at hand: as there is one
// encoding of everything, what was parsed need not be encoded again to be hashed.
// The body must have been parsed.
func DigestBody(t Type, body []byte) (sum [sha256.Size]byte) {
	h := digests.Get().(*digest)
	defer digests.Put(h)
	h.Reset()
	h.head[0] = byte(t)
	h.Write(h.head[:])
	h.Write(body[idSize:])
	h.Sum(h.sum[:0])
	return h.sum
}

// idSize is that of the request id that heads a submission.
const idSize = 4

// A digest is a hash and what it reads and writes, used again.
type digest struct {
	hash.Hash
	head [1 + idSize]byte // the type, and an id of zero
	sum  [sha256.Size]byte
}

var digests = sync.Pool{New: func() any { return &digest{Hash: sha256.New()} }}
