// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/sha256"
	"encoding/binary"
)

// FormatYubicoPIV names the attestation of a YubiKey's PIV slots.
const FormatYubicoPIV = "yubico-piv"

// Evidence is what a device shows for its keys, as raw bytes.
type Evidence struct {
	// Format says how to read the chains.
	Format string

	// Chain is for the key that is to be certified: the slot's attestation
	// certificate, then the card's own attestation certificate (f9), DER.
	// Copies of endorsed intermediates and roots may follow.
	Chain [][]byte

	// KeyManagement is the same for the key in 9d that unwraps local state.
	// It may be empty; then nothing is claimed about that key.
	KeyManagement [][]byte
}

// Hash returns the SHA-256 by which an appraisal result names this evidence:
//
//	SHA-256("valise evidence 1" 00 ‖ v(Format) ‖ n(Chain) ‖ v(cert)… ‖
//	        n(KeyManagement) ‖ v(cert)…)
//
// with n(x) the number of elements as uint32 and v(x) the bytes behind their
// length as uint32.
func (e *Evidence) Hash() [32]byte {
	sum := []byte("valise evidence 1\x00")
	opaque := func(b []byte) {
		sum = binary.BigEndian.AppendUint32(sum, uint32(len(b)))
		sum = append(sum, b...)
	}
	opaque([]byte(e.Format))
	for _, chain := range [][][]byte{e.Chain, e.KeyManagement} {
		sum = binary.BigEndian.AppendUint32(sum, uint32(len(chain)))
		for _, der := range chain {
			opaque(der)
		}
	}
	return sha256.Sum256(sum)
}
