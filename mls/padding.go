// SPDX-License-Identifier: Apache-2.0

package mls

import "math/bits"

// PadToClasses is the default padding, RFC 9420, Section 15.1: sizes are
// rounded up to multiples of 256 bytes up to 4 KiB, and above that to the next
// of eight steps in each power of two, which costs at most an eighth.
func PadToClasses(n int) int {
	step := 256
	if n > 4096 {
		step = 1 << (bits.Len(uint(n-1)) - 4)
	}
	return (n + step - 1) / step * step
}

func (c *Config) pad(n int) int {
	if c.Pad == nil {
		return PadToClasses(n)
	}
	return c.Pad(n)
}
