// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"testing"
)

func (c *client) put(tag uint32, value []byte) status {
	c.t.Helper()
	list := appendField(nil, 0x5c, []byte{byte(tag >> 16), byte(tag >> 8), byte(tag)})
	_, sw := c.send(insPutData, 0x3f, 0xff, appendField(list, 0x53, value))
	return sw
}

func (c *client) get(tag uint32) ([]byte, status) {
	c.t.Helper()
	out, sw := c.send(insGetData, 0x3f, 0xff, appendField(nil, 0x5c, []byte{byte(tag >> 16), byte(tag >> 8), byte(tag)}))
	value, _ := parseField(out, 0x53)
	return value, sw
}

// SP 800-73-4 Part 2, Sections 3.1.2 and 3.3.1.
func TestObjects(t *testing.T) {
	c := newClient(t, Config{})
	c.admin()
	if _, sw := c.get(0x5fc105); sw != swNoObject {
		t.Errorf("empty object: %04x", sw)
	}
	if sw := c.put(0x5fc105, []byte("certificate")); sw != swOK {
		t.Errorf("store: %04x", sw)
	}
	if got, sw := c.get(0x5fc105); sw != swOK || string(got) != "certificate" {
		t.Errorf("read: %q, %04x", got, sw)
	}
	if sw := c.put(0x5fc105, nil); sw != swOK {
		t.Errorf("empty: %04x", sw)
	}
	if _, sw := c.get(0x5fc105); sw != swNoObject {
		t.Errorf("emptied object: %04x", sw)
	}
	for _, tag := range []uint32{objAttestation, 0x5fc005, 0x60c105, 0x7e} {
		if sw := c.put(tag, []byte{1}); sw != swWrongData {
			t.Errorf("object %x can be written: %04x", tag, sw)
		}
	}
	c.want(swWrongParameters, insGetData, 0, 0, []byte{0x5c, 1, 0x7e})
	for _, data := range [][]byte{nil, {0x5c, 0}, {0x5c, 4, 1, 2, 3, 4}, {0x5d, 1, 0x7e}, {0x5c, 1, 0x7e, 0}} {
		c.want(swWrongData, insGetData, 0x3f, 0xff, data)
	}
	// SP 800-73-4 Part 1, Section 3.3.2: the discovery object.
	if got := c.must(insGetData, 0x3f, 0xff, []byte{0x5c, 1, 0x7e}); !bytes.HasPrefix(got, []byte{0x7e, 0x12, 0x4f, 0x0b}) {
		t.Errorf("discovery object %x", got)
	}
}

// SP 800-73-4 Part 1, Table 3: printed information and biometrics are read
// with the PIN only.
func TestProtectedObjects(t *testing.T) {
	c := newClient(t, Config{})
	c.admin()
	for _, tag := range []uint32{objPrinted, objFingerprints, objFace, objIris} {
		if sw := c.put(tag, []byte("private")); sw != swOK {
			t.Fatalf("object %x: %04x", tag, sw)
		}
		c.must(insVerify, 0xff, refPIN, nil)
		if _, sw := c.get(tag); sw != swSecurity {
			t.Errorf("object %x without PIN: %04x", tag, sw)
		}
		c.login()
		if got, sw := c.get(tag); sw != swOK || string(got) != "private" {
			t.Errorf("object %x with PIN: %q, %04x", tag, got, sw)
		}
	}
}

// A card's memory ends somewhere, and what was there stays.
func TestObjectMemory(t *testing.T) {
	c := newClient(t, Config{})
	c.admin()
	if sw := c.put(0x5fc105, make([]byte, maxObject+1)); sw != swNoMemory && sw != swWrongLength {
		t.Errorf("object that is too long: %04x", sw)
	}
	tag, sw := uint32(0x5fff10), swOK
	for ; sw == swOK; tag++ {
		if tag > 0x5fff10+maxObjectBytes/maxObject+1 {
			t.Fatal("objects fill more than the card has")
		}
		sw = c.put(tag, make([]byte, maxObject))
	}
	if sw != swNoMemory {
		t.Errorf("full card: %04x", sw)
	}
	if got, _ := c.get(0x5fff10); len(got) != maxObject {
		t.Errorf("first object has %d bytes", len(got))
	}
	if sw := c.put(0x5fff10, []byte("shorter")); sw != swOK {
		t.Errorf("replacing an object of a full card: %04x", sw)
	}
	many := newClient(t, Config{})
	many.admin()
	for i := range maxObjects {
		if sw := many.put(0x5fff10+uint32(i), []byte{1}); sw != swOK {
			t.Fatalf("object %d: %04x", i, sw)
		}
	}
	if sw := many.put(0x5fc105, []byte{1}); sw != swNoMemory {
		t.Errorf("one object too many: %04x", sw)
	}
}
