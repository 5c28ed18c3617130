// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func mustMarshal(t testing.TB, f Frame) []byte {
	t.Helper()
	b, err := Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every frame comes back from its bytes, read a byte at a time.
func TestFramesRoundTrip(t *testing.T) {
	seen := map[Type]bool{}
	for name, f := range sampleFrames() {
		seen[f.Type()] = true
		got, err := Read(iotest.OneByteReader(bytes.NewReader(mustMarshal(t, f))))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(got, f) {
			t.Errorf("%s: got %+v, want %+v", name, got, f)
		}
	}
	for typ, build := range newFrame {
		if build != nil && !seen[Type(typ)] {
			t.Errorf("no sample of frame type %#02x", typ)
		}
	}
}

// One encoding written down by hand, so that the codec is not only its own judge.
func TestSendByHand(t *testing.T) {
	want := "15" + "00001c" + // type, length 28
		"00000007" + "000000000000002a" + // id, counter
		"0167" + "0000000000000003" + // group "g", epoch
		"000003" + "010203" // message
	f := &Send{submission: submission{id{7}, 42}, Group: []byte("g"), Epoch: 3, Message: []byte{1, 2, 3}}
	if got := hex.EncodeToString(mustMarshal(t, f)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Each refusal is one change away from a frame that passes.
func TestMalformedFrames(t *testing.T) {
	good := mustMarshal(t, &Send{submission: submission{id{7}, 42}, Group: []byte("g"), Epoch: 3, Message: []byte{1, 2, 3}})
	hello := mustMarshal(t, sampleFrames()["hello"])
	deliver := mustMarshal(t, sampleFrames()["deliver-ahead"])
	for _, honest := range [][]byte{good, hello, deliver, mustMarshal(t, sampleFrames()["resume-taken"])} {
		if _, err := Read(bytes.NewReader(honest)); err != nil {
			t.Fatalf("the honest control is refused: %v", err)
		}
	}
	change := func(b []byte, at int, v byte) []byte {
		c := bytes.Clone(b)
		c[at] = v
		return c
	}
	for name, bad := range map[string][]byte{
		"unknown type":         change(good, 0, 0x7f),
		"counter zero":         change(good, 15, 0),
		"taken twice":          append([]byte{0x20, 0, 0, 27, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 16}, []byte{0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 9}...),
		"taken already":        {0x20, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 6},
		"half a number taken":  {0x20, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 4, 0, 0, 0, 9},
		"no such kind":         change(deliver, 4+8, 10),
		"empty group":          {0x16, 0, 0, 5, 0, 0, 0, 9, 0},
		"left over byte":       append(change(good, 3, good[3]+1), 0),
		"length past the end":  change(good, 3, good[3]-1),
		"flag neither 0 nor 1": change(hello, 4+1+16, 2),
		"control character":    change(hello, len(hello)-1, 0x07),
		"over MaxFrame":        {0x15, 0xff, 0xff, 0xff},
		"unknown part":         {0x1c, 0, 0, 5, 0, 0, 0, 9, 6},
		"part with too much":   {0x1c, 0, 0, 6, 0, 0, 0, 9, 1, 0},
		"blob over MaxBlob":    append(append([]byte{0x30, 0, 0, 42, 1, 'g'}, make([]byte, 32)...), 0xff, 0, 0, 0, 0, 0, 0, 0),
	} {
		if _, err := Read(bytes.NewReader(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
	if _, err := Read(bytes.NewReader(good[:len(good)-1])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut frame: got %v, want ErrUnexpectedEOF", err)
	}
}

// What cannot be read back is not written either.
func TestMarshalRefusesWhatParseWould(t *testing.T) {
	for name, f := range map[string]Frame{
		"counter zero":     &Send{Group: []byte("g"), Message: []byte{1}},
		"empty group":      &Send{submission: submission{id{1}, 1}, Message: []byte{1}},
		"message too long": &Send{submission: submission{id{1}, 1}, Group: []byte("g"), Message: make([]byte, MaxMessage+1)},
		"too many devices": &GetKeyPackages{Address: "a@b.example", Devices: make([][32]byte, MaxDevices+1)},
		"newline in agent": &Hello{Version: 1, Agent: "a\nb"},
		"chain of nothing": &Directory{Chains: [][][]byte{{}}},
		"taken unasked":    &Resume{Taken: []uint64{1}},
		"taken falling":    &Resume{Ahead: true, Taken: []uint64{2, 1}},
		"taken too much":   &Resume{Ahead: true, Taken: make([]uint64, MaxAhead+1)},
		"no such part":     &GetRecord{Part: 6},
		"part and subject": &GetRecord{Part: PartGrowth, Subject: filled(1)},
		"part and size":    &GetRecord{Part: PartManifest, Size: 1},
		"huge tree":        &GetRecord{Part: PartGrowth, Size: MaxRecordSize + 1},
		"empty part":       &Record{Part: PartManifest},
		"rest of nothing":  &GetBundle{Offset: 1},
		"beyond a bundle":  &GetBundle{Hash: filled(1), Offset: MaxBundle},
		"past its end":     &BundlePart{Hash: filled(1), Size: 3, Offset: 1, Data: []byte{1, 2, 3}},
		"nameless bundle":  &BundlePart{Size: 3, Data: []byte{1, 2, 3}},
	} {
		if b, err := Marshal(f); err == nil {
			t.Errorf("%s: encoded to %x", name, b)
		}
	}
}

// A list stops at its bound, not at the end of its bytes.
func TestListsAreBounded(t *testing.T) {
	entry := []byte{0, 0, 3, 0, 1, 9} // a chain of one certificate
	for _, n := range []int{MaxDirectory, MaxDirectory + 1} {
		list := bytes.Repeat(entry, n)
		body := append([]byte{0, 0, 0, 1, byte(len(list) >> 16), byte(len(list) >> 8), byte(len(list))}, list...)
		_, err := Parse(TypeDirectory, body)
		if ok := n <= MaxDirectory; ok != (err == nil) {
			t.Errorf("%d entries: %v", n, err)
		}
	}
}

// A header that announces 8 MiB costs its sender 8 MiB, not us.
func TestReadGrowsWithWhatArrives(t *testing.T) {
	run := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			r := io.MultiReader(bytes.NewReader([]byte{byte(TypeSend), 0x80, 0, 0}), bytes.NewReader(make([]byte, 100)))
			if _, err := Read(r); !errors.Is(err, io.ErrUnexpectedEOF) {
				b.Fatalf("got %v", err)
			}
		}
	})
	if n := run.AllocedBytesPerOp(); n > 128<<10 {
		t.Errorf("%d bytes set aside for 100 that arrived", n)
	}
}

// Where small frames are expected a larger one is refused by its length alone; the
// largest of each kind that comes there is read.
func TestReadSmall(t *testing.T) {
	group := bytes.Repeat([]byte{1}, 255)
	full := make([]uint64, MaxAhead)
	for i := range full {
		full[i] = uint64(i) + 1
	}
	for _, f := range []Frame{
		&Hello{Version: Version, Agent: strings.Repeat("a", 64)}, &Resume{}, &Resume{Ahead: true, Taken: full}, &Ack{}, &Attach{}, &BlobGet{}, &BlobPut{Group: group, Size: 1},
	} {
		b, err := Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		for n := range b {
			if BeginsWhole(b[:n]) {
				t.Errorf("%d of %d bytes of %T are a whole frame", n, len(b), f)
			}
		}
		if got, err := ReadSmall(bytes.NewReader(b)); err != nil || got.Type() != f.Type() || !BeginsWhole(append(b, 0)) {
			t.Errorf("%T: %v", f, err)
		}
	}
	fits := func(n int) []byte {
		return append([]byte{byte(TypeSend), 0, byte(n >> 8), byte(n)}, make([]byte, MaxSmall)...)
	}
	r := bytes.NewReader(fits(MaxSmall + 1))
	if _, err := ReadSmall(r); !errors.Is(err, ErrMalformed) || r.Len() != MaxSmall {
		t.Errorf("one byte more: %v, %d bytes left", err, r.Len())
	}
	r = bytes.NewReader(fits(MaxSmall))
	if _, err := ReadSmall(r); !errors.Is(err, ErrMalformed) || r.Len() != 0 { // it was read, and is no Send
		t.Errorf("as large as it may be: %v, %d bytes left", err, r.Len())
	}
}

func TestBehind(t *testing.T) {
	mine, other := filled16(1), filled16(2)
	for name, c := range map[string]struct {
		w    Welcome
		h    Hello
		want bool
	}{
		"in step":                {Welcome{Incarnation: mine, Counter: 5, Acknowledged: 3}, Hello{Incarnation: mine, Counter: 5, Cursor: 3}, false},
		"ahead, not yet done":    {Welcome{Incarnation: mine, Counter: 5, Acknowledged: 3}, Hello{Incarnation: mine, Counter: 7, Cursor: 4}, false},
		"counter behind":         {Welcome{Incarnation: mine, Counter: 5}, Hello{Incarnation: mine, Counter: 4}, true},
		"cursor behind":          {Welcome{Incarnation: mine, Acknowledged: 3}, Hello{Incarnation: mine, Cursor: 2}, true},
		"cursor behind at begin": {Welcome{Incarnation: mine, Acknowledged: 3}, Hello{Incarnation: mine, Begin: true, Cursor: 2}, true},
		"other incarnation":      {Welcome{Incarnation: other}, Hello{Incarnation: mine}, true},
		"new incarnation":        {Welcome{Incarnation: mine}, Hello{Incarnation: mine, Begin: true}, false},
		"never seen":             {Welcome{}, Hello{Incarnation: mine, Counter: 4}, false},
	} {
		if got := c.w.Behind(&c.h); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestCodesHaveNames(t *testing.T) {
	for c := OK; c <= NoBundle; c++ {
		if strings.HasPrefix(c.String(), "code_") || c.String() == "" {
			t.Errorf("code %d has no name", c)
		}
	}
	if got := Code(999).String(); got != "code_999" {
		t.Error(got)
	}
}
