// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// A Truth is what evidence says about a yes-or-no question.
type Truth int

// Unstated is the zero value: what nobody said is not so.
const (
	Unstated Truth = iota
	False
	True
)

func (t Truth) String() string { return [...]string{"unstated", "false", "true"}[t] }

// MarshalJSON writes true, false, or null for unstated.
func (t Truth) MarshalJSON() ([]byte, error) {
	return []byte([...]string{"null", "false", "true"}[t]), nil
}

func truth(b bool) Truth {
	if b {
		return True
	}
	return False
}

// A Stated value is one that evidence may leave out.
type Stated[T any] struct {
	Said  bool
	Value T
}

func state[T any](v T) Stated[T] { return Stated[T]{true, v} }

func (s Stated[T]) String() string {
	if !s.Said {
		return "unstated"
	}
	return fmt.Sprint(s.Value)
}

// MarshalJSON writes the value, or null for unstated.
func (s Stated[T]) MarshalJSON() ([]byte, error) {
	if !s.Said {
		return []byte("null"), nil
	}
	return json.Marshal(s.Value)
}

// Claims are what verified evidence says.
type Claims struct {
	Format        string     `json:"format"`
	Key           KeyClaims  `json:"key"`
	KeyManagement *KeyClaims `json:"key_management"`     // nil: nothing was said about 9d
	Fresh         Truth      `json:"fresh"`              // the attested key signed the challenge
	SameCard      Truth      `json:"same_card"`          // both keys sit in one card
	Activated     Truth      `json:"activated,omitzero"` // TPM: the endorsed one holds the key that certifies
	EvidenceHash  [32]byte   `json:"-"`
	Endorsements  string     `json:"endorsements"` // version of the endorsements used
}

// KeyClaims are what evidence says about one key.
type KeyClaims struct {
	PublicKey   crypto.PublicKey    `json:"-"`
	Algorithm   string              `json:"algorithm"` // "P-256", "P-384", "RSA-2048", …
	Generated   Truth               `json:"generated"` // made inside the hardware
	Slot        Stated[string]      `json:"slot"`      // "9a", "9d", "82", …
	Firmware    Stated[Firmware]    `json:"firmware"`
	Serial      Stated[uint64]      `json:"serial"`
	PINPolicy   Stated[PINPolicy]   `json:"pin_policy"`
	TouchPolicy Stated[TouchPolicy] `json:"touch_policy"`
	FormFactor  Stated[FormFactor]  `json:"form_factor"`
	FIPS        Truth               `json:"fips"`
	CSPN        Truth               `json:"cspn"`

	// What TPMs and HSMs say in place of slots and policies.
	Extractable      Truth          `json:"extractable,omitzero"`       // it can leave the hardware, if only encrypted
	NeverExtractable Truth          `json:"never_extractable,omitzero"` // and this never was otherwise
	Sensitive        Truth          `json:"sensitive,omitzero"`         // it cannot be read in clear
	AlwaysSensitive  Truth          `json:"always_sensitive,omitzero"`
	Restricted       Truth          `json:"restricted,omitzero"` // it signs only what the hardware made
	Hardware         Stated[string] `json:"hardware,omitzero"`   // where there is no number: what names this piece of hardware

	Path      []Link `json:"path"`                 // the key's certificate first, the root's last
	OwnerPath []Link `json:"owner_path,omitempty"` // the same under the root of the HSM's owner
	BuiltIn   bool   `json:"built_in_root"`
}

// SerialOf names the hardware that holds the key as "format:serial", or returns
// "" if the evidence does not say which it is.
func (c *Claims) SerialOf() string {
	switch {
	case c.Key.Serial.Said:
		return c.Format + ":" + strconv.FormatUint(c.Key.Serial.Value, 10)
	case c.Key.Hardware.Said:
		return c.Format + ":" + c.Key.Hardware.Value
	}
	return ""
}

// A Link is one certificate of a verified path.
type Link struct {
	Subject     string `json:"subject"`
	Fingerprint string `json:"fingerprint"` // SHA-256 of the DER, hexadecimal
}

// Root returns the fingerprint of the root above the key.
func (k *KeyClaims) Root() string {
	if len(k.Path) == 0 {
		return ""
	}
	return k.Path[len(k.Path)-1].Fingerprint
}

// A Firmware is a version number.
type Firmware struct{ Major, Minor, Patch uint8 }

func (f Firmware) String() string { return fmt.Sprintf("%d.%d.%d", f.Major, f.Minor, f.Patch) }

// MarshalText writes the dotted form.
func (f Firmware) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// Less reports whether f is older than other.
func (f Firmware) Less(other Firmware) bool { return f.number() < other.number() }

func (f Firmware) number() int { return int(f.Major)<<16 | int(f.Minor)<<8 | int(f.Patch) }

// ParseFirmware reads the dotted form, "5.7.0".
func ParseFirmware(s string) (Firmware, error) {
	var f Firmware
	parts := strings.Split(s, ".")
	for i, field := range []*uint8{&f.Major, &f.Minor, &f.Patch} {
		if len(parts) != 3 {
			break
		}
		n, err := strconv.ParseUint(parts[i], 10, 8)
		if err != nil {
			break
		}
		*field = uint8(n)
	}
	if f.String() != s {
		return Firmware{}, fmt.Errorf("firmware version %q: write it as 5.7.0", s)
	}
	return f, nil
}

// A PINPolicy says when a card asks for the PIN.
type PINPolicy uint8

// The values of Yubico's extension 1.3.6.1.4.1.41482.3.8, first byte.
const (
	PINNever       PINPolicy = 1
	PINOnce        PINPolicy = 2
	PINAlways      PINPolicy = 3
	PINMatchOnce   PINPolicy = 4 // fingerprint or PIN, once
	PINMatchAlways PINPolicy = 5 // fingerprint or PIN, every time
)

var pinNames = map[PINPolicy]string{
	PINNever: "never", PINOnce: "once", PINAlways: "always",
	PINMatchOnce: "match-once", PINMatchAlways: "match-always",
}

func (p PINPolicy) String() string { return nameOf(pinNames, p) }

// MarshalText writes the name.
func (p PINPolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// A TouchPolicy says when a card asks to be touched.
type TouchPolicy uint8

// The values of Yubico's extension 1.3.6.1.4.1.41482.3.8, second byte.
const (
	TouchNever  TouchPolicy = 1
	TouchAlways TouchPolicy = 2
	TouchCached TouchPolicy = 3 // a touch counts for 15 seconds
)

var touchNames = map[TouchPolicy]string{TouchNever: "never", TouchAlways: "always", TouchCached: "cached"}

func (p TouchPolicy) String() string { return nameOf(touchNames, p) }

// MarshalText writes the name.
func (p TouchPolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// A FormFactor is the shape of a card, without the certification bits.
type FormFactor uint8

// The values of Yubico's extension 1.3.6.1.4.1.41482.3.9, lower four bits.
const (
	USBAKeychain  FormFactor = 1
	USBANano      FormFactor = 2
	USBCKeychain  FormFactor = 3
	USBCNano      FormFactor = 4
	USBCLightning FormFactor = 5
	USBABio       FormFactor = 6
	USBCBio       FormFactor = 7
)

var formNames = map[FormFactor]string{
	USBAKeychain: "usb-a-keychain", USBANano: "usb-a-nano", USBCKeychain: "usb-c-keychain",
	USBCNano: "usb-c-nano", USBCLightning: "usb-c-lightning", USBABio: "usb-a-bio", USBCBio: "usb-c-bio",
}

func (f FormFactor) String() string { return nameOf(formNames, f) }

// MarshalText writes the name.
func (f FormFactor) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

func nameOf[T ~uint8](names map[T]string, v T) string {
	if name, ok := names[v]; ok {
		return name
	}
	return fmt.Sprintf("unknown(%d)", v)
}
