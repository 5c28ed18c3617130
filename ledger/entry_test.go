// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// An entry and its leaf, computed by another program (Python's hashlib)
// from the comments in entry.go: they must never change.
func TestEntryBytes(t *testing.T) {
	e := &Entry{Kind: KindStatement, Time: time.Unix(1790000000, 0).UTC(), Subject: sha256.Sum256([]byte("a statement"))}
	for i := range e.Salt {
		e.Salt[i] = byte(i)
	}
	const entry = "0202" + "000000006ab13b80" + "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" +
		"28462c1e5b25025505bd65c591cfe44d71c8c6c25be18a877780f6a5904f7bdc"
	if got := fmt.Sprintf("%x", e.Marshal()); got != entry {
		t.Errorf("entry %s, want %s", got, entry)
	}
	const leaf = "01aacbeeba772bf1f6d7d59c4eb41881f78124cd3c3a9d6fe88324b13423d06287"
	if got := fmt.Sprintf("%x", e.Leaf()); got != leaf {
		t.Errorf("leaf %s, want %s", got, leaf)
	}
}

func TestNewEntry(t *testing.T) {
	payload := []byte("a statement")
	e, err := NewEntry(KindStatement, payload, noon.Add(900*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if !e.Time.Equal(noon) || e.Kind != KindStatement || !e.Records(payload) || e.Records([]byte("another")) {
		t.Errorf("got %+v", e)
	}
	if other, err := NewEntry(KindStatement, payload, noon); err != nil || other.Leaf() == e.Leaf() {
		t.Errorf("leaves of one payload are linkable without the salt (%v)", err)
	}
	for name, bad := range map[string]func() (*Entry, error){
		"no payload":   func() (*Entry, error) { return NewEntry(KindStatement, nil, noon) },
		"huge payload": func() (*Entry, error) { return NewEntry(KindStatement, make([]byte, MaxPayload+1), noon) },
		"unknown kind": func() (*Entry, error) { return NewEntry(5, payload, noon) },
		"kind 0":       func() (*Entry, error) { return NewEntry(0, payload, noon) },
		"no time":      func() (*Entry, error) { return NewEntry(KindStatement, payload, time.Time{}) },
		"1970":         func() (*Entry, error) { return NewEntry(KindStatement, payload, time.Unix(0, 0)) },
		"year 10000":   func() (*Entry, error) { return NewEntry(KindStatement, payload, time.Unix(maxTime+1, 0)) },
	} {
		if e, err := bad(); err == nil {
			t.Errorf("%s: got %+v, no error", name, e)
		}
	}
}

func TestParseEntryRefuses(t *testing.T) {
	one := (&Entry{Kind: KindIssuance}).Marshal()
	two := (&Entry{Kind: KindFounding, Time: noon}).Marshal()
	for _, honest := range [][]byte{one, two} {
		if _, err := ParseEntry(honest); err != nil {
			t.Fatalf("honest entry: %v", err)
		}
	}
	for name, data := range map[string][]byte{
		"empty":                  nil,
		"short":                  two[:len(two)-1],
		"long":                   append(slices.Clone(two), 0),
		"version 0":              append([]byte{0}, one[1:]...),
		"version 3":              append([]byte{3}, two[1:]...),
		"kind 0":                 append([]byte{2, 0}, two[2:]...),
		"kind 5":                 append([]byte{2, 5}, two[2:]...),
		"statement of version 1": append([]byte{1, 2}, one[2:]...),
		"no time":                append([]byte{2, 1, 0, 0, 0, 0, 0, 0, 0, 0}, two[10:]...),
		"far time":               append([]byte{2, 1, 0xff, 0, 0, 0, 0, 0, 0, 0}, two[10:]...),
		"version 1 as long as 2": append([]byte{1, 1}, two[2:]...),
		"version 2 as long as 1": append([]byte{2, 1}, one[2:]...),
	} {
		if _, err := ParseEntry(data); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// How items travel in JSON.
func TestItemJSON(t *testing.T) {
	e, err := NewEntry(KindManifest, []byte("m"), noon)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(Item{7, e, []byte("m")})
	if err != nil {
		t.Fatal(err)
	}
	var got Item
	if err := json.Unmarshal(data, &got); err != nil || *got.Entry != *e || got.Index != 7 || string(got.Payload) != "m" {
		t.Errorf("%s came back as %+v: %v", data, got, err)
	}
	for _, bad := range []string{`{"entry":"AAAA"}`, `{"entry":"!"}`, strings.Replace(string(data), `"entry":"A`, `"entry":"B`, 1)} {
		if err := json.Unmarshal([]byte(bad), new(Item)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}
