// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write spec/vectors anew from the samples")

func TestMessagesRoundTrip(t *testing.T) {
	for name, m := range sampleMessages() {
		data, err := m.Marshal()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := parseMessage(m, data)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: got %+v (%v), want %+v", name, got, err, m)
		}
		if _, err := parseMessage(m, append(data, 0)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s with a byte left over: %v", name, err)
		}
		if _, err := parseMessage(m, data[:len(data)-1]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s without its last byte: %v", name, err)
		}
	}
}

// Header and label must agree, so that "unlabelled" has one encoding.
func TestHeaderRules(t *testing.T) {
	honest := Header{Policy: []byte{1}, Labelled: true, Label: []byte{2}, Sequence: 1}
	if _, err := honest.Marshal(); err != nil {
		t.Fatalf("the honest control is refused: %v", err)
	}
	for name, spoil := range map[string]func(*Header){
		"label but not labelled":    func(h *Header) { h.Labelled = false },
		"labelled without label":    func(h *Header) { h.Label = nil },
		"label without policy":      func(h *Header) { h.Policy = nil },
		"policy hash of 31 bytes":   func(h *Header) { h.PolicyHash = make([]byte, 31) },
		"precedence past flash":     func(h *Header) { h.Precedence = Flash + 1 },
		"sequence zero":             func(h *Header) { h.Sequence = 0 },
		"label longer than allowed": func(h *Header) { h.Label = make([]byte, MaxLabel+1) },
	} {
		h := honest
		spoil(&h)
		if b, err := h.Marshal(); err == nil {
			t.Errorf("%s: encoded to %x", name, b)
		}
	}
	versionTwo, _ := honest.Marshal()
	versionTwo[0] = 2
	if _, err := ParseHeader(versionTwo); !errors.Is(err, ErrMalformed) {
		t.Errorf("version 2: %v", err)
	}
}

func TestExtensionsAreSortedAndUnique(t *testing.T) {
	for name, c := range map[string]struct {
		types []uint16
		ok    bool
	}{"rising": {[]uint16{1, 2}, true}, "twice": {[]uint16{1, 1}, false}, "falling": {[]uint16{2, 1}, false}} {
		content := &Content{MediaType: MediaText}
		for _, n := range c.types {
			content.Extensions = append(content.Extensions, Extension{Type: n})
		}
		if _, err := content.Marshal(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The published vectors are what this code writes, and read back to the same.
func TestSpecVectors(t *testing.T) {
	frames := map[string][]byte{}
	for name, f := range sampleFrames() {
		frames[name] = mustMarshal(t, f)
	}
	for name, pair := range shortSamples() {
		var l Last
		first := l.Shorten(mustMarshal(t, pair[0]), 0)
		frames[name] = l.Shorten(append(first, mustMarshal(t, pair[1])...), len(first))
	}
	messages := map[string][]byte{}
	for name, m := range sampleMessages() {
		messages[name], _ = m.Marshal()
	}
	compareVectors(t, "wire.json", frames)
	compareVectors(t, "message.json", messages)
}

func compareVectors(t *testing.T, file string, have map[string][]byte) {
	path := filepath.Join("..", "spec", "vectors", file)
	if *update {
		writeVectors(t, path, have)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]string
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	if len(want) != len(have) {
		t.Errorf("%s has %d vectors, the samples are %d", file, len(want), len(have))
	}
	for name, b := range have {
		if hex.EncodeToString(b) != want[name] {
			t.Errorf("%s %s: encodes to %x, published %s", file, name, b, want[name])
		}
	}
}

func writeVectors(t *testing.T, path string, have map[string][]byte) {
	out := map[string]string{}
	for name, b := range have {
		out[name] = hex.EncodeToString(b)
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A notice of undelivered mail names submissions, each once, and not too many.
func TestUndeliveredMailRules(t *testing.T) {
	many := make([]uint64, MaxUndelivered+1)
	for i := range many {
		many[i] = uint64(i) + 1
	}
	if _, err := (&UndeliveredMail{Counters: many[1:]}).Marshal(); err != nil {
		t.Fatalf("the honest control is refused: %v", err)
	}
	for name, counters := range map[string][]uint64{"too many": many, "none": nil, "twice": {1, 1}, "falling": {2, 1}, "zero": {0}} {
		if b, err := (&UndeliveredMail{Counters: counters}).Marshal(); err == nil {
			t.Errorf("%s: encoded to %x", name, b)
		}
	}
	if b, err := (&ExpiredMail{}).Marshal(); err == nil {
		t.Errorf("from number 0: encoded to %x", b)
	}
}

// FuzzRead: whatever is accepted is written back as the same bytes.
func FuzzRead(f *testing.F) {
	for _, s := range sampleFrames() {
		f.Add(mustMarshal(f, s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		got, err := Read(r)
		if err != nil {
			return
		}
		used := data[:len(data)-r.Len()]
		again, err := Marshal(got)
		if err != nil || !bytes.Equal(again, used) {
			t.Fatalf("%x was accepted and written back as %x (%v)", used, again, err)
		}
	})
}

// FuzzMessage: the same for header, content and their kin.
func FuzzMessage(f *testing.F) {
	for _, m := range sampleMessages() {
		data, _ := m.Marshal()
		f.Add(data)
	}
	kinds := []message{new(Header), new(Content), new(FileReference), new(ResendRequest), new(ExpiredMail), new(UndeliveredMail), new(RestoredMail)}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, kind := range kinds {
			m, err := parseMessage(kind, data)
			if err != nil {
				continue
			}
			if again, err := m.Marshal(); err != nil || !bytes.Equal(again, data) {
				t.Fatalf("%T: %x was accepted and written back as %x (%v)", kind, data, again, err)
			}
		}
	})
}

// FuzzReadHeader: both readers of a header say the same.
func FuzzReadHeader(f *testing.F) {
	for name, m := range sampleMessages() {
		if strings.HasPrefix(name, "header") {
			data, err := m.Marshal()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
			f.Add(data[:len(data)-1])
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		slow, errSlow := ParseHeader(data)
		fast, errFast := ReadHeader(data)
		if (errSlow == nil) != (errFast == nil) || errSlow == nil && !reflect.DeepEqual(*slow, fast) {
			t.Errorf("%v, %v: %+v and %+v", errSlow, errFast, slow, fast)
		}
	})
}

func TestReadHeaderAllocatesNothing(t *testing.T) {
	data, err := sampleMessages()["header-labelled"].Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if h, err := ReadHeader(data); err != nil || h.Precedence.String() != "flash" {
			t.Fatal(h, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
