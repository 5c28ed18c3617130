// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"testing"
	"testing/iotest"
)

// sealedLike is a message whose first bytes can be read by anybody.
func sealedLike(readable, rest byte) []byte {
	return append(bytes.Repeat([]byte{readable}, 100), bytes.Repeat([]byte{rest}, 40)...)
}

// conversation are frames as they follow on one stream, and whether each has a short form
// there.
func conversation() (frames []Frame, short []bool) {
	add := func(f Frame, s bool) { frames, short = append(frames, f), append(short, s) }
	send := func(n uint64, group string, epoch uint64, message []byte) *Send {
		return &Send{submission: submission{id{uint32(n)}, n}, Group: []byte(group), Epoch: epoch, Message: message}
	}
	deliver := func(n, time uint64, sender byte, payload []byte) *Deliver {
		return &Deliver{Number: n, Kind: DeliverContent, Group: []byte("g"), Epoch: 2, Sender: filled(sender), Time: time, Payload: payload}
	}
	add(send(1, "g", 2, sealedLike(1, 1)), false) // nothing came before it
	add(send(2, "g", 2, sealedLike(1, 2)), true)
	add(&Ping{id{9}}, false)
	add(send(3, "g", 2, sealedLike(1, 3)), true) // what is no message does not count
	add(send(4, "h", 2, sealedLike(1, 3)), false)
	add(send(5, "h", 3, sealedLike(1, 3)), false)
	add(send(6, "h", 3, sealedLike(2, 3)), false)
	add(send(7, "h", 3, bytes.Repeat([]byte{2}, 4000)), true)
	add(send(8, "h", 3, bytes.Repeat([]byte{2}, 9000)), true)
	add(deliver(7, 1, 1, bytes.Repeat([]byte{2}, 9000)), false) // another kind of frame
	add(deliver(8, 2, 1, bytes.Repeat([]byte{2}, 9000)), true)
	add(deliver(9, 2, 2, bytes.Repeat([]byte{2}, 9000)), false)
	add(deliver(12, 2, 2, bytes.Repeat([]byte{2}, 60)), true)
	add(deliver(13, 2, 2, []byte{2}), false) // as little is not worth it
	return frames, short
}

// shortSamples are frames that follow on one another, the second in its short form.
func shortSamples() map[string][2]Frame {
	head := bytes.Repeat([]byte{7}, 40)
	return map[string][2]Frame{
		"send-send-next": {
			&Send{submission: submission{id{7}, 42}, Group: []byte("g"), Epoch: 3, Message: append(head, 1, 2)},
			&Send{submission: submission{id{8}, 43}, Group: []byte("g"), Epoch: 3, Message: append(head, 3, 4, 5)},
		},
		"deliver-deliver-next": {
			&Deliver{Number: 7, Kind: DeliverContent, Group: []byte("g"), Epoch: 3, Sender: filled(1), Time: 1790000000000, Payload: append(head, 1)},
			&Deliver{Number: 8, Kind: DeliverContent, Group: []byte("g"), Epoch: 3, Sender: filled(1), Time: 1790000000001, Payload: append(head, 2)},
		},
	}
}

// What is read is what was written, however it came, and a submission is known by the
// bytes of its long form.
func TestShortForms(t *testing.T) {
	frames, short := conversation()
	var sender Last
	var stream []byte
	for i, f := range frames {
		at, long := len(stream), mustMarshal(t, f)
		stream = sender.Shorten(append(stream, long...), at)
		if got := len(stream)-at < len(long); got != short[i] {
			t.Errorf("frame %d: short is %v, want %v", i, got, short[i])
		}
	}
	var receiver Last
	r := iotest.OneByteReader(bytes.NewReader(stream))
	for i, want := range frames {
		got, body, err := receiver.ReadRaw(r)
		if err != nil || !reflect.DeepEqual(got, want) || !bytes.Equal(body, mustMarshal(t, want)[headSize:]) {
			t.Fatalf("frame %d: got %+v (%v), want %+v", i, got, err, want)
		}
		if s, ok := got.(Submission); ok {
			if digest, err := Digest(want.(Submission)); err != nil || digest != DigestBody(s.Type(), body) {
				t.Errorf("frame %d is another submission (%v)", i, err)
			}
		}
	}
	if _, err := receiver.Read(r); err != io.EOF {
		t.Errorf("behind the last frame: %v", err)
	}
}

// Both short forms written down by hand.
func TestShortFormsByHand(t *testing.T) {
	var l Last
	frame := func(f Frame) string { return hex.EncodeToString(l.Shorten(mustMarshal(t, f), 0)) }
	head := bytes.Repeat([]byte{7}, 32)
	frame(&Send{submission: submission{id{7}, 42}, Group: []byte("g"), Epoch: 3, Message: append(head, 1, 2)})
	got := frame(&Send{submission: submission{id{8}, 43}, Group: []byte("g"), Epoch: 3, Message: append(head, 3, 4)})
	if want := "1e" + "000010" + "00000008" + "000000000000002b" + "0020" + "0304"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	frame(&Deliver{Number: 5, Kind: DeliverContent, Group: []byte("g"), Time: 6, Payload: append(head, 1)})
	got = frame(&Deliver{Number: 6, Kind: DeliverContent, Group: []byte("g"), Time: 7, Payload: append(head, 2)})
	if want := "24" + "000013" + "0000000000000006" + "0000000000000007" + "0020" + "02"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Each refusal is one change away from a short form that passes.
func TestMalformedShortForms(t *testing.T) {
	first := mustMarshal(t, &Send{submission: submission{id{7}, 1}, Group: []byte("g"), Epoch: 3, Message: sealedLike(1, 1)})
	second := mustMarshal(t, &Send{submission: submission{id{8}, 2}, Group: []byte("g"), Epoch: 3, Message: sealedLike(1, 2)})
	// A delivery whose fields could be taken for those of a Send with 183 bytes.
	group := append(make([]byte, 8), 0, 0, 183)
	delivery := mustMarshal(t, &Deliver{Number: 1, Kind: DeliverContent, Group: group, Payload: sealedLike(1, 1)})
	var l Last
	l.Shorten(bytes.Clone(first), 0)
	short := l.Shorten(bytes.Clone(second), 0)
	change := func(at int, v byte) []byte {
		c := bytes.Clone(short)
		c[at] = v
		return c
	}
	read := func(frames ...[]byte) (err error) {
		var l Last
		for r := bytes.NewReader(bytes.Join(frames, nil)); err == nil && r.Len() > 0; {
			_, err = l.Read(r)
		}
		return err
	}
	if err := read(first, short); err != nil || Type(short[0]) != TypeSendNext {
		t.Fatalf("the honest control is refused: %v", err)
	}
	const same = headSize + frontSend
	for name, frames := range map[string][][]byte{
		"first on its stream":      {short},
		"behind a delivery":        {first, delivery, short},
		"nothing in common":        {first, change(same+1, 0)},
		"more than there was":      {first, change(same+1, 141)},
		"much more than there was": {first, change(same, 2)},
		"nothing of its own":       {first, short[:headSize+frontSend+2]},
		"counter zero":             {first, change(headSize+idSize+7, 0)},
		"a delivery behind a send": {first, change(0, byte(TypeDeliverNext))},
	} {
		if name == "nothing of its own" {
			frames[1] = bytes.Clone(frames[1])
			frames[1][3] = frontSend + 2
		}
		if err := read(frames...); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
	if _, err := Read(bytes.NewReader(short)); !errors.Is(err, ErrMalformed) {
		t.Errorf("on a stream without short forms: %v", err)
	}
	if err := read(first, short[:len(short)-1]); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: %v", err)
	}
	// A long form may not be longer than a frame, whatever its short form is.
	long := append([]byte{byte(TypeSendNext), 0x80, 0, 0}, short[headSize:same+2]...)
	if err := read(first, append(long, make([]byte, MaxFrame-frontSend-2)...)); !errors.Is(err, ErrMalformed) {
		t.Errorf("too long: %v", err)
	}
}

// A Last holds no more than it may, whatever passes.
func TestLastIsSmall(t *testing.T) {
	var l Last
	for _, f := range []Frame{
		&Send{submission: submission{id{7}, 1}, Group: make([]byte, 255), Message: make([]byte, MaxMessage)},
		&Deliver{Number: 1, Kind: DeliverWelcome, Group: make([]byte, 255), Payload: make([]byte, MaxMessage)},
	} {
		if _, err := l.Read(bytes.NewReader(mustMarshal(t, f))); err != nil {
			t.Fatal(err)
		}
	}
	if n := cap(l.kept); n > 2*(mostBetween+MaxSame) {
		t.Errorf("it holds %d bytes", n)
	}
}

// FuzzShortForms: what is accepted is the frames that it stands for, and comes back from
// their short forms.
func FuzzShortForms(f *testing.F) {
	frames, _ := conversation()
	var l Last
	var long, short []byte
	for _, c := range frames {
		long = append(long, mustMarshal(f, c)...)
		at := len(short)
		short = l.Shorten(append(short, mustMarshal(f, c)...), at)
	}
	f.Add(long)
	f.Add(short)
	f.Fuzz(func(t *testing.T, data []byte) {
		var reader, writer, again Last
		for r := bytes.NewReader(data); ; {
			got, body, err := reader.ReadRaw(r)
			if err != nil {
				return
			}
			whole, err := Marshal(got)
			if err != nil || !bytes.Equal(whole[headSize:], body) {
				t.Fatalf("%+v was accepted with the body %x (%v)", got, body, err)
			}
			back, err := again.Read(bytes.NewReader(writer.Shorten(whole, 0)))
			if err != nil || !reflect.DeepEqual(back, got) {
				t.Fatalf("%+v came back as %+v (%v)", got, back, err)
			}
		}
	})
}
