// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Sign has the officer's key sign a statement. The chain is the officer's, DER,
// leaf first; a root at its end is left out. Show the body's Words and ask
// before: the card asks for its PIN and shows nothing.
func Sign(ctx context.Context, signer crypto.Signer, chain [][]byte, h Head, b Body) ([]byte, error) {
	key, ok := signer.Public().(*ecdsa.PublicKey)
	if !ok || len(chain) < 2 || b == nil {
		return nil, errors.New("statement: signing takes an ECDSA key, a body, and the certificates of officer and issuer")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("statement: the officer's certificate: %w", err)
	}
	if !key.Equal(leaf.PublicKey) {
		return nil, errors.New("statement: the certificate is for another key than the card's: is it the right card and slot?")
	}
	alg, hash := algorithm(key.Curve)
	head := &header{alg: alg, kind: b.Kind(), chain: chain[:2]}
	s := &Statement{Head: h, Body: b}
	headText, err := write(head.members)
	if err != nil {
		return nil, err
	}
	payload, err := write(s.members)
	if err != nil {
		return nil, err
	}
	raw := base64.RawURLEncoding.AppendEncode(nil, headText)
	raw = append(raw, '.')
	raw = base64.RawURLEncoding.AppendEncode(raw, payload)
	// What nobody would accept is not worth a PIN.
	if _, err := Parse(seal(raw, make([]byte, 2*coordinate(alg)))); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	digest := digestOf(hash, raw)
	der, err := signer.Sign(rand.Reader, digest, hash)
	if err != nil {
		return nil, fmt.Errorf("statement: signing: %w", err)
	}
	if !ecdsa.VerifyASN1(key, digest, der) {
		return nil, errors.New("statement: the card returned a signature that does not verify")
	}
	signature, err := fixed(key.Curve, der)
	if err != nil {
		return nil, err
	}
	return seal(raw, signature), nil
}

func seal(signed, signature []byte) []byte {
	return base64.RawURLEncoding.AppendEncode(append(bytes.Clone(signed), '.'), signature)
}

// algorithm is the one that belongs to a curve; none for other curves.
func algorithm(curve elliptic.Curve) (string, crypto.Hash) {
	switch curve {
	case elliptic.P256():
		return algES256, crypto.SHA256
	case elliptic.P384():
		return algES384, crypto.SHA384
	}
	return "", 0
}

func digestOf(hash crypto.Hash, signed []byte) []byte {
	h := hash.New()
	h.Write(signed)
	return h.Sum(nil)
}

// fixed turns an ASN.1 signature into r ‖ s (RFC 7518, Section 3.4), with the
// lower of the two s that verify: nobody but the signer can then make a second
// statement out of a first.
func fixed(curve elliptic.Curve, der []byte) ([]byte, error) {
	r, s := new(big.Int), new(big.Int)
	var inner cryptobyte.String
	outer := cryptobyte.String(der)
	if !outer.ReadASN1(&inner, asn1.SEQUENCE) || !inner.ReadASN1Integer(r) || !inner.ReadASN1Integer(s) {
		return nil, errors.New("statement: the card's signature is malformed")
	}
	if n := curve.Params().N; !isLow(curve, s) {
		s.Sub(n, s)
	}
	size := (curve.Params().BitSize + 7) / 8
	out := make([]byte, 2*size)
	r.FillBytes(out[:size])
	s.FillBytes(out[size:])
	return out, nil
}

func isLow(curve elliptic.Curve, s *big.Int) bool {
	return s.Cmp(new(big.Int).Rsh(curve.Params().N, 1)) <= 0
}
