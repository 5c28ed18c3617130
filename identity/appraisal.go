// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// A Tier says how well a certificate's key is known to sit in hardware.
type Tier string

const (
	// TierHardware: a vendor's root signed evidence for this key, and the
	// evidence met the authority's appraisal policy.
	TierHardware Tier = "hardware"
	// TierWitnessed: somebody of the authority saw the key made in a token
	// that gives no evidence.
	TierWitnessed Tier = "witnessed"
)

// tierNumbers are the ENUMERATED values of the appraisal extension.
var tierNumbers = map[Tier]int{TierHardware: 1, TierWitnessed: 2}

const appraisalVersion = 1

// An Appraisal is the result that a certificate carries in a non-critical
// extension (OIDAppraisal): the tier, and what it rests on as hashes, so that
// an auditor who holds evidence and policy can check it, and nobody else
// learns the card's serial number from it.
//
//	AppraisalResult ::= SEQUENCE {
//	    version   INTEGER (1),
//	    tier      ENUMERATED { hardware(1), witnessed(2) },
//	    evidence  OCTET STRING (SIZE (0 | 32)),  -- SHA-256; empty without evidence
//	    policy    OCTET STRING (SIZE (0 | 32)) }
type Appraisal struct {
	Tier         Tier
	EvidenceHash [32]byte // zero where there is no evidence
	PolicyHash   [32]byte // zero where no policy was applied
}

// Check reports whether a can stand in a certificate: the tier is known, and
// hardware comes with both hashes.
func (a Appraisal) Check() error {
	if tierNumbers[a.Tier] == 0 {
		return fmt.Errorf("appraisal result: unknown tier %q", clip(string(a.Tier)))
	}
	var zero [32]byte
	if a.Tier == TierHardware && (a.EvidenceHash == zero || a.PolicyHash == zero) {
		return errors.New("appraisal result: the hardware tier needs the hashes of evidence and policy")
	}
	return nil
}

// Marshal returns the extension's value in DER.
func (a Appraisal) Marshal() ([]byte, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(appraisalVersion)
		b.AddASN1Enum(int64(tierNumbers[a.Tier]))
		b.AddASN1OctetString(hashOrNothing(a.EvidenceHash))
		b.AddASN1OctetString(hashOrNothing(a.PolicyHash))
	})
	return b.Bytes()
}

// ParseAppraisal reads the extension's value; it accepts exactly what Marshal
// writes.
func ParseAppraisal(der []byte) (Appraisal, error) {
	var (
		a                Appraisal
		outer            = cryptobyte.String(der)
		seq              cryptobyte.String
		version, tier    int
		evidence, policy cryptobyte.String
	)
	if !outer.ReadASN1(&seq, asn1.SEQUENCE) || !outer.Empty() ||
		!seq.ReadASN1Integer(&version) || !seq.ReadASN1Enum(&tier) ||
		!seq.ReadASN1(&evidence, asn1.OCTET_STRING) ||
		!seq.ReadASN1(&policy, asn1.OCTET_STRING) || !seq.Empty() {
		return a, errors.New("appraisal result: malformed")
	}
	if version != appraisalVersion {
		return a, fmt.Errorf("appraisal result: unknown version %d", version)
	}
	for name, number := range tierNumbers {
		if number == tier {
			a.Tier = name
		}
	}
	copy(a.EvidenceHash[:], evidence)
	copy(a.PolicyHash[:], policy)
	again, err := a.Marshal()
	if err != nil {
		return Appraisal{}, err
	}
	if !bytes.Equal(again, der) {
		return Appraisal{}, errors.New("appraisal result: malformed")
	}
	return a, nil
}

func hashOrNothing(h [32]byte) []byte {
	if h == ([32]byte{}) {
		return nil
	}
	return h[:]
}
