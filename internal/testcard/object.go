// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"fmt"
)

// Data objects with a meaning of their own (SP 800-73-4 Part 1, Table 3).
const (
	objDiscovery    = 0x7e
	objFingerprints = 0x5fc103
	objFace         = 0x5fc108
	objPrinted      = 0x5fc109
	objIris         = 0x5fc121
	objAttestation  = 0x5fff01 // certificate of F9, Yubico's
)

// validObject reports whether clients may write the object: the standard's
// range and the range that Yubico gives to vendors.
func validObject(tag uint32) bool {
	return tag>>8 == 0x5fc1 || tag>>8 == 0x5fff && tag != objAttestation
}

func objectName(tag uint32) string { return fmt.Sprintf("%06x", tag) }

// getData is GET DATA (SP 800-73-4 Part 2, Section 3.1.2).
func (c *Card) getData(cmd command) ([]byte, status) {
	if cmd.p1 != 0x3f || cmd.p2 != 0xff {
		return nil, swWrongParameters
	}
	list, ok := parseField(cmd.data, 0x5c)
	tag, named := objectTag(list)
	if !ok || !named {
		return nil, swWrongData
	}
	switch tag {
	case objDiscovery: // SP 800-73-4 Part 1, Section 3.3.2: PIV PIN only
		b := appendField(nil, 0x4f, aidPIV)
		return appendField(nil, objDiscovery, appendField(b, 0x5f2f, []byte{0x40, 0x00})), swOK
	case objAttestation:
		return appendField(nil, 0x53, certificateObject(c.state.Attestation.Certificate)), swOK
	case objFingerprints, objFace, objPrinted, objIris:
		if !c.session.pin {
			return nil, swSecurity
		}
	}
	value := c.state.Objects[objectName(tag)]
	if len(value) == 0 {
		return nil, swNoObject
	}
	return appendField(nil, 0x53, value), swOK
}

// putData is PUT DATA (SP 800-73-4 Part 2, Section 3.3.1). An empty object is
// no object.
func (c *Card) putData(cmd command) ([]byte, status) {
	if !c.session.management {
		return nil, swSecurity
	}
	if cmd.p1 != 0x3f || cmd.p2 != 0xff {
		return nil, swWrongParameters
	}
	fields, ok := parseFields(cmd.data)
	if !ok || !matchesTags(fields, 0x5c, 0x53) {
		return nil, swWrongData
	}
	tag, named := objectTag(fields[0].value)
	if !named || !validObject(tag) {
		return nil, swWrongData
	}
	return nil, c.store(objectName(tag), fields[1].value)
}

func matchesTags(fields []field, tags ...uint32) bool {
	if len(fields) != len(tags) {
		return false
	}
	for i, tag := range tags {
		if fields[i].tag != tag {
			return false
		}
	}
	return true
}

// store keeps an object, within the memory that a card has.
func (c *Card) store(name string, value []byte) status {
	total, objects := len(value), c.state.Objects
	for other, v := range objects {
		if other != name {
			total += len(v)
		}
	}
	_, known := objects[name]
	if len(value) > maxObject || total > maxObjectBytes || !known && len(objects) >= maxObjects {
		return swNoMemory
	}
	if len(value) == 0 {
		delete(objects, name)
	} else {
		objects[name] = bytes.Clone(value)
	}
	return c.save()
}

// objectTag reads the tag that a tag list names.
func objectTag(list []byte) (uint32, bool) {
	if len(list) == 0 || len(list) > 3 {
		return 0, false
	}
	var tag uint32
	for _, b := range list {
		tag = tag<<8 | uint32(b)
	}
	return tag, true
}

// certificateObject is the content of a certificate object (SP 800-73-4 Part
// 1, Appendix A): the certificate, not compressed, without a checksum.
func certificateObject(der []byte) []byte {
	b := appendField(nil, 0x70, der)
	b = appendField(b, 0x71, []byte{0})
	return appendField(b, 0xfe, nil)
}
