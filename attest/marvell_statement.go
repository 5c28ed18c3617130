// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"io"

	"golang.org/x/crypto/cryptobyte"
)

// The statement, numbers big-endian, as firmware of Cavium's format 2 makes it
// for a key pair; every other shape is refused:
//
//	struct {
//	    uint32 response = 0;
//	    uint32 flags = 3;            /* attributes, signature */
//	    uint32 total;                /* of everything, signature included */
//	    uint32 size;                 /* from version to the objects' end */
//	    uint64 handles[2];
//	    uint16 version = 1;
//	    uint16 flags = 3;
//	    uint16 offsets[2];           /* of the objects, from version on */
//	    Object objects[2];
//	    opaque signature[256];       /* over all before it */
//	} Statement;
//
//	struct { uint32 handle; uint32 count; uint32 size; Attribute attributes[count]; } Object;
//	struct { uint32 type; uint32 length; opaque value[length]; } Attribute;
const (
	marvellHeader    = 4*4 + 2*8
	marvellInfo      = 4 * 2
	marvellObject    = 3 * 4
	marvellSignature = 256
)

// The attributes that are read: PKCS #11's, of one byte where they are flags.
const (
	marvellClass            = 0x0000 // 2 public, 3 private
	marvellKeyType          = 0x0100 // 3 EC
	marvellSensitive        = 0x0103
	marvellPoint            = 0x0120 // called modulus; uncompressed point of an EC key
	marvellExtractable      = 0x0162
	marvellLocal            = 0x0163
	marvellNeverExtractable = 0x0164
	marvellAlwaysSensitive  = 0x0165

	marvellPublic, marvellPrivate, marvellEC = 2, 3, 3
)

// A marvellStatement is one that parses; its signature is not checked yet.
type marvellStatement struct {
	signed, signature []byte
	private, public   map[uint32][]byte
}

// IsHSMStatement reports whether data is a statement of FormatMarvell, by whomever.
func IsHSMStatement(data []byte) bool {
	_, err := parseMarvell(data)
	return err == nil
}

func parseMarvell(data []byte) (*marvellStatement, error) {
	data, err := unpackMarvell(data)
	if err != nil {
		return nil, err
	}
	var (
		code, flags, total, size uint32
		handles                  [2]uint64
		version, more            uint16
		offsets                  [2]uint16
	)
	s := cryptobyte.String(data)
	if !s.ReadUint32(&code) || !s.ReadUint32(&flags) || !s.ReadUint32(&total) || !s.ReadUint32(&size) ||
		!s.ReadUint64(&handles[0]) || !s.ReadUint64(&handles[1]) ||
		!s.ReadUint16(&version) || !s.ReadUint16(&more) || !s.ReadUint16(&offsets[0]) || !s.ReadUint16(&offsets[1]) {
		return nil, refuse(ReasonMalformed, "HSM statement: too short")
	}
	if code != 0 || flags != 3 || version != 1 || more != 3 {
		return nil, refuse(ReasonUnknownFormat, "HSM statement: code %d, flags %d and %d, version %d, want 0, 3, 3, 1", code, flags, more, version)
	}
	if uint64(total) != uint64(len(data)) || uint64(size) != uint64(len(data))-marvellHeader-marvellSignature {
		return nil, refuse(ReasonMalformed, "HSM statement: %d bytes in all and %d of objects are announced, which is not so", total, size)
	}
	var objects [2]map[uint32][]byte
	for i := range objects {
		if start := len(data) - len(s) - marvellHeader; int(offsets[i]) != start {
			return nil, refuse(ReasonMalformed, "HSM statement: object %d stands at %d, announced at %d", i+1, start, offsets[i])
		}
		var handle uint32
		if objects[i], err = readMarvellObject(&s, &handle); err != nil {
			return nil, err
		}
		if uint64(handle) != handles[i] {
			return nil, refuse(ReasonMalformed, "HSM statement: object %d is %d, announced as %d", i+1, handle, handles[i])
		}
	}
	if len(s) != marvellSignature {
		return nil, refuse(ReasonMalformed, "HSM statement: %d bytes behind the objects, want a signature of %d", len(s), marvellSignature)
	}
	st := &marvellStatement{signed: data[:len(data)-marvellSignature], signature: s}
	for _, o := range objects {
		switch class := o[marvellClass]; {
		case bytes.Equal(class, []byte{marvellPublic}) && st.public == nil:
			st.public = o
		case bytes.Equal(class, []byte{marvellPrivate}) && st.private == nil:
			st.private = o
		default:
			return nil, refuse(ReasonMalformed, "HSM statement: not about one public and one private key (class %.16x)", class)
		}
	}
	return st, nil
}

// unpackMarvell unpacks gzip (RFC 1952), one member and nothing behind it.
func unpackMarvell(data []byte) ([]byte, error) {
	if len(data) > maxMarvell {
		return nil, refuse(ReasonMalformed, "HSM statement: %d bytes, at most %d are allowed", len(data), maxMarvell)
	}
	if !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		return data, nil
	}
	packed := bytes.NewReader(data)
	r, err := gzip.NewReader(packed)
	if err != nil {
		return nil, refuse(ReasonMalformed, "HSM statement: gzip: %w", err)
	}
	r.Multistream(false)
	plain, err := io.ReadAll(io.LimitReader(r, maxMarvell+1))
	if err != nil {
		return nil, refuse(ReasonMalformed, "HSM statement: gzip: %w", err)
	}
	if len(plain) > maxMarvell || packed.Len() > 0 {
		return nil, refuse(ReasonMalformed, "HSM statement: more than %d bytes unpacked, or something behind them", maxMarvell)
	}
	return plain, nil
}

func readMarvellObject(s *cryptobyte.String, handle *uint32) (map[uint32][]byte, error) {
	var count, size uint32
	var body []byte
	if !s.ReadUint32(handle) || !s.ReadUint32(&count) || !s.ReadUint32(&size) ||
		size > maxMarvell || count > maxMarvellAttributes || !s.ReadBytes(&body, int(size)) {
		return nil, refuse(ReasonMalformed, "HSM statement: an object is cut off, or too large")
	}
	attributes := make(map[uint32][]byte, count)
	rest := cryptobyte.String(body)
	for range count {
		var kind, length uint32
		var value []byte
		if !rest.ReadUint32(&kind) || !rest.ReadUint32(&length) || length > maxMarvell || !rest.ReadBytes(&value, int(length)) {
			return nil, refuse(ReasonMalformed, "HSM statement: an attribute is cut off")
		}
		if _, twice := attributes[kind]; twice {
			return nil, refuse(ReasonMalformed, "HSM statement: attribute %#x stands twice", kind)
		}
		attributes[kind] = value
	}
	if !rest.Empty() {
		return nil, refuse(ReasonMalformed, "HSM statement: %d bytes behind an object's attributes", len(rest))
	}
	return attributes, nil
}

// claims are those of the private object, whose public half must be the other.
func (s *marvellStatement) claims() (*KeyClaims, error) {
	for _, kind := range []uint32{marvellKeyType, marvellPoint} {
		if !bytes.Equal(s.private[kind], s.public[kind]) {
			return nil, refuse(ReasonMalformed, "HSM statement: the two objects are not one key pair (attribute %#x)", kind)
		}
	}
	if !bytes.Equal(s.private[marvellKeyType], []byte{marvellEC}) {
		return nil, refuse(ReasonMalformed, "HSM statement: the key is of type %.16x, want EC (03)", s.private[marvellKeyType])
	}
	key, err := pointKey(s.private[marvellPoint])
	if err != nil {
		return nil, refuse(ReasonMalformed, "HSM statement: %w", err)
	}
	k := &KeyClaims{PublicKey: key, Algorithm: algorithmOf(key)}
	for kind, claim := range map[uint32]*Truth{
		marvellLocal: &k.Generated, marvellExtractable: &k.Extractable, marvellNeverExtractable: &k.NeverExtractable,
		marvellSensitive: &k.Sensitive, marvellAlwaysSensitive: &k.AlwaysSensitive,
	} {
		value, said := s.private[kind]
		switch {
		case !said:
		case len(value) == 1 && value[0] <= 1:
			*claim = truth(value[0] == 1)
		default:
			return nil, refuse(ReasonMalformed, "HSM statement: attribute %#x is %.16x, want 00 or 01", kind, value)
		}
	}
	return k, nil
}

// pointKey reads an uncompressed point (SEC 1, Section 2.3.4), whose length says
// which of our curves it is on.
func pointKey(point []byte) (*ecdsa.PublicKey, error) {
	curve := elliptic.P256()
	if len(point) == 1+2*48 {
		curve = elliptic.P384()
	}
	return ecdsa.ParseUncompressedPublicKey(curve, point)
}
