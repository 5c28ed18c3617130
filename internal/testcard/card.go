// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"fmt"
	"sync"
)

// atr is the answer to reset of a YubiKey 5: OpenSC recognises the card by it
// and offers elliptic curves only then.
var atr = []byte{
	0x3b, 0xfd, 0x13, 0x00, 0x00, 0x81, 0x31, 0xfe, 0x15, 0x80, 0x73, 0xc0,
	0x21, 0xc0, 0x57, 0x59, 0x75, 0x62, 0x69, 0x4b, 0x65, 0x79, 0x40,
}

// A Card is one virtual smartcard. It is safe for concurrent use, and answers
// one command at a time as a card does.
type Card struct {
	mu      sync.Mutex
	state   *state  // guarded by mu; on disk before an answer leaves the card
	session session // guarded by mu; lost with power
	path    string  // "" keeps the state in memory only
	unlock  func()  // releases the state file
}

// A session is what a card forgets without power.
type session struct {
	powered    bool
	applet     applet
	pin        bool   // PIN verified since power-up or SELECT
	pinFresh   bool   // … and no key used since
	finger     bool   // the same for the finger of a Bio card
	fingFresh  bool   //
	management bool   // management key authenticated
	challenge  []byte // what the peer must answer for the management key
	external   bool   // challenge is of external, not of mutual authentication
	chain      chain
	pending    []byte // rest of a long response
}

// An applet is a card application that can be selected.
type applet int

const (
	appletNone applet = iota
	appletPIV
	appletManagement
	appletOTP
)

// Serial returns the card's serial number.
func (c *Card) Serial() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Serial
}

// ATR returns the answer to reset.
func (c *Card) ATR() []byte { return bytes.Clone(atr) }

// PowerOn starts a new session; nothing is selected and nobody logged in.
func (c *Card) PowerOn() { c.power(true) }

// PowerOff ends the session: until PowerOn, every command is refused.
func (c *Card) PowerOff() { c.power(false) }

func (c *Card) power(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = session{powered: on}
}

// Close releases the state file. The card must not be used after it.
func (c *Card) Close() error {
	c.power(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unlock != nil {
		c.unlock()
		c.unlock = nil
	}
	return nil
}

// dispatch runs one whole command in the selected applet.
func (c *Card) dispatch(cmd command) ([]byte, status) {
	if cmd.ins == insSelect {
		return c.selectApplet(cmd)
	}
	switch c.session.applet {
	case appletPIV:
		return c.piv(cmd)
	case appletManagement:
		if cmd.ins == insReadConfig {
			return c.readConfig(), swOK
		}
	case appletOTP:
		if cmd.ins == insOTPSerial && cmd.p1 == 0x10 {
			return c.serialBytes(), swOK
		}
	}
	return nil, swUnknownINS
}

// piv runs a command of the PIV applet.
func (c *Card) piv(cmd command) ([]byte, status) {
	switch cmd.ins {
	case insVerify:
		return c.verify(cmd)
	case insChangeReference:
		return c.changeReference(cmd)
	case insResetRetry:
		return c.resetRetry(cmd)
	case insSetRetries:
		return c.setRetries(cmd)
	case insReset:
		return c.reset()
	case insAuthenticate:
		return c.authenticate(cmd)
	case insSetManagementKey:
		return c.setManagementKey(cmd)
	case insGenerate:
		return c.generate(cmd)
	case insImport:
		return c.importKey(cmd)
	case insAttest:
		return c.attest(cmd)
	case insGetData:
		return c.getData(cmd)
	case insPutData:
		return c.putData(cmd)
	case insGetMetadata:
		return c.getMetadata(cmd)
	case insGetVersion:
		v := c.state.Firmware
		return []byte{v.Major, v.Minor, v.Patch}, swOK
	case insGetSerial:
		if !c.state.Firmware.atLeast(5, 0, 0) {
			return nil, swUnknownINS
		}
		return c.serialBytes(), swOK
	}
	return nil, swUnknownINS
}

// A Version is a firmware version.
type Version struct{ Major, Minor, Patch byte }

// ParseVersion reads a version such as "5.4.3".
func ParseVersion(s string) (Version, error) {
	var v Version
	var rest string
	n, _ := fmt.Sscanf(s+" .", "%d.%d.%d %s", &v.Major, &v.Minor, &v.Patch, &rest)
	if n != 4 || v.String() != s {
		return Version{}, fmt.Errorf("testcard: firmware %q is not a version such as 5.4.3", s)
	}
	return v, nil
}

// String returns the version as in "5.4.3".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

func (v Version) atLeast(major, minor, patch byte) bool {
	w := Version{major, minor, patch}
	return bytes.Compare([]byte{v.Major, v.Minor, v.Patch}, []byte{w.Major, w.Minor, w.Patch}) >= 0
}

// MarshalText and UnmarshalText keep the version readable in the state file.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (v *Version) UnmarshalText(text []byte) (err error) {
	*v, err = ParseVersion(string(text))
	return err
}
