// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"embed"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

//go:embed roots/*.pem
var builtIn embed.FS

// BuiltInVersion names the set of vendors' certificates under roots/; it
// changes with every change there.
const BuiltInVersion = "yubico-2025-02-03"

// Endorsements are what vendors say: the roots that evidence may end at, and
// intermediates that cards do not carry. The zero value endorses nothing.
type Endorsements struct {
	version       string
	roots         []endorsed
	intermediates []*x509.Certificate
}

type endorsed struct {
	cert    *x509.Certificate
	builtIn bool
}

// BuiltIn returns the vendors' published certificates that this program was
// built with (attest/roots/README.md lists them).
func BuiltIn() *Endorsements {
	e := builtInOnce()
	return &Endorsements{e.version, slices.Clone(e.roots), slices.Clone(e.intermediates)}
}

var builtInOnce = sync.OnceValue(func() *Endorsements {
	e := &Endorsements{version: BuiltInVersion}
	names, err := fs.Glob(builtIn, "roots/*.pem")
	if err != nil {
		panic(err) // a constant pattern
	}
	for _, name := range names {
		data, err := builtIn.ReadFile(name)
		if err != nil {
			panic(err) // embedded above
		}
		if err := e.add(data, true); err != nil {
			panic(fmt.Sprintf("attest: %s: %v", name, err)) // TestBuiltIn reads each
		}
	}
	return e
})

// Configured returns the endorsements in a PEM file: self-signed certificates
// are roots, all others intermediates. At least one root must be there. A root
// with the key of a vendor's published one counts as that one, wherever it is
// read from.
func Configured(pemData []byte) (*Endorsements, error) {
	sum := sha256.Sum256(pemData)
	e := &Endorsements{version: "configured-" + hex.EncodeToString(sum[:8])}
	if err := e.add(pemData, false); err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	if len(e.roots) == 0 {
		return nil, errors.New("roots: no self-signed certificate among them")
	}
	for i := range e.roots {
		e.roots[i].builtIn = published(e.roots[i].cert)
	}
	return e, nil
}

// published reports whether cert has the key of a built-in root.
func published(cert *x509.Certificate) bool {
	return slices.ContainsFunc(builtInOnce().roots, func(r endorsed) bool {
		return bytes.Equal(r.cert.RawSubjectPublicKeyInfo, cert.RawSubjectPublicKeyInfo)
	})
}

// Join returns the endorsements of all arguments together.
func Join(sets ...*Endorsements) (*Endorsements, error) {
	joined := new(Endorsements)
	var versions []string
	for _, e := range sets {
		versions = append(versions, e.version)
		joined.roots = append(joined.roots, e.roots...)
		joined.intermediates = append(joined.intermediates, e.intermediates...)
	}
	joined.version = strings.Join(versions, "+")
	return joined, joined.check()
}

// Version names the set, for the record of an appraisal.
func (e *Endorsements) Version() string { return e.version }

// Roots returns the roots' certificates.
func (e *Endorsements) Roots() []*x509.Certificate {
	roots := make([]*x509.Certificate, len(e.roots))
	for i, r := range e.roots {
		roots[i] = r.cert
	}
	return roots
}

// PEM returns all certificates in the form that Configured reads, roots first: what
// an authority puts under its signature, so that others can judge as it did.
func (e *Endorsements) PEM() []byte {
	var out []byte
	add := func(cert *x509.Certificate) {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	for _, r := range e.roots {
		add(r.cert)
	}
	for _, cert := range e.intermediates {
		add(cert)
	}
	return out
}

func (e *Endorsements) check() error {
	if len(e.roots) > maxEndorsements || len(e.intermediates) > maxEndorsements {
		return fmt.Errorf("more than %d roots or intermediates", maxEndorsements)
	}
	return nil
}

func (e *Endorsements) add(data []byte, isBuiltIn bool) error {
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 {
				return errors.New("text that is no PEM certificate")
			}
			return e.check()
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("PEM block %q, want CERTIFICATE", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return err
		}
		if err := mayIssue(cert, 0); err != nil && !oldRoot(cert) {
			return fmt.Errorf("%s: %w", cert.Subject, err)
		}
		if bytes.Equal(cert.RawSubject, cert.RawIssuer) {
			if err := checkSignature(cert, cert); err != nil {
				return fmt.Errorf("%s: %w", cert.Subject, err)
			}
			e.roots = append(e.roots, endorsed{cert, isBuiltIn})
		} else {
			e.intermediates = append(e.intermediates, cert)
		}
	}
}

// oldRoot reports whether cert is self-signed and of X.509 version 1, which has
// no extensions to say what a key may do. Marvell's root is one: it is taken in,
// and stands above nothing but that vendor's cards, since mayIssue refuses it.
func oldRoot(cert *x509.Certificate) bool {
	return cert.Version == 1 && bytes.Equal(cert.RawSubject, cert.RawIssuer)
}

// holds reports whether der is one of the endorsed certificates.
func (e *Endorsements) holds(der []byte) bool {
	return slices.ContainsFunc(e.roots, func(r endorsed) bool { return bytes.Equal(r.cert.Raw, der) }) ||
		slices.ContainsFunc(e.intermediates, func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, der) })
}

func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}
