// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"hash"
)

const nonceSize = 12 // AEAD.Nn of every suite here

// nh is KDF.Nh, the size of hashes and secrets.
func (s *suiteParams) nh() int { return s.hash.Size() }

func (s *suiteParams) sum(data ...[]byte) []byte {
	h, n := s.hash.New(), 0
	for _, d := range data {
		h.Write(d)
		n += len(d)
	}
	s.counts.add(opHash, n)
	return h.Sum(make([]byte, 0, s.nh()))
}

// refHash is RefHash of RFC 9420, Section 5.2.
func (s *suiteParams) refHash(label string, value []byte) []byte {
	return s.sum(appendOpaque(appendOpaque(nil, []byte(label)), value))
}

// extract is KDF.Extract.
func (s *suiteParams) extract(salt, ikm []byte) []byte {
	s.counts.add(opExtract, len(ikm))
	prk, err := hkdf.Extract(func() hash.Hash { return s.hash.New() }, ikm, salt)
	if err != nil {
		panic("mls: hkdf: " + err.Error()) // only a hash that FIPS mode refuses
	}
	return prk
}

// expandWithLabel is ExpandWithLabel of RFC 9420, Section 8.
//
//	struct { uint16 length; opaque label<V>; opaque context<V>; } KDFLabel;
func (s *suiteParams) expandWithLabel(secret []byte, label string, context []byte, n int) []byte {
	info := make([]byte, 0, 2+2+8+len(label)+4+len(context))
	info = appendU16(info, uint16(n))
	info = appendLength(info, len("MLS 1.0 ")+len(label))
	info = append(append(info, "MLS 1.0 "...), label...)
	info = appendOpaque(info, context)
	s.counts.add(opExpand, len(info))
	out, err := hkdf.Expand(func() hash.Hash { return s.hash.New() }, secret, string(info), n)
	if err != nil {
		panic("mls: hkdf: " + err.Error()) // n is fixed by the suite, or checked by Export
	}
	return out
}

// deriveSecret is DeriveSecret of RFC 9420, Section 8.
func (s *suiteParams) deriveSecret(secret []byte, label string) []byte {
	return s.expandWithLabel(secret, label, nil, s.nh())
}

// deriveTreeSecret is DeriveTreeSecret of RFC 9420, Section 9.1.
func (s *suiteParams) deriveTreeSecret(secret []byte, label string, generation uint32, n int) []byte {
	return s.expandWithLabel(secret, label, appendU32(nil, generation), n)
}

// mac is the suite's MAC: HMAC with its hash.
func (s *suiteParams) mac(key, data []byte) []byte {
	s.counts.add(opMAC, len(data))
	m := hmac.New(func() hash.Hash { return s.hash.New() }, key)
	m.Write(data)
	return m.Sum(nil)
}

func equalMAC(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// gcm returns the suite's AEAD.
func (s *suiteParams) gcm(key []byte) cipher.AEAD {
	s.counts.add(opAEAD, 0)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("mls: aes: " + err.Error()) // the key's size is the suite's
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("mls: gcm: " + err.Error())
	}
	return aead
}

// random returns n random bytes.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// hpkeCiphertext is HPKECiphertext of RFC 9420, Section 7.6.
//
//	struct { opaque kem_output<V>; opaque ciphertext<V>; } HPKECiphertext;
type hpkeCiphertext struct {
	kemOutput, ciphertext []byte
}

func readHPKECiphertext(r *reader) hpkeCiphertext {
	return hpkeCiphertext{r.opaque(), r.opaque()}
}

func (c hpkeCiphertext) append(b []byte) []byte {
	return appendOpaque(appendOpaque(b, c.kemOutput), c.ciphertext)
}

func hpkeInfo(label string, context []byte) []byte {
	return appendOpaque(appendOpaque(nil, []byte("MLS 1.0 "+label)), context)
}

// encryptWithLabel is EncryptWithLabel of RFC 9420, Section 5.1.3.
func (s *suiteParams) encryptWithLabel(pub []byte, label string, context, plaintext []byte) (hpkeCiphertext, error) {
	s.counts.add(opSeal, len(plaintext))
	pk, err := s.kem.NewPublicKey(pub)
	if err != nil {
		return hpkeCiphertext{}, fmt.Errorf("%w: encryption key: %w", ErrInvalidLeaf, err)
	}
	enc, sender, err := hpke.NewSender(pk, s.kdf, s.aead, hpkeInfo(label, context))
	if err != nil {
		return hpkeCiphertext{}, fmt.Errorf("mls: hpke seal: %w", err)
	}
	ct, err := sender.Seal(nil, plaintext)
	if err != nil {
		return hpkeCiphertext{}, fmt.Errorf("mls: hpke seal: %w", err)
	}
	return hpkeCiphertext{enc, ct}, nil
}

// decryptWithLabel is DecryptWithLabel of RFC 9420, Section 5.1.3.
func (s *suiteParams) decryptWithLabel(priv hpke.PrivateKey, label string, context []byte, c hpkeCiphertext) ([]byte, error) {
	s.counts.add(opOpen, len(c.ciphertext))
	rcpt, err := hpke.NewRecipient(c.kemOutput, priv, s.kdf, s.aead, hpkeInfo(label, context))
	if err != nil {
		return nil, fmt.Errorf("%w: hpke: %w", ErrDecrypt, err)
	}
	pt, err := rcpt.Open(nil, c.ciphertext)
	if err != nil {
		return nil, fmt.Errorf("%w: hpke: %w", ErrDecrypt, err)
	}
	return pt, nil
}

// checkHPKEKey refuses what is not a public key of the suite's KEM.
func (s *suiteParams) checkHPKEKey(pub []byte) error {
	s.counts.add(opCheck, len(pub))
	if _, err := s.kem.NewPublicKey(pub); err != nil {
		return fmt.Errorf("%w: encryption key: %w", ErrInvalidLeaf, err)
	}
	return nil
}

// A privKey is an HPKE private key with its encoding.
type privKey struct {
	bytes []byte
	key   hpke.PrivateKey
}

func (s *suiteParams) generateKey() (*privKey, error) {
	s.counts.add(opGenerate, 0)
	k, err := s.kem.GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("mls: generate key: %w", err)
	}
	return newPrivKey(k)
}

// deriveKeyPair is KEM.DeriveKeyPair.
func (s *suiteParams) deriveKeyPair(ikm []byte) (*privKey, error) {
	s.counts.add(opDerive, len(ikm))
	k, err := s.kem.DeriveKeyPair(ikm)
	if err != nil {
		return nil, fmt.Errorf("mls: derive key: %w", err)
	}
	return newPrivKey(k)
}

func newPrivKey(k hpke.PrivateKey) (*privKey, error) {
	b, err := k.Bytes()
	if err != nil {
		return nil, fmt.Errorf("mls: encode key: %w", err)
	}
	return &privKey{b, k}, nil
}

func (s *suiteParams) parsePrivKey(b []byte) (*privKey, error) {
	s.counts.add(opPrivate, len(b))
	k, err := s.kem.NewPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("%w: private key: %w", ErrMalformed, err)
	}
	return &privKey{b, k}, nil
}

func (k *privKey) public() []byte { return k.key.PublicKey().Bytes() }
