// SPDX-License-Identifier: Apache-2.0

// Package jws is the one form in which Valise signs documents: JSON Web
// Signature in compact serialization (RFC 7515, Section 3.1) with ECDSA (RFC
// 7518, Section 3.4), reduced to what has one spelling. Statements, manifests
// and bulletins stand on it.
//
//	raw, err := jws.Sign(ctx, signer, jws.Header{Typ: "valise-x+jws", X5C: chain}, payload)
//	m, err := jws.Parse(raw, 64<<10)
//	… whose key signs a document of m.Header.Typ is the caller's decision …
//	err = m.Verify(key)
//	err = jws.Decode(m.Payload, &body)
//
// The header holds alg, typ, and either kid or x5c or neither, in that order
// and nothing else. The algorithm follows from the key's curve: ES256 for
// P-256, ES384 for P-384. A header never chooses how, or by which key, it is
// verified.
//
// JSON is canonical by one rule: what [Decode] read into a struct must come out
// of [Encode] as the same bytes. Unknown, repeated and reordered members,
// spaces, other spellings of numbers and characters are all refused by it, so
// one document has one encoding, and its hash is a name for it. Structs must
// hold no maps and no interfaces.
//
// Never use a payload before Verify has returned nil.
package jws

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// Errors that callers tell apart.
var (
	// ErrMalformed is wrapped by everything that is wrong before a signature is
	// looked at.
	ErrMalformed = errors.New("malformed jws")
	// ErrSignature is returned by Verify for a signature that is not the key's.
	ErrSignature = errors.New("jws signature is wrong")
)

// A Header is the protected header; there is no other. Sign sets Alg.
type Header struct {
	Alg string   `json:"alg"`           // RFC 7515, Section 4.1.1
	Typ string   `json:"typ"`           // Section 4.1.9
	KID string   `json:"kid,omitempty"` // Section 4.1.4
	X5C [][]byte `json:"x5c,omitempty"` // Section 4.1.6: DER, the signer's first
}

// A Message is a JWS that was read. Nothing in it is to be believed before
// Verify.
type Message struct {
	Header  Header
	Payload []byte

	input     []byte // what is signed (RFC 7515, Section 5.1)
	signature []byte // r and s, each as long as the curve's order
}

var encoding = base64.RawURLEncoding.Strict()

// Parse reads a compact JWS of at most limit bytes; it accepts exactly what
// Sign writes.
func Parse(raw []byte, limit int) (*Message, error) {
	if len(raw) > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrMalformed, len(raw), limit)
	}
	parts := bytes.Split(raw, []byte("."))
	if len(parts) != 3 {
		return nil, fmt.Errorf("%w: want three parts with dots between them, there are %d", ErrMalformed, len(parts))
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = decodePart(part); err != nil {
			return nil, err
		}
	}
	m := &Message{Payload: decoded[1], signature: decoded[2]}
	m.input = raw[:len(parts[0])+1+len(parts[1])]
	if err := Decode(decoded[0], &m.Header); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if err := m.Header.check(len(m.signature)); err != nil {
		return nil, err
	}
	return m, nil
}

// decodePart refuses the line breaks that encoding/base64 skips.
func decodePart(part []byte) ([]byte, error) {
	data, err := encoding.DecodeString(string(part))
	if err != nil || encoding.EncodedLen(len(data)) != len(part) {
		return nil, fmt.Errorf("%w: a part is not base64url without padding", ErrMalformed)
	}
	return data, nil
}

func (h *Header) check(signature int) error {
	size := map[string]int{"ES256": 64, "ES384": 96}[h.Alg]
	switch {
	case size == 0:
		return fmt.Errorf("%w: algorithm %.20q, want ES256 or ES384", ErrMalformed, h.Alg)
	case signature != size:
		return fmt.Errorf("%w: a signature of %d bytes, %s has %d", ErrMalformed, signature, h.Alg, size)
	case h.Typ == "":
		return fmt.Errorf("%w: no typ", ErrMalformed)
	case h.KID != "" && len(h.X5C) > 0:
		return fmt.Errorf("%w: both kid and x5c", ErrMalformed)
	case len(h.X5C) > maxChain:
		return fmt.Errorf("%w: %d certificates, at most %d are allowed", ErrMalformed, len(h.X5C), maxChain)
	}
	return nil
}

// Verify checks the signature by key, an ECDSA key on the curve that the
// algorithm names.
func (m *Message) Verify(key crypto.PublicKey) error {
	alg, hash, size, err := algorithmOf(key)
	if err != nil {
		return err
	}
	if m.Header.Alg != alg || len(m.signature) != 2*size {
		return fmt.Errorf("%w: signed with %s, this key signs with %s", ErrSignature, m.Header.Alg, alg)
	}
	h := hash.New()
	h.Write(m.input)
	r, s := new(big.Int).SetBytes(m.signature[:size]), new(big.Int).SetBytes(m.signature[size:])
	ec := key.(*ecdsa.PublicKey)
	if isHigh(ec.Curve, s) {
		return fmt.Errorf("%w: s is in the upper half", ErrSignature)
	}
	if !ecdsa.Verify(ec, h.Sum(nil), r, s) {
		return ErrSignature
	}
	return nil
}

// isHigh reports whether s is in the upper half of the curve's order. With r
// and s, r and -s verifies too: only the lower one is ours, so that nobody but
// the signer can make another document of the same words.
func isHigh(curve elliptic.Curve, s *big.Int) bool {
	return s.Cmp(new(big.Int).Rsh(curve.Params().N, 1)) > 0
}

// Sign writes the compact JWS of payload. Its header's algorithm follows from
// the signer's key. What the signer answers is verified before it is returned.
func Sign(ctx context.Context, signer crypto.Signer, h Header, payload []byte) ([]byte, error) {
	alg, hash, size, err := algorithmOf(signer.Public())
	if err != nil {
		return nil, err
	}
	h.Alg = alg
	if err := h.check(2 * size); err != nil {
		return nil, err
	}
	header, err := Encode(h)
	if err != nil {
		return nil, err
	}
	input := encoding.AppendEncode(nil, header)
	input = encoding.AppendEncode(append(input, '.'), payload)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	digest := hash.New()
	digest.Write(input)
	der, err := signer.Sign(rand.Reader, digest.Sum(nil), hash)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", h.Typ, err)
	}
	signature, err := fixed(signer.Public().(*ecdsa.PublicKey).Curve, der, size)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", h.Typ, err)
	}
	m := Message{Header: h, input: input, signature: signature}
	if err := m.Verify(signer.Public()); err != nil {
		return nil, fmt.Errorf("sign %s: the hardware's answer: %w", h.Typ, err)
	}
	return encoding.AppendEncode(append(input, '.'), signature), nil
}

// fixed turns ECDSA-Sig-Value (RFC 3279, Section 2.2.3) into r and the lower s
// of equal length (RFC 7518, Section 3.4).
func fixed(curve elliptic.Curve, der []byte, size int) ([]byte, error) {
	var value struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &value)
	if err != nil || len(rest) != 0 || value.R.Sign() <= 0 || value.S.Sign() <= 0 ||
		value.R.BitLen() > 8*size || value.S.BitLen() > 8*size {
		return nil, errors.New("the hardware's answer is not an ECDSA signature")
	}
	if isHigh(curve, value.S) {
		value.S.Sub(curve.Params().N, value.S)
		if value.S.Sign() <= 0 {
			return nil, errors.New("the hardware's answer is not an ECDSA signature")
		}
	}
	out := make([]byte, 2*size)
	value.R.FillBytes(out[:size])
	value.S.FillBytes(out[size:])
	return out, nil
}

// Algorithm returns the one with which a key signs (RFC 7518, Section 3.4).
func Algorithm(key crypto.PublicKey) (string, error) {
	alg, _, _, err := algorithmOf(key)
	return alg, err
}

func algorithmOf(key crypto.PublicKey) (alg string, hash crypto.Hash, size int, err error) {
	ec, ok := key.(*ecdsa.PublicKey)
	switch {
	case ok && ec.Curve == elliptic.P256():
		return "ES256", crypto.SHA256, 32, nil
	case ok && ec.Curve == elliptic.P384():
		return "ES384", crypto.SHA384, 48, nil
	}
	return "", 0, 0, errors.New("documents are signed by ECDSA keys on P-256 or P-384 only")
}

// Encode writes the canonical JSON of a struct: members in the struct's order,
// no spaces, no escapes but those that JSON demands and U+2028 and U+2029.
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Decode reads canonical JSON into a struct; it accepts exactly what Encode
// writes of that struct.
func Decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	again, err := Encode(v)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !bytes.Equal(again, data) {
		return fmt.Errorf("%w: the json is not canonical", ErrMalformed)
	}
	return nil
}
