// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"testing"
)

// SP 800-73-4 Part 2, Section 3.2.4 and Appendix A.1, in every cipher; a
// wrong key of the same size is refused.
func TestManagementKey(t *testing.T) {
	for alg, size := range map[byte]int{alg3DES: 24, algAES128: 16, algAES192: 24, algAES256: 32} {
		key := randomBytes(size)
		c := newClient(t, Config{})
		c.admin()
		c.must(insSetManagementKey, 0xff, 0xff, append([]byte{alg, refManagement, byte(size)}, key...))
		c.powerUp()
		if sw := c.manage(alg, randomBytes(size)); sw != swSecurity {
			t.Errorf("algorithm %02x: wrong key: %04x", alg, sw)
		}
		c.want(swSecurity, insGenerate, 0, 0x9a, []byte{0xac, 3, 0x80, 1, algP256})
		if sw := c.manage(alg, key); sw != swOK {
			t.Errorf("algorithm %02x: right key: %04x", alg, sw)
		}
		c.must(insGenerate, 0, 0x9a, []byte{0xac, 3, 0x80, 1, algP256})
		if got := c.must(insGetMetadata, 0, refManagement, nil); !bytes.HasPrefix(got, []byte{0x01, 1, alg}) || !bytes.HasSuffix(got, []byte{0x05, 1, 0}) {
			t.Errorf("algorithm %02x: metadata %x", alg, got)
		}
	}
}

// What writes needs the management key, whatever else was proven.
func TestManagementKeyIsNeeded(t *testing.T) {
	c := newClient(t, Config{})
	c.login()
	for _, cmd := range []struct {
		ins, p1, p2 byte
		data        []byte
	}{
		{insGenerate, 0, 0x9a, []byte{0xac, 3, 0x80, 1, algP256}},
		{insImport, algP256, 0x9a, append([]byte{6, 32}, bytes.Repeat([]byte{1}, 32)...)},
		{insPutData, 0x3f, 0xff, []byte{0x5c, 3, 0x5f, 0xc1, 0x05, 0x53, 1, 1}},
		{insSetManagementKey, 0xff, 0xff, append([]byte{alg3DES, refManagement, 24}, randomBytes(24)...)},
		{insSetRetries, 3, 3, nil},
	} {
		c.want(swSecurity, cmd.ins, cmd.p1, cmd.p2, cmd.data)
	}
	c.admin()
	c.must(insPutData, 0x3f, 0xff, []byte{0x5c, 3, 0x5f, 0xc1, 0x05, 0x53, 1, 1})
}

// A challenge is good for one answer, and only for the form it was asked in.
func TestManagementChallengeIsUsedOnce(t *testing.T) {
	c := newClient(t, Config{})
	block := cipherOf(t, alg3DES, defaultManagementKey)
	ask := func(tag byte) []byte {
		out := c.must(insAuthenticate, alg3DES, refManagement, []byte{0x7c, 2, tag, 0})
		return out[4:]
	}
	witness, challenge, response := make([]byte, 8), make([]byte, 8), make([]byte, 8)
	block.Decrypt(witness, ask(0x80))
	good := appendField(nil, 0x7c, appendField(appendField(nil, 0x80, witness), 0x81, challenge))
	bad := bytes.Clone(good)
	bad[5] ^= 1
	c.want(swSecurity, insAuthenticate, alg3DES, refManagement, bad)
	c.want(swConditions, insAuthenticate, alg3DES, refManagement, good)

	block.Encrypt(response, ask(0x81))
	external := appendField(nil, 0x7c, appendField(nil, 0x82, response))
	c.must(insAuthenticate, alg3DES, refManagement, external)
	c.must(insPutData, 0x3f, 0xff, []byte{0x5c, 3, 0x5f, 0xc1, 0x05, 0x53, 1, 1})
	c.want(swConditions, insAuthenticate, alg3DES, refManagement, external) // again
	c.want(swSecurity, insPutData, 0x3f, 0xff, []byte{0x5c, 3, 0x5f, 0xc1, 0x05, 0x53, 1, 1})

	plain := ask(0x81) // a challenge in the clear must not serve as witness
	mixed := appendField(nil, 0x7c, appendField(appendField(nil, 0x80, plain), 0x81, challenge))
	c.want(swWrongData, insAuthenticate, alg3DES, refManagement, mixed)
	c.want(swWrongParameters, insAuthenticate, algAES192, refManagement, []byte{0x7c, 2, 0x80, 0})
}

func TestSetManagementKeyMalformed(t *testing.T) {
	c := newClient(t, Config{Firmware: Version{5, 2, 7}})
	c.admin()
	for _, data := range [][]byte{
		nil,
		{alg3DES, refManagement},
		{alg3DES, refManagement, 24},
		append([]byte{alg3DES, refManagement, 16}, randomBytes(16)...),
		append([]byte{alg3DES, 0x9a, 24}, randomBytes(24)...),
		append([]byte{0x55, refManagement, 24}, randomBytes(24)...),
		append([]byte{algAES192, refManagement, 24}, randomBytes(24)...), // firmware 5.4
	} {
		c.want(swWrongData, insSetManagementKey, 0xff, 0xff, data)
	}
	c.want(swWrongParameters, insSetManagementKey, 0xff, 0, append([]byte{alg3DES, refManagement, 24}, randomBytes(24)...))
	c.powerUp()
	c.admin() // unchanged
}

func TestConfiguredSecrets(t *testing.T) {
	key := randomBytes(32)
	c := newClient(t, Config{PIN: "48151623", PUK: "87654321", ManagementKey: key})
	if sw := c.manage(algAES256, key); sw != swOK {
		t.Errorf("management key: %04x", sw)
	}
	if sw := c.verify("48151623"); sw != swOK {
		t.Errorf("PIN: %04x", sw)
	}
	c.must(insResetRetry, 0, refPIN, two("87654321", "111111"))
	for what, cfg := range map[string]Config{
		"short PIN": {PIN: "12345"}, "long PUK": {PUK: "123456789"}, "padding within": {PIN: "1234\xff\xff78"},
		"key of 20 bytes":     {ManagementKey: randomBytes(20)},
		"AES before 5.4":      {Firmware: Version{5, 2, 0}, ManagementKey: randomBytes(16)},
		"no attestation root": {},
	} {
		if what != "no attestation root" {
			cfg.Root = testRoot(t)
		}
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: makes a card", what)
		}
	}
}
