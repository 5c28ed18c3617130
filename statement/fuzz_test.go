// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"bytes"
	"crypto/elliptic"
	"encoding/base64"
	"testing"

	"valise/internal/jws"
)

// Whatever is accepted is written again as the same octets.
func FuzzParse(f *testing.F) {
	h := newHouse(f, elliptic.P256())
	for kind, body := range bodies(f) {
		f.Add(h.sign(h.signer(kind), body))
	}
	f.Add([]byte("e30.e30."))
	trust := h.trust()
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := Parse(raw)
		if (s == nil) == (err == nil) || err != nil && ReasonOf(err) == "" {
			t.Fatalf("%v, %v", s, err)
		}
		if err != nil {
			return
		}
		_, m, err := parse(raw)
		must(t, err)
		head, err := jws.Encode(m.Header)
		must(t, err)
		payload, err := write(s.members)
		must(t, err)
		signed := base64.RawURLEncoding.AppendEncode(nil, head)
		signed = base64.RawURLEncoding.AppendEncode(append(signed, '.'), payload)
		if again := append(signed, raw[bytes.LastIndexByte(raw, '.'):]...); !bytes.Equal(again, raw) {
			t.Errorf("%s is written as %s", raw, again)
		}
		if len(s.Body.Words()) == 0 || BodyDigest(s.Body) == [32]byte{} {
			t.Errorf("nothing to read in %s", payload)
		}
		if s, err := Verify(raw, trust, h.root, noon); (s == nil) == (err == nil) {
			t.Errorf("%v, %v", s, err)
		}
	})
}

func FuzzParseBody(f *testing.F) {
	for kind, body := range bodies(f) {
		text, err := MarshalBody(body)
		must(f, err)
		f.Add(string(kind), text)
	}
	f.Fuzz(func(t *testing.T, kind string, text []byte) {
		b, err := ParseBody(Kind(kind), text)
		if err != nil {
			return
		}
		if again, err := MarshalBody(b); err != nil || !bytes.Equal(again, text) {
			t.Errorf("%s is written as %s, %v", text, again, err)
		}
	})
}
