// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"math/big"
)

var errImport = errors.New("malformed private key")

// importKey is Yubico's IMPORT ASYMMETRIC KEY: P1 algorithm, P2 slot, then
// the private values and the policy fields. Such a key cannot be attested:
// nobody knows where else it is.
func (c *Card) importKey(cmd command) ([]byte, status) {
	if !c.session.management {
		return nil, swSecurity
	}
	if !validSlot(cmd.p2) || !c.supports(cmd.p1) {
		return nil, swWrongParameters
	}
	fields, ok := parseFields(cmd.data)
	if !ok {
		return nil, swWrongData
	}
	n := 0
	for n < len(fields) && fields[n].tag < 0xaa {
		n++
	}
	pin, touch, ok := c.policies(cmd.p2, fields[n:])
	if !ok {
		return nil, swWrongData
	}
	private, err := importPrivate(cmd.p1, fields[:n])
	if err != nil {
		return nil, swWrongData
	}
	return nil, c.install(cmd.p2, cmd.p1, private, pin, touch, originImported)
}

func importPrivate(alg byte, fields []field) (crypto.PrivateKey, error) {
	if bits := rsaBits(alg); bits != 0 {
		return importRSA(bits, fields)
	}
	if len(fields) != 1 {
		return nil, errImport
	}
	value := fields[0].value
	switch {
	case alg == algP256 && fields[0].tag == 0x06:
		return ecdsa.ParseRawPrivateKey(elliptic.P256(), value)
	case alg == algP384 && fields[0].tag == 0x06:
		return ecdsa.ParseRawPrivateKey(elliptic.P384(), value)
	case alg == algEd25519 && fields[0].tag == 0x07 && len(value) == ed25519.SeedSize:
		return ed25519.NewKeyFromSeed(value), nil
	case alg == algX25519 && fields[0].tag == 0x08:
		return ecdh.X25519().NewPrivateKey(value)
	}
	return nil, errImport
}

// importRSA builds a key from its primes (tags 01 and 02); the remaining
// values 03 to 05 follow from them and are recomputed. The exponent is 65537.
func importRSA(bits int, fields []field) (crypto.PrivateKey, error) {
	if len(fields) != 5 {
		return nil, errImport
	}
	for i, f := range fields {
		if f.tag != uint32(i+1) || len(f.value) != bits/16 {
			return nil, errImport
		}
	}
	one := big.NewInt(1)
	p, q := new(big.Int).SetBytes(fields[0].value), new(big.Int).SetBytes(fields[1].value)
	key := &rsa.PrivateKey{Primes: []*big.Int{p, q}}
	key.E, key.N = 65537, new(big.Int).Mul(p, q)
	if key.N.BitLen() != bits || !p.ProbablyPrime(8) || !q.ProbablyPrime(8) || p.Cmp(q) == 0 {
		return nil, errImport
	}
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	key.D = new(big.Int).ModInverse(big.NewInt(int64(key.E)), phi)
	if key.D == nil {
		return nil, errImport
	}
	dp := new(big.Int).Mod(key.D, new(big.Int).Sub(p, one))
	if dp.Cmp(new(big.Int).SetBytes(fields[2].value)) != 0 {
		return nil, errImport // another exponent, or nonsense
	}
	key.Precompute()
	return key, key.Validate()
}
