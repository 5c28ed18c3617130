// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
)

// Algorithms of asymmetric keys (SP 800-78-4, Table 6-2, and Yubico's).
const (
	algRSA3072 = 0x05
	algRSA1024 = 0x06
	algRSA2048 = 0x07
	algP256    = 0x11
	algP384    = 0x14
	algRSA4096 = 0x16
	algEd25519 = 0xe0
	algX25519  = 0xe1
)

// A slotKey is a private key with its policies.
type slotKey struct {
	Algorithm byte   `json:"algorithm"`
	PIN       byte   `json:"pin"`
	Touch     byte   `json:"touch"`
	Origin    byte   `json:"origin"`
	PKCS8     []byte `json:"pkcs8"`

	private crypto.PrivateKey // parsed from PKCS8
}

func newSlotKey(alg byte, private crypto.PrivateKey) (*slotKey, error) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return &slotKey{Algorithm: alg, PKCS8: der, private: private}, nil
}

// parse restores the key after reading the state file.
func (k *slotKey) parse() error {
	private, err := x509.ParsePKCS8PrivateKey(k.PKCS8)
	if err != nil {
		return err
	}
	k.private = private
	if alg := algorithmOf(k.public()); alg == 0 || alg != k.Algorithm {
		return fmt.Errorf("key says algorithm %02x and is %02x", k.Algorithm, alg)
	}
	return nil
}

func (k *slotKey) public() crypto.PublicKey {
	return k.private.(interface{ Public() crypto.PublicKey }).Public()
}

// algorithmOf names the algorithm of a public key, 0 if the card has none.
func algorithmOf(public crypto.PublicKey) byte {
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		switch p.Curve {
		case elliptic.P256():
			return algP256
		case elliptic.P384():
			return algP384
		}
	case *rsa.PublicKey:
		return map[int]byte{1024: algRSA1024, 2048: algRSA2048, 3072: algRSA3072, 4096: algRSA4096}[p.N.BitLen()]
	case ed25519.PublicKey:
		return algEd25519
	case *ecdh.PublicKey:
		if p.Curve() == ecdh.X25519() {
			return algX25519
		}
	}
	return 0
}

// supports reports whether the firmware knows the algorithm.
func (c *Card) supports(alg byte) bool {
	switch alg {
	case algP256, algP384, algRSA1024, algRSA2048:
		return true
	case algRSA3072, algRSA4096, algEd25519, algX25519:
		return c.state.Firmware.atLeast(5, 7, 0)
	}
	return false
}

func generatePrivate(alg byte) (crypto.PrivateKey, error) {
	switch alg {
	case algP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case algP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case algEd25519:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case algX25519:
		return ecdh.X25519().GenerateKey(rand.Reader)
	}
	if bits := rsaBits(alg); bits != 0 {
		return rsa.GenerateKey(rand.Reader, bits)
	}
	return nil, errors.New("no such algorithm")
}

func rsaBits(alg byte) int {
	return map[byte]int{algRSA1024: 1024, algRSA2048: 2048, algRSA3072: 3072, algRSA4096: 4096}[alg]
}

// encodePublic is the content of the public key template 7F49 (SP 800-73-4
// Part 2, Table 11): 86 the point, or 81 modulus and 82 exponent.
func encodePublic(public crypto.PublicKey) ([]byte, error) {
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		return appendField(nil, 0x86, point), err
	case *rsa.PublicKey:
		b := appendField(nil, 0x81, p.N.Bytes())
		return appendField(b, 0x82, big.NewInt(int64(p.E)).Bytes()), nil
	case ed25519.PublicKey:
		return appendField(nil, 0x86, p), nil
	case *ecdh.PublicKey:
		return appendField(nil, 0x86, p.Bytes()), nil
	}
	return nil, errors.New("no such public key")
}

// generate is GENERATE ASYMMETRIC KEY PAIR (SP 800-73-4 Part 2, Section
// 3.3.2) with Yubico's policy fields: AC{80 algorithm, AA PIN, AB touch}.
func (c *Card) generate(cmd command) ([]byte, status) {
	if !c.session.management {
		return nil, swSecurity
	}
	if cmd.p1 != 0 || !validSlot(cmd.p2) {
		return nil, swWrongParameters
	}
	template, ok := parseField(cmd.data, 0xac)
	if !ok {
		return nil, swWrongData
	}
	fields, ok := parseFields(template)
	if !ok || len(fields) == 0 || fields[0].tag != 0x80 || len(fields[0].value) != 1 {
		return nil, swWrongData
	}
	alg := fields[0].value[0]
	pin, touch, ok := c.policies(cmd.p2, fields[1:])
	if !ok || !c.supports(alg) {
		return nil, swWrongData
	}
	private, err := generatePrivate(alg)
	if err != nil {
		return nil, swConditions
	}
	if sw := c.install(cmd.p2, alg, private, pin, touch, originGenerated); sw != swOK {
		return nil, sw
	}
	public, err := encodePublic(c.state.Keys[slotName(cmd.p2)].public())
	if err != nil {
		return nil, swConditions
	}
	return appendField(nil, 0x7f49, public), swOK
}

// install puts a key in a slot, in place of the one that was there.
func (c *Card) install(ref, alg byte, private crypto.PrivateKey, pin, touch, origin byte) status {
	k, err := newSlotKey(alg, private)
	if err != nil {
		return swWrongData
	}
	k.PIN, k.Touch, k.Origin = pin, touch, origin
	c.state.Keys[slotName(ref)] = k
	return c.save()
}
