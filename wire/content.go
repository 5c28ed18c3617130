// SPDX-License-Identifier: Apache-2.0

package wire

// The media types that every Valise device understands. See spec/message.md,
// Section 4.
const (
	MediaText   = "text/plain; charset=utf-8"
	MediaFile   = "application/vnd.valise.file"   // body: FileReference
	MediaResend = "application/vnd.valise.resend" // body: ResendRequest
)

// A Content is the plaintext of a message: only the ends see it.
// See spec/message.md, Section 3.
//
//	struct {
//	    uint8 version = 1;
//	    opaque id[16];
//	    opaque media_type<1..127>;
//	    opaque in_reply_to[16];
//	    uint64 time;
//	    uint64 expiry;
//	    Extension extensions<0..2^24-1>;
//	    opaque body<0..2^24-1>;
//	} Content;
type Content struct {
	ID         [16]byte // random; the same when the message is sent again
	MediaType  string
	InReplyTo  [16]byte // all zero when it replies to nothing
	Time       uint64   // the sender's clock, milliseconds since 1970
	Expiry     uint64   // delete after this time; 0 for never
	Extensions []Extension
	Body       []byte
}

// An Extension adds to a content. A recipient that does not know a critical one
// refuses the message and says so.
//
//	struct { uint16 type; uint8 critical; opaque data<0..2^16-1>; } Extension;
type Extension struct {
	Type     uint16
	Critical bool
	Data     []byte
}

func (c *Content) fields(f field) {
	version := uint8(1)
	f.u8(&version)
	f.check(version == 1)
	f.fixed(c.ID[:])
	f.text(&c.MediaType, 1, 127)
	f.fixed(c.InReplyTo[:])
	f.u64(&c.Time)
	f.u64(&c.Expiry)
	f.list(len(c.Extensions), MaxExtensions, func() { c.Extensions = append(c.Extensions, Extension{}) }, func(i int) {
		e := &c.Extensions[i]
		f.u16(&e.Type)
		f.flag(&e.Critical)
		f.opaque(&e.Data, 0, 1<<16-1)
		f.check(i == 0 || c.Extensions[i-1].Type < e.Type)
	})
	f.opaque(&c.Body, 0, MaxMessage)
}

// ParseContent parses a message's plaintext.
func ParseContent(data []byte) (*Content, error) {
	c := new(Content)
	if err := parse(data, c, "message content"); err != nil {
		return nil, err
	}
	return c, nil
}

// Marshal encodes c.
func (c *Content) Marshal() ([]byte, error) { return marshal(c, "message content") }

// A FileReference is the body of a MediaFile content: where the sealed file is
// and how to open it. See spec/message.md, Section 5.
//
//	struct {
//	    opaque blob[32];
//	    uint64 size; uint64 plain_size; uint32 chunk;
//	    opaque key[32];
//	    opaque plain_hash[32];
//	    opaque name<0..2^16-1>; opaque media_type<0..127>;
//	} FileReference;
type FileReference struct {
	Blob      [32]byte // SHA-256 of the ciphertext: the blob's id
	Size      uint64   // bytes of ciphertext
	PlainSize uint64   // bytes of the file
	ChunkSize uint32   // bytes of plaintext in a chunk
	Key       [32]byte // AES-256-GCM; used for this file only
	PlainHash [32]byte // SHA-256 of the file
	Name      []byte   // UTF-8, without any folder; the recipient checks it again
	MediaType string
}

func (r *FileReference) fields(f field) {
	f.fixed(r.Blob[:])
	f.u64(&r.Size)
	f.u64(&r.PlainSize)
	f.u32(&r.ChunkSize)
	f.fixed(r.Key[:])
	f.fixed(r.PlainHash[:])
	f.opaque(&r.Name, 0, 1024)
	f.text(&r.MediaType, 0, 127)
	f.check(r.Size <= MaxBlob && r.PlainSize <= r.Size && r.ChunkSize > 0)
}

// ParseFileReference parses the body of a MediaFile content.
func ParseFileReference(data []byte) (*FileReference, error) {
	r := new(FileReference)
	if err := parse(data, r, "file reference"); err != nil {
		return nil, err
	}
	return r, nil
}

// Marshal encodes r.
func (r *FileReference) Marshal() ([]byte, error) { return marshal(r, "file reference") }

// A ResendRequest is the body of a MediaResend content: the asker could not
// open these messages of the recipient's. See spec/message.md, Section 6.
//
//	struct { opaque sender[32]; uint64 sequences<8..2^24-1>; } ResendRequest;
type ResendRequest struct {
	Sender    [32]byte // the device that is asked; others ignore the request
	Sequences []uint64 // values of Header.Sequence, rising
}

func (r *ResendRequest) fields(f field) {
	f.fixed(r.Sender[:])
	f.list(len(r.Sequences), 1024, func() { r.Sequences = append(r.Sequences, 0) }, func(i int) {
		f.u64(&r.Sequences[i])
		f.check(i == 0 || r.Sequences[i-1] < r.Sequences[i])
	})
	f.check(len(r.Sequences) > 0)
}

// ParseResendRequest parses the body of a MediaResend content.
func ParseResendRequest(data []byte) (*ResendRequest, error) {
	r := new(ResendRequest)
	if err := parse(data, r, "resend request"); err != nil {
		return nil, err
	}
	return r, nil
}

// Marshal encodes r.
func (r *ResendRequest) Marshal() ([]byte, error) { return marshal(r, "resend request") }
