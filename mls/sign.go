// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"
)

// signContent is SignContent of RFC 9420, Section 5.1.2.
func signContent(label string, content []byte) []byte {
	b := make([]byte, 0, 16+len(label)+len(content))
	return appendOpaque(appendOpaque(b, []byte("MLS 1.0 "+label)), content)
}

// signWithLabel is SignWithLabel of RFC 9420, Section 5.1.2.
func (s *suiteParams) signWithLabel(signer crypto.Signer, label string, content []byte) ([]byte, error) {
	msg, opts := signContent(label, content), crypto.Hash(0)
	if s.curve != nil {
		msg, opts = s.sum(msg), s.hash
	}
	s.counts.add(opSign, len(content))
	sig, err := signer.Sign(rand.Reader, msg, opts)
	if err != nil {
		return nil, fmt.Errorf("mls: sign %s: %w", label, err)
	}
	return sig, nil
}

// verifyWithLabel is VerifyWithLabel of RFC 9420, Section 5.1.2.
func (s *suiteParams) verifyWithLabel(pub []byte, label string, content, sig []byte) error {
	s.counts.add(opVerify, len(content))
	msg := signContent(label, content)
	if s.curve == nil {
		if len(pub) != ed25519.PublicKeySize || !ed25519.Verify(pub, msg, sig) {
			return fmt.Errorf("%w: %s", ErrSignature, label)
		}
		return nil
	}
	key, err := ecdsa.ParseUncompressedPublicKey(s.curve, pub)
	if err != nil {
		return fmt.Errorf("%w: %s: key is not a point of the suite's curve", ErrSignature, label)
	}
	if !ecdsa.VerifyASN1(key, s.sum(msg), sig) {
		return fmt.Errorf("%w: %s", ErrSignature, label)
	}
	return nil
}

// signatureKey encodes a public key as a SignaturePublicKey, RFC 9420, Section
// 5.1.1; a key that is not of the suite's algorithm is refused.
func (s *suiteParams) signatureKey(pub crypto.PublicKey) ([]byte, error) {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		if s.curve == nil && len(k) == ed25519.PublicKeySize {
			return bytes.Clone(k), nil
		}
	case *ecdsa.PublicKey:
		if s.curve != nil && k.Curve == s.curve {
			return k.Bytes()
		}
	}
	return nil, fmt.Errorf("%w: %v does not sign with a %T", ErrSuite, s.id, pub)
}

// checkSignatureKey refuses what is not a signature key of the suite.
func (s *suiteParams) checkSignatureKey(pub []byte) error {
	if s.curve == nil {
		if len(pub) != ed25519.PublicKeySize {
			return fmt.Errorf("%w: signature key has %d bytes", ErrInvalidLeaf, len(pub))
		}
		return nil
	}
	s.counts.add(opCheck, len(pub))
	if _, err := ecdsa.ParseUncompressedPublicKey(s.curve, pub); err != nil {
		return fmt.Errorf("%w: signature key: %w", ErrInvalidLeaf, err)
	}
	return nil
}

// checkCredential binds a credential to a signature key; then the caller
// decides.
func (s *suiteParams) checkCredential(auth Authenticator, c Credential, signatureKey []byte) error {
	if err := s.bindCredential(c, signatureKey); err != nil {
		return err
	}
	return authenticate(auth, c, signatureKey)
}

// bindCredential: an X.509 leaf certificate must hold the signature key, RFC
// 9420, Section 5.3.
func (s *suiteParams) bindCredential(c Credential, signatureKey []byte) error {
	if c.Type != CredentialX509 {
		return nil
	}
	if len(c.Certificates) == 0 {
		return fmt.Errorf("%w: empty certificate chain", ErrCredential)
	}
	cert, err := x509.ParseCertificate(c.Certificates[0])
	if err != nil {
		return fmt.Errorf("%w: certificate does not parse", ErrCredential)
	}
	key, err := s.signatureKey(cert.PublicKey)
	if err != nil || !bytes.Equal(key, signatureKey) {
		return fmt.Errorf("%w: certificate is for another key than the leaf's", ErrCredential)
	}
	return nil
}

// authenticate asks the caller, who is never asked two things at once.
func authenticate(auth Authenticator, c Credential, signatureKey []byte) error {
	if auth == nil {
		return fmt.Errorf("%w: no Authenticator given", ErrCredential)
	}
	if err := auth.Authenticate(c, signatureKey); err != nil {
		return fmt.Errorf("%w: %w", ErrCredential, err)
	}
	return nil
}

// key returns the identity's signature key for a suite.
func (id Identity) key(s *suiteParams) ([]byte, error) {
	if id.Signer == nil {
		return nil, fmt.Errorf("%w: identity has no signer", ErrCredential)
	}
	return s.signatureKey(id.Signer.Public())
}
