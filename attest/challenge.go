// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
)

// COSE algorithms (RFC 9053, Section 2.1) that an attested key signs with. The
// number fixes the hash; here each goes with one curve only.
const (
	AlgES256 int64 = -7  // ECDSA with SHA-256: P-256
	AlgES384 int64 = -35 // ECDSA with SHA-384: P-384
)

// A Challenge is what makes evidence fresh: the key authorization of one ACME
// challenge (RFC 8555, Section 8.1), signed by the attested key.
type Challenge struct {
	KeyAuthorization []byte // as the verifier computed it, never as the device sent it
	Algorithm        int64  // COSE
	Signature        []byte // ASN.1 DER

	// TPM only: the secret that the device decrypted, and the verifier's key that
	// says which one it was sent (see ActivationSecret).
	Activation    []byte
	ActivationKey []byte
}

// answeredBy reports whether key signed c. Whatever is wrong with algorithm,
// key or signature makes it false.
func (c *Challenge) answeredBy(key crypto.PublicKey) bool {
	ec, ok := key.(*ecdsa.PublicKey)
	if !ok || len(c.KeyAuthorization) == 0 || len(c.KeyAuthorization) > maxKeyAuthorization || len(c.Signature) > maxSignature {
		return false
	}
	alg, digest, err := digestFor(ec, c.KeyAuthorization)
	return err == nil && alg == c.Algorithm && ecdsa.VerifyASN1(ec, digest, c.Signature)
}

// Answer signs a key authorization with the attested key.
func Answer(key crypto.Signer, keyAuthorization []byte) (*Challenge, error) {
	public, ok := key.Public().(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("answering the challenge: the key is not an ECDSA key")
	}
	alg, digest, err := digestFor(public, keyAuthorization)
	if err != nil {
		return nil, fmt.Errorf("answering the challenge: %w", err)
	}
	hash := crypto.SHA256
	if alg == AlgES384 {
		hash = crypto.SHA384
	}
	signature, err := key.Sign(rand.Reader, digest, hash)
	if err != nil {
		return nil, fmt.Errorf("answering the challenge: %w", err)
	}
	return &Challenge{KeyAuthorization: keyAuthorization, Algorithm: alg, Signature: signature}, nil
}

func digestFor(key *ecdsa.PublicKey, message []byte) (alg int64, digest []byte, err error) {
	switch key.Curve {
	case elliptic.P256():
		sum := sha256.Sum256(message)
		return AlgES256, sum[:], nil
	case elliptic.P384():
		sum := sha512.Sum384(message)
		return AlgES384, sum[:], nil
	}
	return 0, nil, errors.New("the key is not on P-256 or P-384")
}
