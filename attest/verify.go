// SPDX-License-Identifier: Apache-2.0

package attest

import "time"

// Verify checks evidence against endorsements and returns what it says. The
// error is an *Error: no claims follow from evidence that is not sound.
//
// A nil challenge leaves Claims.Fresh unstated; a challenge that the attested
// key did not sign makes it false. Either way a policy refuses.
func Verify(ev Evidence, challenge *Challenge, endorsements *Endorsements, now time.Time) (*Claims, error) {
	if len(ev.Chain) == 0 {
		return nil, refuse(ReasonNoEvidence, "no attestation of the key was given")
	}
	if endorsements == nil {
		endorsements = new(Endorsements)
	}
	var claims *Claims
	var err error
	switch ev.Format {
	case FormatYubicoPIV:
		claims, err = verifyYubico(ev, endorsements, now)
	case FormatTPM:
		claims, err = verifyTPM(ev, challenge, endorsements, now)
	case FormatMarvell:
		claims, err = verifyMarvell(ev, endorsements, now)
	case FormatWitnessed:
		claims, err = verifyWitnessed(ev)
	default:
		err = refuse(ReasonUnknownFormat, "format %.40q is not known, want %q, %q, %q or %q",
			ev.Format, FormatYubicoPIV, FormatTPM, FormatMarvell, FormatWitnessed)
	}
	if err != nil {
		return nil, err
	}
	claims.Format, claims.EvidenceHash, claims.Endorsements = ev.Format, ev.Hash(), endorsements.Version()
	// A TPM's certification is made for one challenge, and has its say already.
	if challenge != nil && claims.Fresh != False {
		claims.Fresh = truth(challenge.answeredBy(claims.Key.PublicKey))
	}
	return claims, nil
}
