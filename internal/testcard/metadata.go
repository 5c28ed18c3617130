// SPDX-License-Identifier: Apache-2.0

package testcard

import "bytes"

// getMetadata is Yubico's GET METADATA, from firmware 5.3 on: 01 algorithm,
// 02 PIN and touch policy, 03 origin, 04 public key, 05 whether the value is
// the factory's, 06 tries at the start and tries left.
func (c *Card) getMetadata(cmd command) ([]byte, status) {
	if !c.state.Firmware.atLeast(5, 3, 0) {
		return nil, swUnknownINS
	}
	if cmd.p1 != 0 {
		return nil, swWrongParameters
	}
	switch cmd.p2 {
	case refPIN:
		return c.state.PIN.metadata(DefaultPIN), swOK
	case refPUK:
		return c.state.PUK.metadata(DefaultPUK), swOK
	case refManagement:
		m := c.state.Management
		b := appendField(nil, 0x01, []byte{m.Algorithm})
		b = appendField(b, 0x02, []byte{pinDefault, m.Touch})
		return appendField(b, 0x05, flag(bytes.Equal(m.Key, defaultManagementKey))), swOK
	case slotAttestation:
		return c.state.Attestation.key().metadata()
	}
	k := c.state.Keys[slotName(cmd.p2)]
	if k == nil {
		return nil, swNoReference
	}
	return k.metadata()
}

func (k *slotKey) metadata() ([]byte, status) {
	public, err := encodePublic(k.public())
	if err != nil {
		return nil, swConditions
	}
	b := appendField(nil, 0x01, []byte{k.Algorithm})
	b = appendField(b, 0x02, []byte{k.PIN, k.Touch})
	b = appendField(b, 0x03, []byte{k.Origin})
	return appendField(b, 0x04, public), swOK
}

func (r *reference) metadata(factory string) []byte {
	b := appendField(nil, 0x01, []byte{0xff})
	b = appendField(b, 0x05, flag(bytes.Equal(r.Value, padPIN(factory))))
	return appendField(b, 0x06, []byte{byte(r.Tries), byte(r.Left)})
}

func flag(set bool) []byte {
	if set {
		return []byte{1}
	}
	return []byte{0}
}
