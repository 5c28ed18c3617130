// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"crypto/subtle"
	"errors"
)

// Key references of PIN, PUK and the finger (SP 800-73-4 Part 1, Table 4b).
const (
	refPIN    = 0x80
	refPUK    = 0x81
	refFinger = 0x96
)

// Factory values of a YubiKey.
const (
	DefaultPIN = "123456"
	DefaultPUK = "12345678"
)

// A reference is a PIN or PUK with its counter.
type reference struct {
	Value []byte `json:"value"` // padded to eight bytes
	Tries int    `json:"tries"` // at the start
	Left  int    `json:"left"`
}

func newReference(value string, tries int) reference {
	return reference{Value: padPIN(value), Tries: tries, Left: tries}
}

func padPIN(value string) []byte {
	b := bytes.Repeat([]byte{0xff}, pinLength)
	copy(b, value)
	return b
}

// checkPIN refuses a PIN or PUK that cannot be sent to a card.
func checkPIN(value string) error {
	if len(value) < minPIN || len(value) > pinLength || !validPIN(padPIN(value)) {
		return errors.New("testcard: PIN and PUK must have 6 to 8 characters")
	}
	return nil
}

// validPIN reports whether b is a padded new PIN or PUK: at least six
// characters, then only padding (SP 800-73-4 Part 2, Section 2.4.3).
func validPIN(b []byte) bool {
	text := bytes.TrimRight(b, "\xff")
	return len(b) == pinLength && len(text) >= minPIN && !bytes.Contains(text, []byte{0xff})
}

// wrong is the status after a failed try: the tries that are left, as far as
// a nibble can say it.
func (r *reference) wrong() status {
	return swWrongTries | status(min(r.Left, 15))
}

// try compares value and keeps the counter. The file is written before the
// answer, so pulling the card after a wrong PIN gives no try back.
func (c *Card) try(r *reference, value []byte) status {
	if r.Left == 0 {
		return swBlocked
	}
	if subtle.ConstantTimeCompare(r.Value, value) != 1 {
		r.Left--
		if sw := c.save(); sw != swOK {
			return sw
		}
		return r.wrong()
	}
	if r.Left == r.Tries {
		return swOK
	}
	r.Left = r.Tries
	return c.save()
}

// verify is VERIFY (SP 800-73-4 Part 2, Section 3.2.1). Without data it tells
// the state: 9000 when logged in, else the tries left. P1 FF logs out.
func (c *Card) verify(cmd command) ([]byte, status) {
	if cmd.p2 == refFinger && c.state.Bio {
		return c.verifyFinger(cmd)
	}
	pin := &c.state.PIN
	switch {
	case cmd.p2 != refPIN:
		return nil, swNoReference
	case cmd.p1 == 0xff && len(cmd.data) == 0:
		c.session.pin, c.session.pinFresh = false, false
		return nil, swOK
	case cmd.p1 != 0:
		return nil, swWrongParameters
	case len(cmd.data) == 0 && c.session.pin:
		return nil, swOK
	case len(cmd.data) == 0 && pin.Left == 0:
		return nil, swBlocked
	case len(cmd.data) == 0:
		return nil, pin.wrong()
	case len(cmd.data) != pinLength:
		return nil, swWrongData
	}
	sw := c.try(pin, cmd.data)
	c.session.pin, c.session.pinFresh = sw == swOK, sw == swOK
	return nil, sw
}

// verifyFinger is VERIFY of a Bio card; the virtual finger always matches.
func (c *Card) verifyFinger(cmd command) ([]byte, status) {
	if cmd.p1 != 0 {
		return nil, swWrongParameters
	}
	if len(cmd.data) == 0 && !c.session.finger {
		return nil, swWrongTries | factoryTries
	}
	if len(cmd.data) > 0 {
		c.session.finger, c.session.fingFresh = true, true
	}
	return nil, swOK
}

// changeReference is CHANGE REFERENCE DATA (SP 800-73-4 Part 2, Section
// 3.2.2): the old value, then the new one.
func (c *Card) changeReference(cmd command) ([]byte, status) {
	var r *reference
	switch {
	case cmd.p1 != 0:
		return nil, swWrongParameters
	case cmd.p2 == refPIN:
		r = &c.state.PIN
	case cmd.p2 == refPUK:
		r = &c.state.PUK
	default:
		return nil, swNoReference
	}
	if len(cmd.data) != 2*pinLength {
		return nil, swWrongData
	}
	sw := c.try(r, cmd.data[:pinLength])
	if sw == swOK {
		sw = c.replace(r, cmd.data[pinLength:])
	}
	if cmd.p2 == refPIN {
		c.session.pin, c.session.pinFresh = sw == swOK, sw == swOK
	}
	return nil, sw
}

// resetRetry is RESET RETRY COUNTER (SP 800-73-4 Part 2, Section 3.2.3): the
// PUK sets a new PIN and gives it all its tries.
func (c *Card) resetRetry(cmd command) ([]byte, status) {
	if cmd.p1 != 0 || cmd.p2 != refPIN {
		return nil, swWrongParameters
	}
	if len(cmd.data) != 2*pinLength {
		return nil, swWrongData
	}
	c.session.pin, c.session.pinFresh = false, false
	if sw := c.try(&c.state.PUK, cmd.data[:pinLength]); sw != swOK {
		return nil, sw
	}
	return nil, c.replace(&c.state.PIN, cmd.data[pinLength:])
}

// replace sets a new PIN or PUK with a full counter.
func (c *Card) replace(r *reference, value []byte) status {
	if !validPIN(value) {
		return swWrongData
	}
	r.Value, r.Left = bytes.Clone(value), r.Tries
	return c.save()
}

// setRetries is Yubico's SET PIN RETRIES: it needs management key and PIN,
// and puts PIN and PUK back to their factory values.
func (c *Card) setRetries(cmd command) ([]byte, status) {
	switch {
	case !c.session.management || !c.session.pin:
		return nil, swSecurity
	case cmd.p1 == 0 || cmd.p2 == 0:
		return nil, swWrongParameters
	}
	c.state.PIN = newReference(DefaultPIN, int(cmd.p1))
	c.state.PUK = newReference(DefaultPUK, int(cmd.p2))
	c.session.pin, c.session.pinFresh = false, false
	return nil, c.save()
}

// reset is Yubico's RESET: only a card whose PIN and PUK are both blocked
// goes back to the factory state. Serial number and attestation key stay.
func (c *Card) reset() ([]byte, status) {
	if c.state.PIN.Left > 0 || c.state.PUK.Left > 0 {
		return nil, swConditions
	}
	c.state.factory()
	c.session = session{powered: true, applet: appletPIV}
	return nil, c.save()
}
