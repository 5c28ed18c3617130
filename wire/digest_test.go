// SPDX-License-Identifier: Apache-2.0

package wire

import (
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
