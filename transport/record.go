// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"encoding/binary"
	"errors"
	"fmt"

	"valise/wire"
)

// A kind is what a record of the TCP framing is for. See spec/wire.md, Section 12.
type kind uint8

const (
	kindData   kind = 1 // bytes of a stream; the next new number opens one
	kindEnd    kind = 2 // nothing more comes on this stream
	kindReset  kind = 3 // nothing more comes, and what came is not whole
	kindStop   kind = 4 // nothing more is wanted
	kindCredit kind = 5 // so many bytes more may come
	kindClose  kind = 6 // the connection ends; stream is 0
)

// ErrFraming marks what a peer may not send.
var ErrFraming = errors.New("transport: malformed record")

func framing(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFraming, fmt.Sprintf(format, args...))
}

// A header begins every record.
//
//	struct { uint8 kind; uint32 stream; opaque body<0..2^16-1>; } Record;
type header struct {
	kind   kind
	stream uint32
	length int
}

// parseHeader checks all that a header alone can tell, before a byte of the body
// is waited for.
func parseHeader(b *[headerLen]byte) (header, error) {
	h := header{kind(b[0]), binary.BigEndian.Uint32(b[1:]), int(binary.BigEndian.Uint16(b[5:]))}
	if (h.stream == 0) != (h.kind == kindClose) {
		return h, framing("kind %d for stream %d", h.kind, h.stream)
	}
	least, most := 4, 4
	switch h.kind {
	case kindData:
		least, most = 1, maxData
	case kindEnd:
		least, most = 0, 0
	case kindReset, kindStop, kindCredit:
	case kindClose:
		most = 4 + maxReason
	default:
		return h, framing("unknown kind %d", h.kind)
	}
	if h.length < least || h.length > most {
		return h, framing("kind %d with %d bytes", h.kind, h.length)
	}
	return h, nil
}

func (h header) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, byte(h.kind)), h.stream)
	return binary.BigEndian.AppendUint16(b, uint16(h.length))
}

// appendNumber adds a record whose body is one number: a code or a credit.
func appendNumber(b []byte, k kind, stream, n uint32) []byte {
	return binary.BigEndian.AppendUint32(header{k, stream, 4}.append(b), n)
}

// appendClose adds the record that ends a connection.
//
//	struct { uint32 code; opaque reason[rest]; } Close;
func appendClose(b []byte, code wire.CloseCode, reason string) []byte {
	reason = reason[:min(len(reason), maxReason)]
	b = header{kindClose, 0, 4 + len(reason)}.append(b)
	return append(binary.BigEndian.AppendUint32(b, uint32(code)), reason...)
}

// parseClose reads why the peer ended the connection.
func parseClose(body []byte) (*CloseError, error) {
	for _, c := range body[4:] {
		if c < ' ' || c > '~' {
			return nil, framing("a reason that is no printable ASCII")
		}
	}
	return &CloseError{Code: wire.CloseCode(binary.BigEndian.Uint32(body)), Reason: string(body[4:]), Remote: true}, nil
}
