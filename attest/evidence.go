// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/sha256"
	"encoding/binary"
)

// The formats of evidence.
const (
	// FormatYubicoPIV is the attestation of a YubiKey's PIV slots (yubico.go).
	FormatYubicoPIV = "yubico-piv"

	// FormatTPM is the certification of a key by the TPM 2.0 that holds it
	// (tpm.go).
	FormatTPM = "tpm"

	// FormatMarvell is the attestation of a Marvell LiquidSecurity partition, as
	// Google Cloud HSM hands it out (marvell.go).
	FormatMarvell = "marvell-liquidsecurity"

	// FormatWitnessed is no evidence of hardware: two officers see the key made
	// in a card that cannot attest (witnessed.go).
	FormatWitnessed = "witnessed"
)

// Evidence is what a device shows for its keys, as raw bytes.
type Evidence struct {
	// Format says how to read the rest.
	Format string

	// Chain is for the key that is to be certified. yubico-piv: the slot's
	// attestation certificate, then the card's own attestation certificate (f9),
	// DER; copies of endorsed intermediates and roots may follow. The other
	// formats say in their files what stands here.
	Chain [][]byte

	// KeyManagement is the same for the key (9d) that unwraps local state.
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
