// SPDX-License-Identifier: Apache-2.0

package file

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"

	"valise/wire"
)

// What callers act on.
var (
	// ErrSourceChanged: the file is no longer the one that was measured.
	ErrSourceChanged = errors.New("the file was changed while it was being sent: send it again")
	// ErrAltered: what arrived is not what the sender sealed.
	ErrAltered = errors.New("the file that arrived is not what was sent")
	// ErrReference: a file reference contradicts itself.
	ErrReference = errors.New("the message's description of the file is not valid")
	// ErrGone: an OpenFunc's error that says that the file is nowhere any more.
	ErrGone = errors.New("the gateway does not have the file any more: ask for it to be sent again")
	// ErrNames: a folder has a file under each name that this one could be given.
	ErrNames = errors.New("too many files of this name: move some away")
	// ErrTooLarge: over MaxSize.
	ErrTooLarge = fmt.Errorf("the file is larger than %d MiB, the most that can be sent", MaxSize>>20)
)

// A cutter knows where a file's chunks lie.
type cutter struct {
	aead  cipher.AEAD
	chunk uint64
	plain uint64
}

func newCutter(key *[32]byte, chunk uint32, plain uint64) (*cutter, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &cutter{aead: aead, chunk: uint64(chunk), plain: plain}, nil
}

// count is the number of chunks: at least one.
func (c *cutter) count() uint64 { return max(1, (c.plain+c.chunk-1)/c.chunk) }

// sealed is the size of the ciphertext.
func (c *cutter) sealed() uint64 { return c.plain + c.count()*overhead }

// length is the plaintext size of chunk i.
func (c *cutter) length(i uint64) int { return int(min(c.chunk, c.plain-i*c.chunk)) }

func (c *cutter) nonce(i uint64) []byte {
	n := make([]byte, 12)
	binary.BigEndian.PutUint32(n[7:11], uint32(i))
	if i == c.count()-1 {
		n[11] = 1
	}
	return n
}

func (c *cutter) seal(dst []byte, i uint64, plain []byte) []byte {
	return c.aead.Seal(dst, c.nonce(i), plain, nil)
}

func (c *cutter) open(dst []byte, i uint64, sealed []byte) ([]byte, error) {
	out, err := c.aead.Open(dst, c.nonce(i), sealed, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: chunk %d of %d does not open", ErrAltered, i+1, c.count())
	}
	return out, nil
}

// Check says whether a file reference is one that can be fetched: its sizes fit
// together and are within bounds.
func Check(ref *wire.FileReference) error {
	switch {
	case ref.ChunkSize < minChunk || ref.ChunkSize > maxChunk:
		return fmt.Errorf("%w: chunks of %d bytes", ErrReference, ref.ChunkSize)
	case ref.PlainSize > MaxSize:
		return ErrTooLarge
	}
	c := cutter{chunk: uint64(ref.ChunkSize), plain: ref.PlainSize}
	if c.sealed() != ref.Size {
		return fmt.Errorf("%w: %d bytes cannot be the sealed form of %d", ErrReference, ref.Size, ref.PlainSize)
	}
	return nil
}
