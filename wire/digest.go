// SPDX-License-Identifier: Apache-2.0

package wire

import "crypto/sha256"

// Digest is what the gateway keeps of a submission to tell a repetition from a
// different request under the same counter: SHA-256 over the frame's type (one
// byte) and its body with the request id, the first four bytes, set to zero.
// See spec/wire.md, Section 5.
func Digest(s Submission) ([sha256.Size]byte, error) {
	frame, err := Marshal(s)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	const head = 4 // type and length
	clear(frame[head : head+4])
	frame[head-1] = frame[0]
	return sha256.Sum256(frame[head-1:]), nil
}
