// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"fmt"
)

const (
	wrapVersion = 1
	wrapLabel   = "valise vault kek"
)

// A recipient is one wrapping of the store key.
type recipient struct {
	id        []byte // SHA-256 of the card key's SubjectPublicKeyInfo
	version   uint64
	curve     string
	ephemeral []byte // uncompressed point
	wrapped   []byte
}

func recipientID(card *ecdh.PublicKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(card)
	if err != nil {
		return nil, fmt.Errorf("vault: the card's key: %w", err)
	}
	sum := sha256.Sum256(spki)
	return sum[:], nil
}

// wrap seals the store key for a card under a fresh ephemeral key. It needs
// nothing of the card but its public key.
func wrap(storeKey []byte, device [32]byte, card *ecdh.PublicKey) (*recipient, error) {
	id, err := recipientID(card)
	if err != nil {
		return nil, err
	}
	ephemeral, err := card.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	secret, err := ephemeral.ECDH(card)
	if err != nil {
		return nil, fmt.Errorf("vault: agree on a wrapping key: %w", err)
	}
	r := &recipient{id: id, version: wrapVersion, curve: fmt.Sprint(card.Curve()), ephemeral: ephemeral.PublicKey().Bytes()}
	aead, err := r.kek(secret, device, card)
	clear(secret)
	if err != nil {
		return nil, err
	}
	r.wrapped = aead.Seal(nil, make([]byte, aead.NonceSize()), storeKey, r.id)
	return r, nil
}

// unwrap asks the card for the shared secret and opens the store key.
func (r *recipient) unwrap(device [32]byte, card ecdh.KeyExchanger) ([]byte, error) {
	if r.version != wrapVersion || r.curve != fmt.Sprint(card.Curve()) {
		return nil, fmt.Errorf("%w: wrapping of version %d on %s", ErrAltered, r.version, r.curve)
	}
	ephemeral, err := card.Curve().NewPublicKey(r.ephemeral)
	if err != nil {
		return nil, fmt.Errorf("%w: ephemeral key: %v", ErrAltered, err)
	}
	secret, err := card.ECDH(ephemeral)
	if err != nil {
		return nil, fmt.Errorf("vault: the card does not open it: %w", err)
	}
	defer clear(secret)
	aead, err := r.kek(secret, device, card.PublicKey())
	if err != nil {
		return nil, err
	}
	key, err := aead.Open(nil, make([]byte, aead.NonceSize()), r.wrapped, r.id)
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("%w: the store key does not open", ErrAltered)
	}
	return key, nil
}

// kek derives the key-encryption key: HKDF (RFC 5869) over the ECDH secret, bound to
// both public keys, the device and the version.
func (r *recipient) kek(secret []byte, device [32]byte, card *ecdh.PublicKey) (cipher.AEAD, error) {
	salt := append(append([]byte{}, r.ephemeral...), card.Bytes()...)
	info := append([]byte(wrapLabel), device[:]...)
	info = binary.BigEndian.AppendUint64(info, r.version)
	key, err := hkdf.Key(sha512.New384, secret, salt, string(info), 32)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	defer clear(key)
	return newGCM(key)
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	return cipher.NewGCM(block)
}
