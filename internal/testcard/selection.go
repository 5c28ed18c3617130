// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"encoding/binary"
)

// Application identifiers. A card answers to a name that is cut short, so the
// five bytes of the PIV registered provider are enough.
var (
	aidPIV        = []byte{0xa0, 0x00, 0x00, 0x03, 0x08, 0x00, 0x00, 0x10, 0x00, 0x01, 0x00}
	aidManagement = []byte{0xa0, 0x00, 0x00, 0x05, 0x27, 0x47, 0x11, 0x17}
	aidOTP        = []byte{0xa0, 0x00, 0x00, 0x05, 0x27, 0x20, 0x01, 0x01}
)

// selectApplet is SELECT (SP 800-73-4 Part 2, Section 3.1.1). Selecting PIV
// while it is selected changes nothing about who is logged in; selecting
// another application logs out; an unknown name changes nothing.
func (c *Card) selectApplet(cmd command) ([]byte, status) {
	if cmd.p1 != 0x04 {
		return nil, swWrongParameters
	}
	match := func(aid []byte) bool {
		return len(cmd.data) >= 5 && bytes.HasPrefix(aid, cmd.data)
	}
	var chosen applet
	var answer []byte
	switch {
	case match(aidPIV):
		chosen, answer = appletPIV, propertyTemplate()
	case match(aidManagement):
		chosen, answer = appletManagement, []byte("Virtual card - FW version "+c.state.Firmware.String())
	case match(aidOTP):
		v := c.state.Firmware
		chosen, answer = appletOTP, []byte{v.Major, v.Minor, v.Patch, 0, 0, 0}
	default:
		return nil, swNoObject
	}
	if chosen != c.session.applet {
		c.session = session{powered: true, applet: chosen}
	}
	return answer, swOK
}

// propertyTemplate is the application property template (SP 800-73-4 Part 2,
// Table 3): the version of the application and its registered provider.
func propertyTemplate() []byte {
	b := appendField(nil, 0x4f, aidPIV[5:])
	b = appendField(b, 0x79, appendField(nil, 0x4f, aidPIV[:5]))
	return appendField(nil, 0x61, b)
}

// serialBytes is the answer of GET SERIAL, and of the OTP applet for cards
// older than firmware 5.
func (c *Card) serialBytes() []byte {
	return binary.BigEndian.AppendUint32(nil, c.state.Serial)
}

// readConfig is READ CONFIG of the management applet: a length byte, then
// data objects for interfaces, serial number, form factor and version.
func (c *Card) readConfig() []byte {
	v := c.state.Firmware
	const onlyPIV = 0x10 // bit of the PIV application
	b := appendField(nil, 0x01, []byte{onlyPIV})
	b = appendField(b, 0x02, c.serialBytes())
	b = appendField(b, 0x03, []byte{onlyPIV})
	b = appendField(b, 0x04, []byte{c.state.FormFactor})
	b = appendField(b, 0x05, []byte{v.Major, v.Minor, v.Patch})
	return append([]byte{byte(len(b))}, b...)
}
