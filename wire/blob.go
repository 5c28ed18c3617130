// SPDX-License-Identifier: Apache-2.0

package wire

// BlobPut opens an upload. The gateway answers BlobReady with the offset to go
// on from; the device sends the bytes from there to size, ends its side of the
// stream, and waits for a Result. See spec/wire.md, Section 8.
//
//	struct { opaque group<1..255>; opaque blob[32]; uint64 size; } BlobPut;
type BlobPut struct {
	Group []byte
	Blob  [32]byte // SHA-256 of the whole ciphertext
	Size  uint64
}

// Type implements Frame.
func (*BlobPut) Type() Type { return TypeBlobPut }

func (b *BlobPut) fields(f field) {
	f.opaque(&b.Group, 1, 255)
	f.fixed(b.Blob[:])
	f.u64(&b.Size)
	f.check(b.Size > 0 && b.Size <= MaxBlob)
}

// BlobGet asks for a blob's bytes from an offset to its end.
//
//	struct { opaque blob[32]; uint64 offset; } BlobGet;
type BlobGet struct {
	Blob   [32]byte
	Offset uint64
}

// Type implements Frame.
func (*BlobGet) Type() Type { return TypeBlobGet }

func (b *BlobGet) fields(f field) {
	f.fixed(b.Blob[:])
	f.u64(&b.Offset)
	f.check(b.Offset <= MaxBlob)
}

// BlobReady answers BlobPut and BlobGet. With a code other than OK the stream
// ends here.
//
//	struct { uint16 code; uint64 offset; uint64 size; } BlobReady;
type BlobReady struct {
	Code   Code
	Offset uint64 // where the raw bytes begin
	Size   uint64 // the whole blob's size
}

// Type implements Frame.
func (*BlobReady) Type() Type { return TypeBlobReady }

func (b *BlobReady) fields(f field) {
	f.u16((*uint16)(&b.Code))
	f.u64(&b.Offset)
	f.u64(&b.Size)
	f.check(b.Offset <= b.Size && b.Size <= MaxBlob)
}
