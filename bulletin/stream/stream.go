// SPDX-License-Identifier: Apache-2.0

// Package stream is the language in which an authority tells its gateways what
// changed, and in which a gateway gives back what an authority lost. Both sides
// stand on different machines and share nothing but this.
//
// A stream is a sequence of events:
//
//	struct { uint8 kind; opaque body<0..2^32-1>; } Event;
//
// A gateway opens one by sending Hello, its manifest, its checkpoint and its
// bulletin; the authority answers with events for as long as the connection
// lives, from the positions that Hello names. spec/bulletin.md, Section 6, says
// what may follow what.
//
//	e, err := stream.Read(r)  // one event; io.EOF between events is the end
//	err = stream.Write(w, e)
//
// Nothing in here is verified: each body is a document that is signed by itself,
// but for Hello, Behind and Heartbeat, which claim and prove nothing.
package stream

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/cryptobyte"
)

// ErrMalformed is wrapped by every error of a stream that is not one.
var ErrMalformed = errors.New("feed: malformed event")

// The paths, below the authority's URL.
const (
	PathStream  = "/feed/v1/stream"  // POST: Hello and documents; the answer does not end
	PathRestore = "/feed/v1/restore" // POST: what Behind asked for
)

// MediaType is that of both directions.
const MediaType = "application/vnd.valise.feed"

// A Kind says what an event is.
type Kind uint8

// The kinds. Their numbers never change.
const (
	KindHello      Kind = 1 // Hello
	KindManifest   Kind = 2 // a manifest, JWS
	KindItem       Kind = 3 // Item: the next leaf of the record
	KindCheckpoint Kind = 4 // a checkpoint of leaves that went before, signed note
	KindBulletin   Kind = 5 // a bulletin, JWS
	KindStatement  Kind = 6 // a statement that the record cannot take at present, JWS
	KindHeartbeat  Kind = 7 // empty: the authority is there
	KindBehind     Kind = 8 // Behind: the authority knows less; the stream ends
)

var kinds = map[Kind]struct {
	name        string
	least, most int
}{
	KindHello:      {"hello", 16, 16},
	KindManifest:   {"manifest", 1, maxManifest},
	KindItem:       {"item", 11, maxItem},
	KindCheckpoint: {"checkpoint", 1, maxCheckpoint},
	KindBulletin:   {"bulletin", 1, maxBulletin},
	KindStatement:  {"statement", 1, maxStatement},
	KindHeartbeat:  {"heartbeat", 0, 0},
	KindBehind:     {"behind", 16, 16},
}

func (k Kind) String() string {
	if known, ok := kinds[k]; ok {
		return known.name
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// An Event is one step of a stream.
type Event struct {
	Kind Kind
	Body []byte
}

// Write writes an event.
func Write(w io.Writer, e Event) error {
	known, ok := kinds[e.Kind]
	if !ok || len(e.Body) < known.least || len(e.Body) > known.most {
		return fmt.Errorf("feed: %v of %d bytes cannot be sent", e.Kind, len(e.Body))
	}
	var b cryptobyte.Builder
	b.AddUint8(uint8(e.Kind))
	b.AddUint32(uint32(len(e.Body)))
	head, err := b.Bytes()
	if err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err = w.Write(e.Body)
	return err
}

// Read reads an event. io.EOF says that the stream ended between two.
func Read(r io.Reader) (Event, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return Event{}, err // io.EOF
	}
	if _, err := io.ReadFull(r, head[1:]); err != nil {
		return Event{}, noEOF(err)
	}
	s := cryptobyte.String(head[1:])
	var length uint32
	s.ReadUint32(&length)
	e := Event{Kind: Kind(head[0])}
	known, ok := kinds[e.Kind]
	if !ok {
		return Event{}, fmt.Errorf("%w: unknown %v", ErrMalformed, e.Kind)
	}
	if int64(length) < int64(known.least) || int64(length) > int64(known.most) {
		return Event{}, fmt.Errorf("%w: %v of %d bytes", ErrMalformed, e.Kind, length)
	}
	// Not make: a length is only a claim until the bytes are there.
	body, err := io.ReadAll(io.LimitReader(r, int64(length)))
	if err != nil {
		return Event{}, err
	}
	if len(body) < int(length) {
		return Event{}, io.ErrUnexpectedEOF
	}
	e.Body = body
	return e, nil
}

// noEOF says of a stream that ends within an event that it does.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A Hello says where a gateway stands. What it can prove goes with it: its
// newest checkpoint and bulletin.
//
//	struct { uint64 manifest; uint64 size; } Hello;
type Hello struct {
	Manifest uint64 // number of its manifest; 0: none
	Size     int64  // leaves that it has, those after its checkpoint too
}

// A Behind says where an authority stands that knows less than the gateway.
//
//	struct { uint64 bulletin; uint64 size; } Behind;
type Behind struct {
	Bulletin uint64
	Size     int64
}

// An Item is a leaf with what it stands for.
//
//	struct { uint64 index; opaque entry<1..2^16-1>; opaque payload[rest]; } Item;
type Item struct {
	Index   int64
	Entry   []byte
	Payload []byte
}

// Event returns h as an event.
func (h Hello) Event() Event { return Event{KindHello, numbers(h.Manifest, uint64(h.Size))} }

// Event returns b as an event.
func (b Behind) Event() Event { return Event{KindBehind, numbers(b.Bulletin, uint64(b.Size))} }

// Event returns i as an event.
func (i Item) Event() Event {
	var b cryptobyte.Builder
	b.AddUint64(uint64(i.Index))
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(i.Entry) })
	b.AddBytes(i.Payload)
	body, err := b.Bytes()
	if err != nil {
		body = nil // Write refuses it
	}
	return Event{KindItem, body}
}

// Hello reads the body of a Hello.
func (e Event) Hello() (Hello, error) {
	a, size, err := e.numbers(KindHello)
	return Hello{a, size}, err
}

// Behind reads the body of a Behind.
func (e Event) Behind() (Behind, error) {
	a, size, err := e.numbers(KindBehind)
	return Behind{a, size}, err
}

// Item reads the body of an Item.
func (e Event) Item() (Item, error) {
	var (
		s     = cryptobyte.String(e.Body)
		index uint64
		entry cryptobyte.String
	)
	if e.Kind != KindItem || !s.ReadUint64(&index) || index > maxSize || !s.ReadUint16LengthPrefixed(&entry) || len(entry) == 0 || s.Empty() {
		return Item{}, fmt.Errorf("%w: %v is no item", ErrMalformed, e.Kind)
	}
	return Item{int64(index), entry, s}, nil
}

func numbers(a, b uint64) []byte {
	var w cryptobyte.Builder
	w.AddUint64(a)
	w.AddUint64(b)
	return w.BytesOrPanic()
}

func (e Event) numbers(k Kind) (uint64, int64, error) {
	s := cryptobyte.String(e.Body)
	var a, b uint64
	if e.Kind != k || !s.ReadUint64(&a) || !s.ReadUint64(&b) || !s.Empty() || a > 1<<53 || b > maxSize {
		return 0, 0, fmt.Errorf("%w: %v", ErrMalformed, e.Kind)
	}
	return a, int64(b), nil
}
