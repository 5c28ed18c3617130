// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
)

var errInput = errors.New("input does not fit the key")

// authenticate is GENERAL AUTHENTICATE (SP 800-73-4 Part 2, Section 3.2.4):
// P1 algorithm, P2 key reference, a dynamic authentication template with
//
//	82 (empty) and 81: sign, or with RSA decrypt, the value
//	82 (empty) and 85: agree on a secret with this point
func (c *Card) authenticate(cmd command) ([]byte, status) {
	template, ok := parseField(cmd.data, 0x7c)
	if !ok {
		return nil, swWrongData
	}
	fields, ok := parseFields(template)
	if !ok {
		return nil, swWrongData
	}
	if cmd.p2 == refManagement {
		return c.authenticateManagement(cmd.p1, fields)
	}
	if !validSlot(cmd.p2) {
		return nil, swWrongParameters
	}
	k := c.state.Keys[slotName(cmd.p2)]
	if k == nil {
		return nil, swNoReference
	}
	if k.Algorithm != cmd.p1 {
		return nil, swWrongParameters
	}
	tag, input, ok := operand(fields)
	if !ok {
		return nil, swWrongData
	}
	if sw := c.allowed(k); sw != swOK {
		return nil, sw
	}
	out, err := k.use(tag, input)
	if err != nil {
		return nil, swWrongData
	}
	return answer(0x82, out), swOK
}

// operand finds the value to work on; beside it only an empty 82 may stand.
func operand(fields []field) (tag uint32, value []byte, ok bool) {
	for _, f := range fields {
		switch {
		case f.tag == 0x82 && len(f.value) == 0:
		case (f.tag == 0x81 || f.tag == 0x85) && tag == 0:
			tag, value = f.tag, f.value
		default:
			return 0, nil, false
		}
	}
	return tag, value, tag != 0
}

// use performs the private key operation that tag asks for.
func (k *slotKey) use(tag uint32, input []byte) ([]byte, error) {
	if tag == 0x85 {
		return k.agree(input)
	}
	switch private := k.private.(type) {
	case *ecdsa.PrivateKey:
		if n := (private.Curve.Params().BitSize + 7) / 8; len(input) == 0 || len(input) > n {
			return nil, errInput
		}
		return ecdsa.SignASN1(rand.Reader, private, input)
	case *rsa.PrivateKey:
		return rawRSA(private, input)
	case ed25519.PrivateKey:
		return private.Sign(nil, input, crypto.Hash(0))
	}
	return nil, errInput
}

// agree is the ECDH primitive (SP 800-73-4 Part 2, Appendix A.5). The point
// is checked before it is used.
func (k *slotKey) agree(point []byte) ([]byte, error) {
	var private *ecdh.PrivateKey
	switch p := k.private.(type) {
	case *ecdsa.PrivateKey:
		var err error
		if private, err = p.ECDH(); err != nil {
			return nil, err
		}
	case *ecdh.PrivateKey:
		private = p
	default:
		return nil, errInput
	}
	peer, err := private.Curve().NewPublicKey(point)
	if err != nil {
		return nil, err
	}
	return private.ECDH(peer)
}

// rawRSA is the RSA primitive without padding: padding is the caller's, on
// this interface.
func rawRSA(key *rsa.PrivateKey, input []byte) ([]byte, error) {
	m := new(big.Int).SetBytes(input)
	if len(input) != key.Size() || m.Cmp(key.N) >= 0 {
		return nil, errInput
	}
	return m.Exp(m, key.D, key.N).FillBytes(make([]byte, key.Size())), nil
}
