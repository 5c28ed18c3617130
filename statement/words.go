// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"encoding/hex"

	"valise/identity"
)

func clearanceWords(c *identity.Clearance) string { return orNone(c.Text()) }

func hashWords(sum [32]byte) string {
	if sum == [32]byte{} {
		return "none"
	}
	return hex.EncodeToString(sum[:])
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
