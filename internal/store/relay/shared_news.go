// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"encoding/base64"
	"errors"
	"strings"

	"golang.org/x/crypto/cryptobyte"

	"valise/gateway/mailbox"
)

// News travel as the payloads of PostgreSQL's notifications: text of less than 8,000 bytes,
// here base64 without padding of
//
//	struct { opaque device[32]; uint64 number; uint8 precedence; } Letter;
//	struct { opaque device[32]; uint64 turn; } Seat;
//	struct { opaque device[32]; uint8 code; } Notice;
//	opaque Group<1..255>;
//	struct {
//		uint8 version = 1;
//		opaque from[8];             // drawn by each process
//		uint8 all;                  // 0 or 1
//		uint64 law;
//		Letter mail<0..2^16-1>;
//		Seat arrived<0..2^16-1>;
//		Group groups<0..2^16-1>;
//		Notice notices<0..2^16-1>;
//	} News;
//
// Whoever may connect to the database can send some. All that they can bring about is that
// gateways look into the store, or end a connection whose device comes back.

type process = [8]byte

const newsVersion = 1

var (
	newsText     = base64.RawStdEncoding.Strict()
	errMalformed = errors.New("relay store: malformed news")
)

const (
	letterSize = 32 + 8 + 1
	seatSize   = 32 + 8
	noticeSize = 32 + 1
	newsHead   = 1 + 8 + 1 + 8 + 4*2
)

// A writer of news puts them into payloads.
type newsWriter struct {
	from            process
	mail, seats     []byte
	groups, notices []byte
	law             uint64
	all             bool
	payloads        []string
	mailed, arrived int
}

// writeNews puts news into as many payloads as they need.
func writeNews(from process, n mailbox.News) []string {
	w := &newsWriter{from: from, law: n.Law, all: n.All}
	for _, l := range n.Mail {
		w.room(letterSize)
		b := cryptobyte.NewBuilder(w.mail)
		b.AddBytes(l.Device[:])
		b.AddUint64(l.Number)
		b.AddUint8(l.Precedence)
		w.mail = b.BytesOrPanic()
	}
	for _, s := range n.Arrived {
		w.room(seatSize)
		b := cryptobyte.NewBuilder(w.seats)
		b.AddBytes(s.Device[:])
		b.AddUint64(s.Turn)
		w.seats = b.BytesOrPanic()
	}
	for _, x := range n.Notices {
		w.room(noticeSize)
		w.notices = append(append(w.notices, x.Device[:]...), x.Code)
	}
	for _, g := range n.Groups {
		if len(g) == 0 || len(g) > 255 {
			w.all = true // no group of ours: let them forget all
			continue
		}
		w.room(1 + len(g))
		w.groups = append(append(w.groups, byte(len(g))), g...)
	}
	w.end()
	return w.payloads
}

// room ends a payload that has not so much left.
func (w *newsWriter) room(size int) {
	if newsHead+len(w.mail)+len(w.seats)+len(w.groups)+len(w.notices)+size > maxNews {
		w.end()
	}
}

// end puts what is there into a payload.
func (w *newsWriter) end() {
	b := cryptobyte.NewBuilder(make([]byte, 0, maxNews))
	b.AddUint8(newsVersion)
	b.AddBytes(w.from[:])
	all := uint8(0)
	if w.all {
		all = 1
	}
	b.AddUint8(all)
	b.AddUint64(w.law)
	for _, part := range [][]byte{w.mail, w.seats, w.groups, w.notices} {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(part) })
	}
	w.payloads = append(w.payloads, newsText.EncodeToString(b.BytesOrPanic()))
	w.mail, w.seats, w.groups, w.notices, w.law, w.all = w.mail[:0], w.seats[:0], w.groups[:0], w.notices[:0], 0, false
}

// parseNews reads one payload.
func parseNews(payload string) (from process, n mailbox.News, err error) {
	if len(payload) > newsText.EncodedLen(maxNews) || strings.ContainsAny(payload, "\r\n") { // which a decoder passes over
		return from, n, errMalformed
	}
	data, err := newsText.DecodeString(payload)
	if err != nil {
		return from, n, errMalformed
	}
	s := cryptobyte.String(data)
	var version, all uint8
	var mail, seats, groups, notices cryptobyte.String
	if !s.ReadUint8(&version) || version != newsVersion || !s.CopyBytes(from[:]) || !s.ReadUint8(&all) || all > 1 ||
		!s.ReadUint64(&n.Law) || !s.ReadUint16LengthPrefixed(&mail) || !s.ReadUint16LengthPrefixed(&seats) ||
		!s.ReadUint16LengthPrefixed(&groups) || !s.ReadUint16LengthPrefixed(&notices) || !s.Empty() {
		return from, mailbox.News{}, errMalformed
	}
	n.All = all == 1
	for !mail.Empty() {
		var l mailbox.Letter
		if !mail.CopyBytes(l.Device[:]) || !mail.ReadUint64(&l.Number) || !mail.ReadUint8(&l.Precedence) || l.Precedence > mailbox.Flash {
			return from, mailbox.News{}, errMalformed
		}
		n.Mail = append(n.Mail, l)
	}
	for !seats.Empty() {
		var seat mailbox.Seat
		if !seats.CopyBytes(seat.Device[:]) || !seats.ReadUint64(&seat.Turn) {
			return from, mailbox.News{}, errMalformed
		}
		n.Arrived = append(n.Arrived, seat)
	}
	for !notices.Empty() {
		var x mailbox.Notice
		if !notices.CopyBytes(x.Device[:]) || !notices.ReadUint8(&x.Code) {
			return from, mailbox.News{}, errMalformed
		}
		n.Notices = append(n.Notices, x)
	}
	for !groups.Empty() {
		var g cryptobyte.String
		if !groups.ReadUint8LengthPrefixed(&g) || g.Empty() {
			return from, mailbox.News{}, errMalformed
		}
		n.Groups = append(n.Groups, g)
	}
	return from, n, nil
}
