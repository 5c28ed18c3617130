// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"testing"
)

func two(a, b string) []byte { return append(padPIN(a), padPIN(b)...) }

// SP 800-73-4 Part 2, Section 3.2.1: each wrong PIN costs a try, also across
// power and SELECT; the right one gives all back; after the last, even the
// right PIN is refused.
func TestPINCounter(t *testing.T) {
	c := newClient(t, Config{})
	c.want(swWrongTries|3, insVerify, 0, refPIN, nil)
	if sw := c.verify("111111"); sw != swWrongTries|2 {
		t.Fatalf("first wrong PIN: %04x", sw)
	}
	c.powerUp()
	c.want(swWrongTries|2, insVerify, 0, refPIN, nil)
	c.login()
	c.want(swOK, insVerify, 0, refPIN, nil)
	c.powerUp()
	c.want(swWrongTries|3, insVerify, 0, refPIN, nil)
	for _, want := range []status{swWrongTries | 2, swWrongTries | 1, swWrongTries} {
		if sw := c.verify("111111"); sw != want {
			t.Errorf("wrong PIN: %04x, want %04x", sw, want)
		}
	}
	if sw := c.verify(DefaultPIN); sw != swBlocked {
		t.Errorf("right PIN on a blocked card: %04x", sw)
	}
	c.want(swBlocked, insVerify, 0, refPIN, nil)
}

// Pulling the card after a wrong PIN gives no try back.
func TestPINCounterOutlivesTheCard(t *testing.T) {
	c, path := newFileClient(t)
	c.verify("111111")
	c.card.Close()
	card, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	again := &client{t, card}
	again.powerUp()
	again.want(swWrongTries|2, insVerify, 0, refPIN, nil)
}

// A command that is malformed costs no try.
func TestVerifyMalformed(t *testing.T) {
	c := newClient(t, Config{})
	c.want(swWrongData, insVerify, 0, refPIN, []byte("123456"))
	c.want(swWrongParameters, insVerify, 1, refPIN, padPIN(DefaultPIN))
	c.want(swNoReference, insVerify, 0, 0x97, padPIN(DefaultPIN))
	c.want(swNoReference, insVerify, 0, refFinger, []byte{3, 0})
	c.want(swWrongTries|3, insVerify, 0, refPIN, nil)
}

// P1 FF logs out; so does a wrong PIN.
func TestLogout(t *testing.T) {
	c := newClient(t, Config{})
	c.login()
	c.must(insVerify, 0xff, refPIN, nil)
	c.want(swWrongTries|3, insVerify, 0, refPIN, nil)
	c.login()
	c.verify("111111")
	c.want(swWrongTries|2, insVerify, 0, refPIN, nil)
}

// SP 800-73-4 Part 2, Section 3.2.2.
func TestChangeReference(t *testing.T) {
	c := newClient(t, Config{})
	c.want(swWrongTries|2, insChangeReference, 0, refPIN, two("111111", "222222"))
	c.must(insChangeReference, 0, refPIN, two(DefaultPIN, "24681012"))
	if sw := c.verify(DefaultPIN); sw != swWrongTries|2 {
		t.Errorf("old PIN: %04x", sw)
	}
	if sw := c.verify("24681012"); sw != swOK {
		t.Errorf("new PIN: %04x", sw)
	}
	c.want(swWrongData, insChangeReference, 0, refPIN, two("24681012", "12345"))
	c.want(swNoReference, insChangeReference, 0, 0x82, two(DefaultPIN, "222222"))
	c.want(swWrongData, insChangeReference, 0, refPIN, padPIN("24681012"))
	if sw := c.verify("24681012"); sw != swOK {
		t.Errorf("PIN after refused changes: %04x", sw)
	}
	c.must(insChangeReference, 0, refPUK, two(DefaultPUK, "87654321"))
	c.want(swWrongTries|2, insChangeReference, 0, refPUK, two(DefaultPUK, "87654321"))
}

// SP 800-73-4 Part 2, Section 3.2.3: the PUK unblocks, with a counter of its
// own.
func TestResetRetry(t *testing.T) {
	c := newClient(t, Config{})
	for range factoryTries {
		c.verify("111111")
	}
	c.want(swWrongTries|2, insResetRetry, 0, refPIN, two("00000000", "222222"))
	if sw := c.verify(DefaultPIN); sw != swBlocked {
		t.Errorf("PIN after a wrong PUK: %04x", sw)
	}
	c.must(insResetRetry, 0, refPIN, two(DefaultPUK, "222222"))
	c.want(swWrongTries|3, insVerify, 0, refPIN, nil) // a new PIN is no login
	if sw := c.verify("222222"); sw != swOK {
		t.Errorf("new PIN: %04x", sw)
	}
	for range factoryTries {
		c.send(insResetRetry, 0, refPIN, two("00000000", "222222"))
	}
	c.want(swBlocked, insResetRetry, 0, refPIN, two(DefaultPUK, "222222"))
	c.want(swBlocked, insChangeReference, 0, refPUK, two(DefaultPUK, "87654321"))
}

// SET PIN RETRIES needs management key and PIN, both.
func TestSetRetries(t *testing.T) {
	c := newClient(t, Config{PIN: "48151623"})
	c.want(swSecurity, insSetRetries, 5, 7, nil)
	c.verify("48151623")
	c.want(swSecurity, insSetRetries, 5, 7, nil)
	c.powerUp()
	c.admin()
	c.want(swSecurity, insSetRetries, 5, 7, nil)
	c.verify("48151623")
	c.want(swWrongParameters, insSetRetries, 0, 7, nil)
	c.must(insSetRetries, 20, 7, nil)
	c.want(swWrongTries|15, insVerify, 0, refPIN, nil) // a nibble says no more
	if got := c.must(insGetMetadata, 0, refPUK, nil); !bytes.HasSuffix(got, []byte{0x06, 2, 7, 7}) {
		t.Errorf("metadata of the PUK: %x", got)
	}
	c.login() // the factory's PIN
}

// RESET is for cards on which both PIN and PUK are blocked.
func TestReset(t *testing.T) {
	c := newClient(t, Config{Serial: 7, PIN: "48151623"})
	c.admin()
	c.generate(0x9a, algP256)
	c.want(swConditions, insReset, 0, 0, nil)
	for range factoryTries {
		c.verify("111111")
	}
	c.want(swConditions, insReset, 0, 0, nil)
	for range factoryTries {
		c.send(insChangeReference, 0, refPUK, two("00000000", "00000000"))
	}
	f9 := c.must(insGetData, 0x3f, 0xff, []byte{0x5c, 3, 0x5f, 0xff, 0x01})
	c.must(insReset, 0, 0, nil)
	c.login()
	c.want(swNoReference, insGetMetadata, 0, 0x9a, nil)
	c.want(swSecurity, insGenerate, 0, 0x9a, []byte{0xac, 3, 0x80, 1, algP256}) // logged out
	if got := c.must(insGetData, 0x3f, 0xff, []byte{0x5c, 3, 0x5f, 0xff, 0x01}); !bytes.Equal(got, f9) {
		t.Error("RESET changed the attestation key")
	}
	if got := c.must(insGetSerial, 0, 0, nil); !bytes.Equal(got, []byte{0, 0, 0, 7}) {
		t.Errorf("serial number %x", got)
	}
}
