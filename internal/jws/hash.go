// SPDX-License-Identifier: Apache-2.0

package jws

import (
	"encoding/hex"
	"fmt"
)

// A Hash is a SHA-256 that stands in JSON as 64 lower-case hexadecimal digits.
type Hash [32]byte

// MarshalText writes the digits.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads them; that they are in lower case, Decode finds out.
func (h *Hash) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(h) {
		return fmt.Errorf("a hash of %d digits, want %d", len(text), hex.EncodedLen(len(h)))
	}
	_, err := hex.Decode(h[:], text)
	return err
}
