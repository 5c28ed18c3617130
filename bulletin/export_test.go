// SPDX-License-Identifier: Apache-2.0

package bulletin

// For fuzzing without a signature.
var (
	Parse  = parse
	Encode = encode
)
