// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"encoding/binary"
	"path/filepath"
	"testing"
)

// A client talks to a card in APDUs, as SP 800-73-4 Part 2 writes them.
type client struct {
	t    testing.TB
	card *Card
}

// newClient makes a card in memory, powers it and selects PIV.
func newClient(t testing.TB, cfg Config) *client {
	t.Helper()
	if cfg.Root == nil {
		cfg.Root = testRoot(t)
	}
	card, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t, card}
	c.powerUp()
	return c
}

// newFileClient makes a card with a state file.
func newFileClient(t testing.TB) (*client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "card")
	card, err := Create(path, Config{Root: testRoot(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { card.Close() })
	c := &client{t, card}
	c.powerUp()
	return c, path
}

func testRoot(t testing.TB) *Root {
	t.Helper()
	root, err := NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func (c *client) powerUp() {
	c.card.PowerOn()
	c.must(insSelect, 0x04, 0x00, aidPIV[:5])
}

// send sends one command, chained in blocks of 255 bytes, and collects the
// whole response.
func (c *client) send(ins, p1, p2 byte, data []byte) ([]byte, status) {
	c.t.Helper()
	for len(data) > 255 {
		if _, sw := c.one(0x10, ins, p1, p2, data[:255]); sw != swOK {
			return nil, sw
		}
		data = data[255:]
	}
	out, sw := c.one(0x00, ins, p1, p2, data)
	for sw>>8 == 0x61 {
		var more []byte
		more, sw = c.one(0x00, insGetResponse, 0, 0, nil)
		out = append(out, more...)
	}
	return out, sw
}

func (c *client) one(cla, ins, p1, p2 byte, data []byte) ([]byte, status) {
	c.t.Helper()
	return c.raw(append([]byte{cla, ins, p1, p2, byte(len(data))}, data...))
}

func (c *client) raw(apdu []byte) ([]byte, status) {
	c.t.Helper()
	out := c.card.Transmit(apdu)
	n := len(out) - 2
	if n < 0 || n > maxResponse {
		c.t.Fatalf("response to %x has %d bytes", apdu, len(out))
	}
	return out[:n], status(binary.BigEndian.Uint16(out[n:]))
}

// must sends a command that has to succeed.
func (c *client) must(ins, p1, p2 byte, data []byte) []byte {
	c.t.Helper()
	out, sw := c.send(ins, p1, p2, data)
	if sw != swOK {
		c.t.Fatalf("command %02x %02x %02x: status %04x", ins, p1, p2, sw)
	}
	return out
}

// want sends a command that has to end with the status given.
func (c *client) want(sw status, ins, p1, p2 byte, data []byte) {
	c.t.Helper()
	if _, got := c.send(ins, p1, p2, data); got != sw {
		c.t.Errorf("command %02x %02x %02x: status %04x, want %04x", ins, p1, p2, got, sw)
	}
}

func (c *client) verify(pin string) status {
	c.t.Helper()
	_, sw := c.send(insVerify, 0, refPIN, padPIN(pin))
	return sw
}

// login authenticates with the default PIN.
func (c *client) login() {
	c.t.Helper()
	if sw := c.verify(DefaultPIN); sw != swOK {
		c.t.Fatalf("PIN: status %04x", sw)
	}
}

func cipherOf(t testing.TB, alg byte, key []byte) cipher.Block {
	t.Helper()
	block, err := aes.NewCipher(key)
	if alg == alg3DES {
		block, err = des.NewTripleDESCipher(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// manage authenticates with a management key, both sides proving that they
// have it (SP 800-73-4 Part 2, Appendix A.1).
func (c *client) manage(alg byte, key []byte) status {
	c.t.Helper()
	block := cipherOf(c.t, alg, key)
	n := block.BlockSize()
	out, sw := c.send(insAuthenticate, alg, refManagement, []byte{0x7c, 0x02, 0x80, 0x00})
	if sw != swOK {
		return sw
	}
	witness, challenge := make([]byte, n), bytes.Repeat([]byte{0x5a}, n)
	block.Decrypt(witness, out[4:])
	template := appendField(appendField(nil, 0x80, witness), 0x81, challenge)
	out, sw = c.send(insAuthenticate, alg, refManagement, appendField(nil, 0x7c, template))
	if sw != swOK {
		return sw
	}
	want := make([]byte, n)
	block.Encrypt(want, challenge)
	if !bytes.Equal(out, answer(0x82, want)) {
		c.t.Fatalf("card does not prove that it has the management key: %x", out)
	}
	return swOK
}

// admin authenticates with the default management key.
func (c *client) admin() {
	c.t.Helper()
	if sw := c.manage(c.card.state.Management.Algorithm, defaultManagementKey); sw != swOK {
		c.t.Fatalf("management key: status %04x", sw)
	}
}

// generate makes a key and returns its public key as encoded on the wire.
func (c *client) generate(slot, alg byte, policies ...byte) []byte {
	c.t.Helper()
	template := []byte{0x80, 0x01, alg}
	if len(policies) == 2 {
		template = append(template, 0xaa, 0x01, policies[0], 0xab, 0x01, policies[1])
	}
	out := c.must(insGenerate, 0, slot, appendField(nil, 0xac, template))
	public, ok := parseField(out, 0x7f49)
	if !ok {
		c.t.Fatalf("no public key template in %x", out)
	}
	return public
}

// use asks for a private key operation on the value under tag.
func (c *client) use(slot, alg byte, tag uint32, value []byte) ([]byte, status) {
	c.t.Helper()
	template := appendField([]byte{0x82, 0x00}, tag, value)
	out, sw := c.send(insAuthenticate, alg, slot, appendField(nil, 0x7c, template))
	if sw != swOK {
		return nil, sw
	}
	inner, ok := parseField(out, 0x7c)
	result, ok2 := parseField(inner, 0x82)
	if !ok || !ok2 {
		c.t.Fatalf("no response in %x", out)
	}
	return result, sw
}
