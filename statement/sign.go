// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"

	"valise/internal/jws"
)

// Sign has the officer's key sign a statement. The chain is the officer's, DER,
// leaf first; a root at its end is left out. Show the body's Words and ask
// before: the card asks for its PIN and shows nothing.
func Sign(ctx context.Context, signer crypto.Signer, chain [][]byte, h Head, b Body) ([]byte, error) {
	key, ok := signer.Public().(*ecdsa.PublicKey)
	if !ok || len(chain) < chainLength || b == nil {
		return nil, errors.New("statement: signing takes an ECDSA key, a body, and the certificates of officer and issuer")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("statement: the officer's certificate: %w", err)
	}
	if !key.Equal(leaf.PublicKey) {
		return nil, errors.New("statement: the certificate is for another key than the card's: is it the right card and slot?")
	}
	head := jws.Header{Typ: typPrefix + string(b.Kind()) + typSuffix, X5C: chain[:chainLength]}
	payload, err := draft(&head, &Statement{Head: h, Body: b})
	if err != nil {
		return nil, err
	}
	raw, err := jws.Sign(ctx, signer, head, payload)
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	_, err = Parse(raw)
	return raw, err
}

// draft writes the payload, and refuses what nobody would accept: that is not
// worth a PIN.
func draft(head *jws.Header, s *Statement) ([]byte, error) {
	kind, err := kindOf(head)
	if err != nil {
		return nil, refuse(ReasonMalformed, "header: %w", err)
	}
	payload, err := write(s.members)
	if err != nil {
		return nil, err
	}
	size := base64.RawURLEncoding.EncodedLen(len(payload))
	for _, der := range head.X5C {
		size += base64.RawURLEncoding.EncodedLen(base64.StdEncoding.EncodedLen(len(der)))
	}
	if size > limitOf(kind) {
		return nil, refuse(ReasonTooLarge, "more than %d octets, at most %d are allowed for kind %s", size, limitOf(kind), kind)
	}
	return payload, nil
}
