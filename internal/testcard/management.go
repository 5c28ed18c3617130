// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/subtle"
)

// Algorithms of the management key (SP 800-78-4, Table 6-2).
const (
	alg3DES   = 0x03
	algAES128 = 0x08
	algAES192 = 0x0a
	algAES256 = 0x0c
)

const refManagement = 0x9b // SP 800-73-4 Part 1, Table 4b

// defaultManagementKey is the factory value of a YubiKey.
var defaultManagementKey = []byte{
	1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8,
}

// A management key is 3DES on older cards, AES from firmware 5.4 on.
type managementKey struct {
	Algorithm byte   `json:"algorithm"`
	Key       []byte `json:"key"`
	Touch     byte   `json:"touch"`
}

// managementKeySize is the length of a key of the given algorithm, 0 if there
// is no such algorithm.
func managementKeySize(alg byte) int {
	return map[byte]int{alg3DES: 24, algAES128: 16, algAES192: 24, algAES256: 32}[alg]
}

// block returns the cipher. A key of the wrong size cannot get here.
func (k *managementKey) block() (cipher.Block, error) {
	if k.Algorithm == alg3DES {
		return des.NewTripleDESCipher(k.Key)
	}
	return aes.NewCipher(k.Key)
}

// authenticateManagement is GENERAL AUTHENTICATE with the management key (SP
// 800-73-4 Part 2, Section 3.2.4 and Appendix A.1), in two forms:
//
//	mutual:   7C{80 empty}  ->  7C{80 witness, encrypted}
//	          7C{80 witness, 81 challenge}  ->  7C{82 challenge, encrypted}
//	external: 7C{81 empty}  ->  7C{81 challenge}
//	          7C{82 challenge, encrypted}  ->  (nothing)
//
// Each challenge is good for one answer.
func (c *Card) authenticateManagement(alg byte, fields []field) ([]byte, status) {
	key := &c.state.Management
	if alg != key.Algorithm && (alg != 0 || key.Algorithm != alg3DES) {
		return nil, swWrongParameters
	}
	block, err := key.block()
	if err != nil {
		return nil, swConditions
	}
	s := &c.session
	challenge, external := s.challenge, s.external
	s.challenge, s.management = nil, false

	size := block.BlockSize()
	switch {
	case matches(fields, 0x80) && len(fields[0].value) == 0:
		s.challenge, s.external = randomBytes(size), false
		out := make([]byte, size)
		block.Encrypt(out, s.challenge)
		return answer(0x80, out), swOK
	case matches(fields, 0x81) && len(fields[0].value) == 0:
		s.challenge, s.external = randomBytes(size), true
		return answer(0x81, bytes.Clone(s.challenge)), swOK
	case challenge == nil:
		return nil, swConditions
	case matches(fields, 0x80, 0x81) && !external:
		if !equal(fields[0].value, challenge) || len(fields[1].value) != size {
			return nil, swSecurity
		}
		out := make([]byte, size)
		block.Encrypt(out, fields[1].value)
		s.management = true
		return answer(0x82, out), swOK
	case matches(fields, 0x82) && external:
		want := make([]byte, size)
		block.Encrypt(want, challenge)
		if !equal(fields[0].value, want) {
			return nil, swSecurity
		}
		s.management = true
		return nil, swOK
	}
	return nil, swWrongData
}

// matches reports whether fields are exactly these tags, in this order. Some
// clients send an empty 82 after the rest, to say that they want an answer.
func matches(fields []field, tags ...uint32) bool {
	n := len(fields)
	if n == len(tags)+1 && fields[n-1].tag == 0x82 && len(fields[n-1].value) == 0 {
		n--
	}
	if n != len(tags) {
		return false
	}
	for i, tag := range tags {
		if fields[i].tag != tag {
			return false
		}
	}
	return true
}

// answer wraps a value as dynamic authentication template (SP 800-73-4 Part
// 2, Table 7).
func answer(tag uint32, value []byte) []byte {
	return appendField(nil, 0x7c, appendField(nil, tag, value))
}

func equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// setManagementKey is Yubico's SET MANAGEMENT KEY: algorithm, 9B, length,
// key. P2 FE asks for touch at each use of it.
func (c *Card) setManagementKey(cmd command) ([]byte, status) {
	switch {
	case !c.session.management:
		return nil, swSecurity
	case cmd.p1 != 0xff || cmd.p2 != 0xff && cmd.p2 != 0xfe:
		return nil, swWrongParameters
	case len(cmd.data) < 3:
		return nil, swWrongData
	}
	alg, ref, n, key := cmd.data[0], cmd.data[1], int(cmd.data[2]), cmd.data[3:]
	if ref != refManagement || n != len(key) || n != managementKeySize(alg) {
		return nil, swWrongData
	}
	if alg != alg3DES && !c.state.Firmware.atLeast(5, 4, 0) {
		return nil, swWrongData
	}
	touch := byte(touchNever)
	if cmd.p2 == 0xfe {
		touch = touchAlways
	}
	c.state.Management = managementKey{Algorithm: alg, Key: bytes.Clone(key), Touch: touch}
	return nil, c.save()
}
