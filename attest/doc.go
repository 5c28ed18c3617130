// SPDX-License-Identifier: Apache-2.0

// Package attest decides whether a key sits in hardware that the authority
// accepts. It speaks RFC 9334's language: a device sends [Evidence], vendors
// give [Endorsements], [Verify] turns the two into [Claims], and an
// [AppraisalPolicy] turns claims into a [Result] with a reason for every rule.
//
//	object, err := attest.ParseAttestationObject(payload)              // from the ACME client
//	claims, err := attest.Verify(object.Evidence(), object.Challenge(keyAuthorization), endorsements, now)
//	result := policy.Appraise(claims, attest.Input{PublicKey: csr.PublicKey, Now: now})
//
// A claim is true, false or unstated. What evidence does not state is never
// guessed, and every rule of a policy refuses it.
//
// The only format today is the attestation of YubiKey PIV slots,
// [FormatYubicoPIV]. It holds no nonce and never ends: an attacker who copied
// it can show it for ever. Freshness comes from a [Challenge] alone, which the
// attested key signs.
//
// Never issue on claims: issue on a Result whose Tier is set. Never take the
// attributes that a PKCS#11 module shows for evidence: software sets them.
//
// All input is hostile. Sizes are bounded (limits.go), nothing panics, and
// nothing is fetched.
package attest
