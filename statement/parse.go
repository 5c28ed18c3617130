// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"bytes"
	"encoding/base64"
	"strings"

	"valise/identity"
)

// algorithms are those of RFC 7518, Section 3.4, for the two curves.
var algorithms = []string{algES256, algES384}

const (
	algES256 = "ES256"
	algES384 = "ES384"

	typPrefix, typSuffix = "valise-", "+jws"
)

// A header is what stands before the first dot.
type header struct {
	alg   string
	kind  Kind
	chain [][]byte
}

// members is the header's list (RFC 7515, Sections 4.1.1, 4.1.6, 4.1.9).
func (h *header) members(m *members) {
	m.object(func() {
		choice(m, "alg", &h.alg, algorithms...)
		typ := typPrefix + string(h.kind) + typSuffix
		m.name("typ")
		m.quoted(&typ, maxToken)
		name, ok := strings.CutPrefix(typ, typPrefix)
		name, is := strings.CutSuffix(name, typSuffix)
		h.kind = Kind(name)
		m.check(ok && is && kinds[h.kind].body != nil, "typ %.40q is no statement's", typ)
		list(m, "x5c", &h.chain, 2, m.certificate)
		m.check(len(h.chain) == 2, "x5c: want the officer's certificate and the issuing one")
	})
}

// certificate is DER in base64 with padding, unlike everything else (RFC 7515,
// Section 4.1.6).
func (m *members) certificate(der *[]byte) {
	if !m.reading {
		m.out = append(m.out, '"')
		m.out = base64.StdEncoding.AppendEncode(m.out, *der)
		m.out = append(m.out, '"')
	} else {
		m.literal(`"`)
		end := bytes.IndexByte(m.in, '"')
		if end < 0 || m.err != nil {
			m.fail("%w: a certificate has no end", errSpelling)
			return
		}
		*der = m.decode(base64.StdEncoding.Strict(), m.in[:end])
		m.in = m.in[end+1:]
	}
	m.check(len(*der) > 0 && len(*der) <= identity.MaxCertificateSize, "x5c: %d octets, want 1 to %d", len(*der), identity.MaxCertificateSize)
}

// members is the payload's list.
func (s *Statement) members(m *members) {
	m.object(func() {
		m.mustHash("authority", &s.Head.Authority)
		m.id("id", &s.Head.ID)
		m.moment("time", &s.Head.Time)
		m.moment("expires", &s.Head.Expires)
		m.name("body")
		m.object(func() { s.Body.members(m) })
	})
	life := kinds[s.Body.Kind()].within
	if life == 0 {
		life = MaxLife
	}
	m.check(s.Head.Expires.After(s.Head.Time) && s.Head.Expires.Sub(s.Head.Time) <= life, "expires: want up to %v after time", life)
}

// Parse reads a statement and checks that it is written in the one canonical
// form and could have been signed. It verifies nothing: see Verify.
func Parse(raw []byte) (*Statement, error) {
	s, _, _, err := parse(raw)
	return s, err
}

func parse(raw []byte) (s *Statement, h *header, signature []byte, err error) {
	if len(raw) > MaxLargeSize {
		return nil, nil, nil, refuse(ReasonTooLarge, "%d octets, at most %d are allowed", len(raw), MaxLargeSize)
	}
	parts := bytes.Split(raw, []byte("."))
	if len(parts) != 3 || len(parts[0]) > base64.RawURLEncoding.EncodedLen(maxHeader) {
		return nil, nil, nil, refuse(ReasonMalformed, "want header.payload.signature")
	}
	var decoded [3][]byte
	for i, part := range parts {
		m := &members{reading: true}
		if decoded[i] = m.decode(base64.RawURLEncoding.Strict(), part); m.err != nil {
			return nil, nil, nil, refuse(ReasonMalformed, "part %d: %w", i+1, m.err)
		}
	}
	h = new(header)
	if err := read(decoded[0], h.members); err != nil {
		return nil, nil, nil, refuse(ReasonMalformed, "header: %w", err)
	}
	if !kinds[h.kind].large && len(raw) > MaxSize {
		return nil, nil, nil, refuse(ReasonTooLarge, "%d octets, at most %d are allowed for kind %s", len(raw), MaxSize, h.kind)
	}
	s = &Statement{Body: kinds[h.kind].body(), Chain: h.chain, Raw: bytes.Clone(raw)}
	if err := read(decoded[1], s.members); err != nil {
		return nil, nil, nil, refuse(ReasonMalformed, "payload: %w", err)
	}
	if want := 2 * coordinate(h.alg); len(decoded[2]) != want {
		return nil, nil, nil, refuse(ReasonMalformed, "signature: %d octets, want %d", len(decoded[2]), want)
	}
	return s, h, decoded[2], nil
}

// read reads text with a list of members, and makes sure that writing them
// gives the same text.
func read(text []byte, list func(*members)) error {
	in := &members{reading: true, in: text}
	list(in)
	if _, err := in.done(); err != nil {
		return err
	}
	again, err := write(list)
	if err == nil && !bytes.Equal(again, text) {
		err = errSpelling
	}
	return err
}

func write(list func(*members)) ([]byte, error) {
	out := new(members)
	list(out)
	return out.done()
}

// coordinate is the size of r and of s (RFC 7518, Section 3.4).
func coordinate(alg string) int {
	if alg == algES256 {
		return 32
	}
	return 48
}
