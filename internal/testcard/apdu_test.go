// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"testing"
)

// ISO/IEC 7816-4, Section 5.1: the four cases of a short command.
func TestParseCommand(t *testing.T) {
	for _, tc := range []struct {
		name string
		apdu []byte
		data []byte
		le   int
		sw   status
	}{
		{"case 1", []byte{0, 0xfd, 0, 0}, nil, 256, swOK},
		{"case 2", []byte{0, 0xfd, 0, 0, 3}, nil, 3, swOK},
		{"case 2, Le 256", []byte{0, 0xfd, 0, 0, 0}, nil, 256, swOK},
		{"case 3", []byte{0, 0xcb, 0, 0, 1, 7}, []byte{7}, 256, swOK},
		{"case 4", []byte{0, 0xcb, 0, 0, 1, 7, 9}, []byte{7}, 9, swOK},
		{"no header", []byte{0, 0xcb, 0}, nil, 0, swWrongLength},
		{"empty", nil, nil, 0, swWrongLength},
		{"data missing", []byte{0, 0xcb, 0, 0, 2, 7}, nil, 0, swWrongLength},
		{"data left over", []byte{0, 0xcb, 0, 0, 1, 7, 9, 9}, nil, 0, swWrongLength},
		{"extended", []byte{0, 0xcb, 0, 0, 0, 0, 1, 7}, nil, 0, swWrongLength},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd, sw := parseCommand(tc.apdu)
			if sw != tc.sw || sw == swOK && (!bytes.Equal(cmd.data, tc.data) || cmd.le != tc.le) {
				t.Errorf("data %x, Le %d, status %04x; want %x, %d, %04x", cmd.data, cmd.le, sw, tc.data, tc.le, tc.sw)
			}
		})
	}
}

// ISO/IEC 7816-4, Section 5.2.2; every field marshals back.
func TestFields(t *testing.T) {
	for _, n := range []int{0, 1, 0x7f, 0x80, 0xff, 0x100, 0x1234} {
		for _, tag := range []uint32{0x53, 0x7f49, 0x5f2f} {
			value := bytes.Repeat([]byte{0xa5}, n)
			got, ok := parseField(appendField(nil, tag, value), tag)
			if !ok || !bytes.Equal(got, value) {
				t.Errorf("tag %x, %d bytes: %x, %v", tag, n, got, ok)
			}
		}
	}
	for _, bad := range [][]byte{
		{},
		{0x53},
		{0x53, 1},
		{0x53, 0x80},
		{0x53, 0x81},
		{0x53, 0x82, 0},
		{0x53, 0x83, 0, 0, 0},
		{0x53, 0x84, 0, 0, 0, 0},
		{0x7f},
		{0x7f, 0xff, 0xff, 0x01, 0},
		{0x53, 0, 0},
	} {
		if _, ok := parseField(bad, 0x53); ok {
			t.Errorf("%x is accepted", bad)
		}
	}
}

// SP 800-73-4 Part 2, Section 2.5: CLA 10 on all blocks but the last.
func TestChaining(t *testing.T) {
	object := bytes.Repeat([]byte("0123456789"), 60)
	put := append([]byte{0x5c, 0x03, 0x5f, 0xc1, 0x05}, appendField(nil, 0x53, object)...)
	get := []byte{0x5c, 0x03, 0x5f, 0xc1, 0x05}

	t.Run("object in blocks, answer in parts", func(t *testing.T) {
		c := newClient(t, Config{})
		c.admin()
		c.must(insPutData, 0x3f, 0xff, put)
		if got := c.must(insGetData, 0x3f, 0xff, get); !bytes.Equal(got, appendField(nil, 0x53, object)) {
			t.Errorf("object comes back as %x", got)
		}
		if _, sw := c.one(0, insGetResponse, 0, 0, nil); sw != swConditions {
			t.Errorf("GET RESPONSE with nothing left: %04x", sw)
		}
	})
	t.Run("the answer says how much is left", func(t *testing.T) {
		c := newClient(t, Config{})
		c.admin()
		c.must(insPutData, 0x3f, 0xff, put)
		out, sw := c.one(0, insGetData, 0x3f, 0xff, get)
		left := 604 - 256
		if len(out) != 256 || sw != swMoreData|status(min(left, 255)) {
			t.Errorf("%d bytes, %04x", len(out), sw)
		}
		c.must(insGetVersion, 0, 0, nil)
		if _, sw := c.one(0, insGetResponse, 0, 0, nil); sw != swConditions {
			t.Errorf("another command leaves the old answer: %04x", sw)
		}
	})
	t.Run("another command in between", func(t *testing.T) {
		c := newClient(t, Config{})
		c.admin()
		c.one(0x10, insPutData, 0x3f, 0xff, put[:255])
		c.want(swLastChained, insGetVersion, 0, 0, nil)
		c.must(insGetVersion, 0, 0, nil)
		c.one(0x10, insPutData, 0x3f, 0xff, put[:255])
		c.must(insSelect, 0x04, 0, aidPIV[:5])
		c.want(swNoObject, insGetData, 0x3f, 0xff, get)
	})
	t.Run("no end", func(t *testing.T) {
		c := newClient(t, Config{})
		c.admin()
		sw := swOK
		for blocks := 0; sw == swOK; blocks++ {
			if blocks > maxChained/255+1 {
				t.Fatal("a chain grows without bound")
			}
			_, sw = c.one(0x10, insPutData, 0x3f, 0xff, put[:255])
		}
		if sw != swWrongLength {
			t.Errorf("status %04x", sw)
		}
	})
}

// Unknown classes, instructions and a card without power.
func TestUnknownCommands(t *testing.T) {
	c := newClient(t, Config{})
	c.want(swUnknownINS, 0x11, 0, 0, nil)
	for _, cla := range []byte{0x04, 0x0c, 0x80, 0xff} {
		if _, sw := c.one(cla, insGetVersion, 0, 0, nil); sw != swUnknownCLA {
			t.Errorf("class %02x: %04x", cla, sw)
		}
	}
	c.card.PowerOff()
	c.want(swConditions, insGetVersion, 0, 0, nil)
	c.card.PowerOn()
	c.want(swUnknownINS, insGetVersion, 0, 0, nil) // nothing is selected
}

// SP 800-73-4 Part 2, Section 3.1.1.
func TestSelect(t *testing.T) {
	c := newClient(t, Config{Serial: 16909060})
	for n := 5; n <= len(aidPIV); n++ {
		c.must(insSelect, 0x04, 0, aidPIV[:n])
	}
	c.want(swNoObject, insSelect, 0x04, 0, aidPIV[:4])
	c.want(swNoObject, insSelect, 0x04, 0, append(bytes.Clone(aidPIV), 0))
	c.want(swWrongParameters, insSelect, 0x00, 0, aidPIV)

	c.login()
	c.must(insSelect, 0x04, 0, aidPIV)
	c.want(swNoObject, insSelect, 0x04, 0, []byte("nothing"))
	c.want(swOK, insVerify, 0, refPIN, nil) // still logged in
	c.must(insSelect, 0x04, 0, aidOTP)
	if got := c.must(insOTPSerial, 0x10, 0, nil); !bytes.Equal(got, []byte{1, 2, 3, 4}) {
		t.Errorf("serial number %x", got)
	}
	c.must(insSelect, 0x04, 0, aidPIV)
	c.want(swWrongTries|3, insVerify, 0, refPIN, nil) // logged out by the other applet
}

// Version, serial number and form factor, as Yubico's extensions give them.
func TestIdentity(t *testing.T) {
	c := newClient(t, Config{Serial: 16909060, FormFactor: 3, Firmware: Version{5, 7, 1}})
	if got := c.must(insGetVersion, 0, 0, nil); !bytes.Equal(got, []byte{5, 7, 1}) {
		t.Errorf("version %x", got)
	}
	if got := c.must(insGetSerial, 0, 0, nil); !bytes.Equal(got, []byte{1, 2, 3, 4}) {
		t.Errorf("serial number %x", got)
	}
	c.must(insSelect, 0x04, 0, aidManagement)
	config := c.must(insReadConfig, 0, 0, nil)
	fields, ok := parseFields(config[1:])
	if !ok || int(config[0]) != len(config)-1 {
		t.Fatalf("configuration %x", config)
	}
	found := map[uint32][]byte{}
	for _, f := range fields {
		found[f.tag] = f.value
	}
	if !bytes.Equal(found[0x02], []byte{1, 2, 3, 4}) || !bytes.Equal(found[0x04], []byte{3}) || !bytes.Equal(found[0x05], []byte{5, 7, 1}) {
		t.Errorf("configuration %v", found)
	}
	old := newClient(t, Config{Firmware: Version{4, 3, 7}})
	old.want(swUnknownINS, insGetSerial, 0, 0, nil)
	old.want(swUnknownINS, insGetMetadata, 0, 0x9b, nil)
}

func TestVersions(t *testing.T) {
	for _, good := range []string{"5.4.3", "0.0.0", "255.0.10"} {
		if v, err := ParseVersion(good); err != nil || v.String() != good {
			t.Errorf("%s: %v, %v", good, v, err)
		}
	}
	for _, bad := range []string{"", "5", "5.4", "5.4.3.2", "5.4.256", "5.4.-1", "05.4.3", "5.4.3 ", "a.b.c"} {
		if v, err := ParseVersion(bad); err == nil {
			t.Errorf("%q is read as %v", bad, v)
		}
	}
}
