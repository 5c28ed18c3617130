// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"encoding/hex"
	"strconv"
	"time"

	"valise/identity"
)

func clearanceWords(c *identity.Clearance) string { return orNone(c.Text()) }

// periodWords says whole days as such.
func periodWords(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + " days"
	}
	return d.String()
}

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
