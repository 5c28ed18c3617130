// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"valise/identity"
	"valise/internal/jws"
)

const (
	typPrefix, typSuffix = "valise-", "+jws"

	// certificates in a header: the officer's and the issuing one.
	chainLength = 2
)

// kindOf checks what a statement's header holds besides alg: a typ of ours, and the
// certificates (RFC 7515, Sections 4.1.6, 4.1.9).
func kindOf(h *jws.Header) (Kind, error) {
	name, ok := strings.CutPrefix(h.Typ, typPrefix)
	name, is := strings.CutSuffix(name, typSuffix)
	k := Kind(name)
	switch {
	case !ok || !is || kinds[k].body == nil:
		return "", fmt.Errorf("typ %.40q is no statement's", h.Typ)
	case h.KID != "" || len(h.X5C) != chainLength:
		return "", errors.New("x5c: want the officer's certificate and the issuing one, and no kid")
	}
	for _, der := range h.X5C {
		if len(der) == 0 || len(der) > identity.MaxCertificateSize {
			return "", fmt.Errorf("x5c: %d octets, want 1 to %d", len(der), identity.MaxCertificateSize)
		}
	}
	return k, nil
}

// limitOf bounds a statement of a kind.
func limitOf(k Kind) int {
	if kinds[k].large {
		return MaxLargeSize
	}
	return MaxSize
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
	s, _, err := parse(raw)
	return s, err
}

func parse(raw []byte) (*Statement, *jws.Message, error) {
	if len(raw) > MaxLargeSize {
		return nil, nil, refuse(ReasonTooLarge, "%d octets, at most %d are allowed", len(raw), MaxLargeSize)
	}
	if dot := bytes.IndexByte(raw, '.'); dot < 0 || dot > base64.RawURLEncoding.EncodedLen(maxHeader) {
		return nil, nil, refuse(ReasonMalformed, "want header.payload.signature")
	}
	raw = bytes.Clone(raw)
	m, err := jws.Parse(raw, MaxLargeSize)
	if err != nil {
		return nil, nil, refuse(ReasonMalformed, "%w", err)
	}
	kind, err := kindOf(&m.Header)
	if err != nil {
		return nil, nil, refuse(ReasonMalformed, "header: %w", err)
	}
	if len(raw) > limitOf(kind) {
		return nil, nil, refuse(ReasonTooLarge, "%d octets, at most %d are allowed for kind %s", len(raw), limitOf(kind), kind)
	}
	s := &Statement{Body: kinds[kind].body(), Chain: m.Header.X5C, Raw: raw}
	if err := read(m.Payload, s.members); err != nil {
		return nil, nil, refuse(ReasonMalformed, "payload: %w", err)
	}
	return s, m, nil
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
