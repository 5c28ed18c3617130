// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"valise/gateway/mailbox"
)

// muchNews need several payloads.
func muchNews() mailbox.News {
	n := mailbox.News{Law: 7, All: true}
	for i := range 400 {
		n.Mail = append(n.Mail, mailbox.Letter{Device: device(i), Number: uint64(i) << 40, Precedence: uint8(i % 4)})
		n.Arrived = append(n.Arrived, mailbox.Seat{Device: device(i), Turn: uint64(i)})
		n.Groups = append(n.Groups, bytes.Repeat([]byte{byte(i)}, 1+i%255))
	}
	return n
}

// News of any length come through whole, in payloads that PostgreSQL takes.
func TestNewsComeThrough(t *testing.T) {
	from := process{1, 2, 3}
	for _, n := range []mailbox.News{{}, {Law: 1 << 62}, {All: true}, {Mail: []mailbox.Letter{{Device: device(1)}}}, muchNews()} {
		var got mailbox.News
		for _, payload := range writeNews(from, n) {
			if len(payload) >= 8000 {
				t.Fatalf("a payload of %d bytes", len(payload))
			}
			who, part, err := parseNews(payload)
			if err != nil || who != from {
				t.Fatal(who, err)
			}
			got.Mail, got.Arrived, got.Groups = append(got.Mail, part.Mail...), append(got.Arrived, part.Arrived...), append(got.Groups, part.Groups...)
			got.Law, got.All = max(got.Law, part.Law), got.All || part.All
		}
		if !reflect.DeepEqual(got, n) {
			t.Errorf("%d letters, %d arrivals, %d groups, %d, %v", len(got.Mail), len(got.Arrived), len(got.Groups), got.Law, got.All)
		}
	}
	if _, n, err := parseNews(writeNews(from, mailbox.News{Groups: [][]byte{make([]byte, 256)}})[0]); err != nil || !n.All {
		t.Errorf("a group that cannot be named does not become All: %+v, %v", n, err)
	}
}

// What is not exactly as written is refused, whoever sent it.
func TestNewsAreRead(t *testing.T) {
	sound := func() []byte {
		data, err := newsText.DecodeString(writeNews(process{9}, mailbox.News{
			Mail: []mailbox.Letter{{Device: device(1), Number: 5, Precedence: 2}}, Groups: [][]byte{[]byte("g")}, Arrived: []mailbox.Seat{{Turn: 4}},
		})[0])
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	text := func(data []byte) string { return newsText.EncodeToString(data) }
	if _, _, err := parseNews(text(sound())); err != nil {
		t.Fatalf("control: %v", err)
	}
	const all, law, mail, precedence = 9, 10, 18, 20 + 40
	alter := func(at int, b byte) string {
		data := sound()
		data[at] = b
		return text(data)
	}
	for what, payload := range map[string]string{
		"nothing": "", "no base64": "%%", "padded": text(sound()) + "=", "a line": text(sound()) + "\n",
		"another version": alter(0, 2), "all of 2": alter(all, 2), "a precedence above flash": alter(precedence, 4),
		"a letter too few": alter(mail+1, 40), "more behind it": text(append(sound(), 0)), "cut short": text(sound()[:30]),
		"a group without a name": text(append(slices.Concat(sound()[:law+8], make([]byte, 4)), 0, 1, 0)),
		"too long":               strings.Repeat("A", 8001),
	} {
		if _, n, err := parseNews(payload); err == nil {
			t.Errorf("%s: %+v", what, n)
		}
	}
}

// Payloads that are read are written again as they were.
func FuzzNews(f *testing.F) {
	for _, payload := range append(writeNews(process{1}, muchNews()), writeNews(process{}, mailbox.News{})...) {
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		from, n, err := parseNews(payload)
		if err != nil {
			return
		}
		if again := writeNews(from, n); len(again) != 1 || again[0] != payload {
			t.Errorf("%q is written as %q", payload, again)
		}
	})
}
