// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// A file begins with a block of its own,
//
//	opaque magic[8] = "VALJRNL1"; opaque id[16]; uint64 first; opaque salt[16]; uint32 crc;
//
// first being the number of its first batch, and goes on with batches, each at
// the beginning of a block:
//
//	uint32 magic; uint32 length; uint64 seq; uint32 crc; opaque body[length];
//
// A batch's crc is CRC-32C of salt, length, seq and body. A file that is used again has
// older batches behind the newer ones; its new salt makes them unreadable.
const (
	headerSize  = 52
	saltSize    = 16
	recordMagic = 0x564a5202

	// Head is what Append wants to be left free before a body.
	Head = 20
)

var (
	fileMagic  = [8]byte{'V', 'A', 'L', 'J', 'R', 'N', 'L', '1'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// header is the first block of a file.
type header struct {
	id    [16]byte
	first uint64
	salt  [saltSize]byte
}

func newHeader(id [16]byte, first uint64) header {
	h := header{id: id, first: first}
	_, _ = rand.Read(h.salt[:]) // never fails
	return h
}

func (h *header) marshal() []byte {
	b := make([]byte, 0, block)
	b = append(b, fileMagic[:]...)
	b = append(b, h.id[:]...)
	b = binary.BigEndian.AppendUint64(b, h.first)
	b = append(b, h.salt[:]...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return b[:block]
}

func parseHeader(b []byte) (h header, err error) {
	if len(b) < headerSize || !bytes.Equal(b[:8], fileMagic[:]) ||
		crc32.Checksum(b[:headerSize-4], castagnoli) != binary.BigEndian.Uint32(b[headerSize-4:]) {
		return h, errors.New("its header is not readable")
	}
	copy(h.id[:], b[8:])
	h.first = binary.BigEndian.Uint64(b[24:])
	copy(h.salt[:], b[32:])
	if h.first == 0 {
		return h, errors.New("its header is not readable")
	}
	return h, nil
}

// seal fills in a batch's head, in the bytes left free for it, and adds zeros to
// the end of the block.
func seal(b []byte, salt [saltSize]byte, seq uint64) []byte {
	binary.BigEndian.PutUint32(b[0:], recordMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-Head))
	binary.BigEndian.PutUint64(b[8:], seq)
	binary.BigEndian.PutUint32(b[16:], checksum(salt, b[4:16], b[Head:]))
	if rest := len(b) % block; rest != 0 {
		b = append(b, make([]byte, block-rest)...)
	}
	return b
}

func checksum(salt [saltSize]byte, head, body []byte) uint32 {
	crc := crc32.Update(crc32.Checksum(salt[:], castagnoli), castagnoli, head)
	return crc32.Update(crc, castagnoli, body)
}

// blocks is how many bytes a batch takes up in a file.
func blocks(size int64) int64 { return (size + block - 1) / block * block }

// readRecord reads what lies at an offset, and whether it is a whole batch. buf
// is used for the body if it is large enough.
func readRecord(f io.ReaderAt, salt [saltSize]byte, at, size int64, buf []byte) (body []byte, seq uint64, ok bool, err error) {
	var h [Head]byte
	if at+Head > size {
		return nil, 0, false, nil
	}
	if _, err := f.ReadAt(h[:], at); err != nil {
		return nil, 0, false, err
	}
	length := int64(binary.BigEndian.Uint32(h[4:]))
	if binary.BigEndian.Uint32(h[0:]) != recordMagic || length > MaxBody || at+Head+length > size {
		return nil, 0, false, nil
	}
	if int64(cap(buf)) < length {
		buf = make([]byte, length)
	}
	body = buf[:length]
	if _, err := f.ReadAt(body, at+Head); err != nil {
		return nil, 0, false, err
	}
	ok = checksum(salt, h[4:16], body) == binary.BigEndian.Uint32(h[16:])
	return body, binary.BigEndian.Uint64(h[8:]), ok, nil
}
