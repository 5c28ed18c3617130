// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/rand"
	"hash"
	"testing"
)

// A yardstick runs a suite's primitive operations alone, straight from the
// standard library, on inputs of the same sizes. Key checks are left out: the
// RFC does not demand them, so that their time counts against this package.
type yardstick struct {
	t      testing.TB
	s      *suiteParams
	keys   []hpke.PrivateKey
	pubs   [][]byte
	privs  [][]byte
	sealed [][]byte
	signer *ecdsa.PrivateKey
	point  []byte
	digest []byte
	sig    []byte
	buf    []byte
}

func newYardstick(t testing.TB, s *suiteParams) *yardstick {
	y := &yardstick{t: t, s: s, digest: random(s.nh()), buf: make([]byte, 1<<20)}
	for range 8 {
		k, err := s.kem.GenerateKey()
		must(t, err)
		b, err := k.Bytes()
		must(t, err)
		ct, err := hpke.Seal(k.PublicKey(), s.kdf, s.aead, y.buf[:200], y.digest)
		must(t, err)
		y.keys, y.privs = append(y.keys, k), append(y.privs, b)
		y.pubs, y.sealed = append(y.pubs, k.PublicKey().Bytes()), append(y.sealed, ct)
	}
	var err error
	y.signer, err = ecdsa.GenerateKey(s.curve, rand.Reader)
	must(t, err)
	y.point, err = y.signer.PublicKey.Bytes()
	must(t, err)
	y.sig, err = y.signer.Sign(rand.Reader, y.digest, s.hash)
	must(t, err)
	return y
}

// alone returns a run of so many operations, over so many bytes each kind.
func (y *yardstick) alone(n, bytes ops) func() {
	s := y.s
	newHash := func() hash.Hash { return s.hash.New() }
	size := func(p primitive) []byte {
		if n[p] == 0 {
			return nil
		}
		return y.buf[:min(int(bytes[p]/n[p]), len(y.buf))]
	}
	var err error
	primitive := [primitives]func(i int){
		opSeal: func(i int) {
			var k hpke.PublicKey
			k, err = s.kem.NewPublicKey(y.pubs[i%len(y.pubs)])
			must(y.t, err)
			_, err = hpke.Seal(k, s.kdf, s.aead, y.buf[:200], size(opSeal))
		},
		opOpen: func(i int) {
			_, err = hpke.Open(y.keys[i%len(y.keys)], s.kdf, s.aead, y.buf[:200], y.sealed[i%len(y.keys)])
		},
		opSign: func(int) { _, err = crypto.Signer(y.signer).Sign(rand.Reader, y.digest, s.hash) },
		opVerify: func(int) {
			var k *ecdsa.PublicKey
			k, err = ecdsa.ParseUncompressedPublicKey(s.curve, y.point)
			if !ecdsa.VerifyASN1(k, y.digest, y.sig) {
				y.t.Fatal("signature does not verify")
			}
		},
		opDerive:   func(int) { _, err = s.kem.DeriveKeyPair(y.digest) },
		opGenerate: func(int) { _, err = s.kem.GenerateKey() },
		opPrivate:  func(i int) { _, err = s.kem.NewPrivateKey(y.privs[i%len(y.privs)]) },
		opExtract:  func(int) { _, err = hkdf.Extract(newHash, y.digest, y.digest) },
		opExpand:   func(int) { _, err = hkdf.Expand(newHash, y.digest, string(size(opExpand)), s.nh()) },
		opMAC: func(int) {
			h := hmac.New(newHash, y.digest)
			h.Write(size(opMAC))
			h.Sum(nil)
		},
		opAEAD: func(int) {
			var block cipher.Block
			block, err = aes.NewCipher(y.buf[:s.nk])
			must(y.t, err)
			var gcm cipher.AEAD
			gcm, err = cipher.NewGCM(block)
			must(y.t, err)
			gcm.Seal(nil, y.buf[:nonceSize], y.buf[:128], y.buf[:48])
		},
		opHash: func(int) {
			h := newHash()
			h.Write(size(opHash))
			h.Sum(nil)
		},
		opCheck: func(int) {},
	}
	return func() {
		for p, f := range primitive {
			for i := range int(n[p]) {
				f(i)
				must(y.t, err)
			}
		}
	}
}
