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

// BlobDone says that a device is done with a file. From a recipient: the file is on its
// disk, and will not be asked for again. From the device that brought it: the message about
// it was taken, so those who stand in the group now are its recipients. When all of them
// are done, the gateway deletes the file. The answer is a Result.
//
//	struct { uint32 id; opaque blob[32]; } BlobDone;
type BlobDone struct {
	id
	Blob [32]byte
}

// Type implements Frame.
func (*BlobDone) Type() Type { return TypeBlobDone }

func (b *BlobDone) fields(f field) {
	f.u32(&b.ID)
	f.fixed(b.Blob[:])
}

// GetBlob asks what became of a file that the asker brought.
//
//	struct { uint32 id; opaque blob[32]; } GetBlob;
type GetBlob struct {
	id
	Blob [32]byte
}

// Type implements Frame.
func (*GetBlob) Type() Type { return TypeGetBlob }

func (b *GetBlob) fields(f field) {
	f.u32(&b.ID)
	f.fixed(b.Blob[:])
}

// What became of a file: BlobState.State.
const (
	BlobKept    = 0 // it is there
	BlobFetched = 1 // all recipients have it, and it was deleted
	BlobExpired = 2 // its time was over before that, and it was deleted
)

// BlobState answers GetBlob.
//
//	struct { uint32 id; uint8 state; uint32 have; uint32 of; uint64 until; } BlobState;
type BlobState struct {
	id
	State uint8
	Have  uint32 // so many recipients have it
	Of    uint32 // of so many; 0 before the device that brought it is done with it
	Until uint64 // when it expires, seconds since 1970; 0 if it is gone
}

// Type implements Frame.
func (*BlobState) Type() Type { return TypeBlobState }

// AnswerTo implements Answer.
func (b *BlobState) AnswerTo() uint32 { return b.ID }

func (b *BlobState) fields(f field) {
	f.u32(&b.ID)
	f.u8(&b.State)
	f.u32(&b.Have)
	f.u32(&b.Of)
	f.u64(&b.Until)
	f.check(b.State <= BlobExpired && b.Have <= b.Of && (b.State == BlobKept || b.Until == 0))
}
