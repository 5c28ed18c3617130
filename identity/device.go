// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// A DeviceID is the SHA-256 of a device key's SubjectPublicKeyInfo in DER
// (RFC 5280, Section 4.1.2.7). It is all that names a device.
type DeviceID [sha256.Size]byte

const deviceURN = "valise:device:"

// ErrKey is returned for public keys that Valise does not use.
var ErrKey = errors.New("not an ECDSA key on P-256 or P-384")

// DeviceIDOf returns the id of the device that holds the private half of key,
// which must be an ECDSA key on P-256 or P-384.
func DeviceIDOf(key crypto.PublicKey) (DeviceID, error) {
	spki, err := marshalKey(key)
	if err != nil {
		return DeviceID{}, err
	}
	return sha256.Sum256(spki), nil
}

// ParseDeviceID reads the 64 lower-case hexadecimal digits of String.
func ParseDeviceID(s string) (DeviceID, error) {
	var id DeviceID
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(id) || s != strings.ToLower(s) {
		return id, fmt.Errorf("device id %q: want %d lower-case hexadecimal digits", clip(s), 2*len(id))
	}
	copy(id[:], raw)
	return id, nil
}

// String returns the id in lower-case hexadecimal.
func (id DeviceID) String() string { return hex.EncodeToString(id[:]) }

// URL returns the id as it stands in certificates, urn:valise:device:HEX.
func (id DeviceID) URL() *url.URL {
	return &url.URL{Scheme: "urn", Opaque: deviceURN + id.String()}
}

// IsZero reports whether id names no device.
func (id DeviceID) IsZero() bool { return id == DeviceID{} }

// Compare orders device ids as their bytes.
func (id DeviceID) Compare(other DeviceID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText makes ids plain strings in JSON.
func (id DeviceID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText accepts what ParseDeviceID accepts.
func (id *DeviceID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseDeviceID(string(text))
	return err
}

// CheckKey reports whether key is one that Valise certifies: ECDSA on P-256 or
// P-384, a point of the curve.
func CheckKey(key crypto.PublicKey) error {
	ec, ok := key.(*ecdsa.PublicKey)
	if !ok || ec == nil || ec.Curve != elliptic.P256() && ec.Curve != elliptic.P384() {
		return ErrKey
	}
	if _, err := ec.ECDH(); err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	return nil
}

func marshalKey(key crypto.PublicKey) ([]byte, error) {
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	return x509.MarshalPKIXPublicKey(key)
}
