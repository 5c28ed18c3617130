// SPDX-License-Identifier: Apache-2.0

package testcard

import "fmt"

// PIN policies and touch policies, as in key metadata and attestation.
const (
	pinDefault     = 0x00
	pinNever       = 0x01
	pinOnce        = 0x02
	pinAlways      = 0x03
	pinMatchOnce   = 0x04 // Bio: finger or PIN
	pinMatchAlways = 0x05

	touchDefault = 0x00
	touchNever   = 0x01
	touchAlways  = 0x02
	touchCached  = 0x03
)

// Where a key came from.
const (
	originGenerated = 0x01
	originImported  = 0x02
)

const slotAttestation = 0xf9

// validSlot reports whether ref is an asymmetric key reference that commands
// may use (SP 800-73-4 Part 1, Table 4b): 9A authentication, 9C signature, 9D
// key management, 9E card authentication, 82 to 95 retired key management.
func validSlot(ref byte) bool {
	switch ref {
	case 0x9a, 0x9c, 0x9d, 0x9e:
		return true
	}
	return 0x82 <= ref && ref <= 0x95
}

func slotName(ref byte) string { return fmt.Sprintf("%02x", ref) }

// policies reads the PIN and touch policy fields AA and AB and fills in the
// defaults of the slot: 9C asks for the PIN every time, 9E never, all others
// once (SP 800-73-4 Part 1, Section 3.1.3 and following).
func (c *Card) policies(ref byte, fields []field) (pin, touch byte, ok bool) {
	for _, f := range fields {
		switch {
		case len(f.value) != 1:
			return 0, 0, false
		case f.tag == 0xaa:
			pin = f.value[0]
		case f.tag == 0xab:
			touch = f.value[0]
		default:
			return 0, 0, false
		}
	}
	if pin == pinDefault {
		pin = map[byte]byte{0x9c: pinAlways, 0x9e: pinNever}[ref]
	}
	if pin == pinDefault {
		pin = pinOnce
	}
	if touch == touchDefault {
		touch = touchNever
	}
	highest := byte(pinAlways)
	if c.state.Bio {
		highest = pinMatchAlways
	}
	if c.state.NoSensor && touch != touchNever {
		return 0, 0, false
	}
	return pin, touch, pin <= highest && touch <= touchCached
}

// allowed decides whether the key may be used now, and spends what lasts for
// one use only.
func (c *Card) allowed(k *slotKey) status {
	s := &c.session
	var ok bool
	switch k.PIN {
	case pinNever:
		ok = true
	case pinOnce:
		ok = s.pin
	case pinAlways:
		ok = s.pinFresh
	case pinMatchOnce:
		ok = s.pin || s.finger
	case pinMatchAlways:
		ok = s.pinFresh || s.fingFresh
	}
	if !ok {
		return swSecurity
	}
	s.pinFresh, s.fingFresh = false, false
	if k.Touch != touchNever && c.state.Untouched {
		return swSecurity
	}
	return swOK
}
