// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
	"testing/iotest"
)

func samples() []Event {
	return []Event{
		Hello{3, 17}.Event(),
		{KindManifest, []byte("m")},
		Item{17, []byte("entry"), []byte("payload")}.Event(),
		{KindCheckpoint, []byte("c")},
		{KindBulletin, []byte("b")},
		{KindStatement, []byte("s")},
		{KindHeartbeat, nil},
		Behind{4, 12}.Event(),
	}
}

func TestEvents(t *testing.T) {
	var b bytes.Buffer
	for _, e := range samples() {
		if err := Write(&b, e); err != nil {
			t.Fatal(err)
		}
	}
	r := iotest.OneByteReader(&b)
	var got []Event
	for {
		e, err := Read(r)
		if errors.Is(err, io.EOF) && err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Body) == 0 {
			e.Body = nil
		}
		got = append(got, e)
	}
	if !reflect.DeepEqual(got, samples()) {
		t.Errorf("got %v", got)
	}
	if h, err := got[0].Hello(); err != nil || h != (Hello{3, 17}) {
		t.Errorf("%+v, %v", h, err)
	}
	if i, err := got[2].Item(); err != nil || i.Index != 17 || string(i.Entry) != "entry" || string(i.Payload) != "payload" {
		t.Errorf("%+v, %v", i, err)
	}
	if h, err := got[7].Behind(); err != nil || h != (Behind{4, 12}) {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := got[7].Hello(); !errors.Is(err, ErrMalformed) {
		t.Errorf("a Behind read as a Hello: %v", err)
	}
}

func TestReadRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		data []byte
		want error
	}{
		"honest control":     {[]byte{7, 0, 0, 0, 0}, nil},
		"unknown kind":       {[]byte{9, 0, 0, 0, 0}, ErrMalformed},
		"kind 0":             {[]byte{0, 0, 0, 0, 0}, ErrMalformed},
		"a full heartbeat":   {[]byte{7, 0, 0, 0, 1, 0}, ErrMalformed},
		"an empty manifest":  {[]byte{2, 0, 0, 0, 0}, ErrMalformed},
		"a huge checkpoint":  {[]byte{4, 0xff, 0xff, 0xff, 0xff}, ErrMalformed},
		"a huge bulletin":    {[]byte{5, 2, 0, 0, 1}, ErrMalformed},
		"cut in the head":    {[]byte{7, 0, 0}, io.ErrUnexpectedEOF},
		"cut after the kind": {[]byte{7}, io.ErrUnexpectedEOF},
		"cut in the body":    {[]byte{2, 0, 0, 0, 2, 1}, io.ErrUnexpectedEOF},
	} {
		if _, err := Read(bytes.NewReader(test.data)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	for name, e := range map[string]Event{
		"item without payload": Item{1, []byte("entry"), nil}.Event(),
		"item without entry":   Item{1, nil, []byte("payload")}.Event(),
		"negative index":       Item{-1, []byte("entry"), []byte("payload")}.Event(),
		"huge index":           Item{1<<48 + 1, []byte("entry"), []byte("payload")}.Event(),
	} {
		if _, err := e.Item(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Write(io.Discard, Event{KindBulletin, make([]byte, maxBulletin+1)}); err == nil {
		t.Error("wrote what nobody reads")
	}
}

func FuzzRead(f *testing.F) {
	for _, e := range samples() {
		var b bytes.Buffer
		if err := Write(&b, e); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		e, err := Read(r)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := Write(&b, e); err != nil || !bytes.Equal(b.Bytes(), data[:len(data)-r.Len()]) {
			t.Errorf("%x comes back as %x, %v", data, b.Bytes(), err)
		}
		again := Event{Kind: e.Kind}
		if i, err := e.Item(); err == nil {
			again = i.Event()
		} else if h, err := e.Hello(); err == nil {
			again = h.Event()
		} else if h, err := e.Behind(); err == nil {
			again = h.Event()
		} else {
			return
		}
		if !bytes.Equal(again.Body, e.Body) {
			t.Errorf("%x comes back as %x", e.Body, again.Body)
		}
	})
}
