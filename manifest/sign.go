// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"valise/internal/jws"
)

// ErrRefused is wrapped by every error of a document that must not be believed.
var ErrRefused = errors.New("manifest refused")

// The types of the documents (RFC 7515, Section 4.1.9).
const (
	foundingType = "valise-founding+jws"
	manifestType = "valise-manifest+jws"
)

// A Document is a *Founding or a *Manifest.
type Document interface {
	typ() string
	limit() int
	payload() any // the struct that is its JSON
	check(root *x509.Certificate) error
}

// Sign has the root's key sign a document. The result is checked as a stranger
// would check it, so nothing leaves the ceremony that nobody would accept.
func Sign(ctx context.Context, root crypto.Signer, rootCert *x509.Certificate, d Document) ([]byte, error) {
	public, ok := root.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || rootCert == nil || !public.Equal(rootCert.PublicKey) {
		return nil, errors.New("manifest: the root's certificate is not for the key that is to sign")
	}
	if err := d.check(rootCert); err != nil {
		return nil, err
	}
	payload, err := jws.Encode(d.payload())
	if err != nil {
		return nil, err
	}
	raw, err := jws.Sign(ctx, root, jws.Header{Typ: d.typ(), X5C: [][]byte{rootCert.Raw}}, payload)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if len(raw) > d.limit() {
		return nil, fmt.Errorf("manifest: %d bytes, at most %d are allowed", len(raw), d.limit())
	}
	return raw, nil
}

// open verifies a document's signature by the pinned root and returns its
// payload.
func open(raw []byte, root *x509.Certificate, d Document) ([]byte, error) {
	if root == nil {
		return nil, refuse("no root to check it with")
	}
	m, err := jws.Parse(raw, d.limit())
	if err != nil {
		return nil, refuse("%w", err)
	}
	if m.Header.Typ != d.typ() {
		return nil, refuse("its typ is %.40q, want %q", m.Header.Typ, d.typ())
	}
	if len(m.Header.X5C) != 1 || !bytes.Equal(m.Header.X5C[0], root.Raw) {
		return nil, refuse("it does not name the pinned root as its signer")
	}
	if err := m.Verify(root.PublicKey); err != nil {
		return nil, refuse("%w", err)
	}
	return m.Payload, nil
}

// Digest names a document: the SHA-256 of its payload. The JWS itself would not
// do, because anybody can turn an ECDSA signature into a second one that counts
// too.
func Digest(raw []byte) ([32]byte, error) {
	m, err := jws.Parse(raw, maxFounding)
	if err != nil {
		return [32]byte{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return sha256.Sum256(m.Payload), nil
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// seconds writes a time as RFC 7519, Section 2 writes NumericDate, without
// fractions; the zero time is 0.
func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromSeconds(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}

// lastSecond is the last that X.509 can write (RFC 5280, Section 4.1.2.5).
const lastSecond = 253402300799

func checkTime(what string, t time.Time, mayBeZero bool) error {
	if n := seconds(t); n < 0 || n > lastSecond || n == 0 && !mayBeZero {
		return refuse("%s: %v is no time", what, t)
	}
	return nil
}
