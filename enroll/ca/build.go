// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// An issuer is a key in hardware with the certificate (or template) that names it.
type issuer struct {
	cert      *x509.Certificate // names issuer and authority key identifier
	signer    crypto.Signer
	throwaway *ecdsa.PrivateKey // same curve; it never signs anything that leaves
	sigAlg    x509.SignatureAlgorithm
	hash      crypto.Hash
}

func newIssuer(cert *x509.Certificate, signer crypto.Signer) (*issuer, error) {
	pub, ok := signer.Public().(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("ca: the issuing key is not an ECDSA key")
	}
	is := &issuer{cert: cert, signer: signer, sigAlg: x509.ECDSAWithSHA256, hash: crypto.SHA256}
	switch pub.Curve {
	case elliptic.P256():
	case elliptic.P384():
		is.sigAlg, is.hash = x509.ECDSAWithSHA384, crypto.SHA384
	default:
		return nil, errors.New("ca: the issuing key is on neither P-256 nor P-384")
	}
	var err error
	is.throwaway, err = ecdsa.GenerateKey(pub.Curve, rand.Reader)
	return is, err
}

// build makes the exact TBSCertificate (RFC 5280, Section 4.1.2) of a template and
// lints it, under a signature by the throwaway key. The HSM signs it later, unchanged.
func (is *issuer) build(template *x509.Certificate) ([]byte, error) {
	der, err := is.draft(template)
	if err != nil {
		return nil, err
	}
	if err := lintCertificate(der); err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("ca: build certificate: %w", err)
	}
	return cert.RawTBSCertificate, nil
}

// draft is the certificate of a template under the throwaway key.
func (is *issuer) draft(template *x509.Certificate) ([]byte, error) {
	t := *template
	t.SignatureAlgorithm = is.sigAlg
	parent := *is.cert
	parent.PublicKey = nil // else CreateCertificate asks for the hardware key itself
	der, err := x509.CreateCertificate(rand.Reader, &t, &parent, t.PublicKey, is.throwaway)
	if err != nil {
		return nil, fmt.Errorf("ca: build certificate: %w", err)
	}
	return der, nil
}

// sign has the hardware sign a TBSCertificate and returns the certificate, verified
// against the issuer's public key: a token that answers with anything else must not
// get a certificate published.
func (is *issuer) sign(tbs []byte) ([]byte, error) {
	h := is.hash.New()
	h.Write(tbs)
	signature, err := is.signer.Sign(rand.Reader, h.Sum(nil), is.hash)
	if err != nil {
		return nil, &SigningError{err}
	}
	der, err := assemble(tbs, signature)
	if err != nil {
		return nil, err
	}
	if err := is.verify(der, tbs); err != nil {
		return nil, &SigningError{err}
	}
	return der, nil
}

// A SigningError says that the token did not sign. What was to be signed stays
// stored, and the same bytes are signed when the token is back.
type SigningError struct{ Err error }

func (e *SigningError) Error() string { return "ca: the issuing token did not sign: " + e.Err.Error() }
func (e *SigningError) Unwrap() error { return e.Err }

// assemble writes
//
//	Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue BIT STRING }
//
// with the algorithm that the TBSCertificate names (RFC 5280, Section 4.1.1.2: both
// must be the same).
func assemble(tbs, signature []byte) ([]byte, error) {
	alg, err := algorithmOf(tbs)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(alg)
		b.AddASN1BitString(signature)
	})
	return b.Bytes()
}

// algorithmOf returns a TBSCertificate's signature field, as it stands.
func algorithmOf(tbs []byte) ([]byte, error) {
	var body, alg cryptobyte.String
	s := cryptobyte.String(tbs)
	if !s.ReadASN1(&body, tag.SEQUENCE) || !s.Empty() ||
		!body.SkipASN1(tag.Tag(0).ContextSpecific().Constructed()) ||
		!body.SkipASN1(tag.INTEGER) || !body.ReadASN1Element(&alg, tag.SEQUENCE) {
		return nil, errors.New("ca: stored TBSCertificate is damaged")
	}
	return alg, nil
}

func (is *issuer) verify(der, tbs []byte) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if !bytes.Equal(cert.RawTBSCertificate, tbs) {
		return errors.New("the certificate does not hold what was to be signed")
	}
	signed := x509.Certificate{PublicKey: is.signer.Public(), PublicKeyAlgorithm: x509.ECDSA}
	return signed.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature)
}

// newSerial draws a serial number of 159 random bits, the first of them set, so that
// all have the same length and none is zero (RFC 5280, Section 4.1.2.2).
func newSerial() *big.Int {
	b := make([]byte, 20)
	rand.Read(b)
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}
