// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"crypto/sha256"
	"testing"
)

// spec/wire.md, Section 5: the request id does not count, everything else does.
func TestDigest(t *testing.T) {
	make := func(change func(*Send)) [32]byte {
		s := &Send{Group: []byte("g"), Epoch: 7, Message: []byte("sealed")}
		s.ID, s.Counter = 9, 3
		change(s)
		d, err := Digest(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	base := make(func(*Send) {})
	if make(func(s *Send) { s.ID = 10 }) != base {
		t.Error("the digest depends on the request id")
	}
	for name, change := range map[string]func(*Send){
		"counter": func(s *Send) { s.Counter++ },
		"group":   func(s *Send) { s.Group = []byte("h") },
		"epoch":   func(s *Send) { s.Epoch++ },
		"message": func(s *Send) { s.Message = []byte("sealeD") },
	} {
		if make(change) == base {
			t.Errorf("the digest does not depend on the %s", name)
		}
	}
	want := []byte{byte(TypeSend), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1, 'g', 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 6}
	if base != sha256.Sum256(append(want, "sealed"...)) {
		t.Error("the digest is not over type and body as the specification says")
	}
}

// A submission's body gives the digest of the submission, and is left as it was.
func TestDigestOfBody(t *testing.T) {
	s := &Send{Group: []byte("g"), Epoch: 7, Message: []byte("sealed")}
	s.ID, s.Counter = 9, 3
	frame := mustMarshal(t, s)
	want, err := Digest(s)
	if err != nil {
		t.Fatal(err)
	}
	_, body, err := ReadRaw(bytes.NewReader(frame))
	if err != nil {
		t.Fatal(err)
	}
	if DigestBody(TypeSend, body) != want {
		t.Error("the digest of the body is not that of the submission")
	}
	if DigestBody(TypeCommit, body) == want {
		t.Error("the digest does not depend on the type")
	}
	if !bytes.Equal(body, frame[4:]) {
		t.Error("the body was changed")
	}
}

// What cannot be encoded leaves nothing behind.
func TestAppendRefusal(t *testing.T) {
	before := []byte("before")
	got, err := Append(before, &Send{Group: []byte("g"), Epoch: 7, Message: []byte("no counter")})
	if err == nil || string(got) != "before" {
		t.Errorf("got %q, %v", got, err)
	}
	s := &Send{Group: []byte("g"), Epoch: 7, Message: []byte("sealed")}
	s.Counter = 1
	got, err = Append(before, s)
	if err != nil || !bytes.Equal(got, append([]byte("before"), mustMarshal(t, s)...)) {
		t.Errorf("got %q, %v", got, err)
	}
}

// Carrying a message costs its bytes: the body when it is read, nothing when it is
// written.
func TestAllocations(t *testing.T) {
	s := &Send{Group: make([]byte, 32), Epoch: 7, Message: make([]byte, 1024)}
	s.Counter = 1
	frame := mustMarshal(t, s)
	r := bytes.NewReader(nil)
	if n := testing.AllocsPerRun(100, func() {
		r.Reset(frame)
		if _, _, err := ReadRaw(r); err != nil {
			t.Fatal(err)
		}
	}); n > 2 {
		t.Errorf("reading takes %v allocations, want the body and the frame", n)
	}
	buffer := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := Append(buffer, s); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("writing takes %v allocations", n)
	}
}
