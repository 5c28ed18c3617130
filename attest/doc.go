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
// Formats, one file each:
//
//	format                  for                          freshness               tier
//	yubico-piv              slots of a YubiKey           challenge               hardware
//	tpm                     keys in a TPM 2.0            challenge, activation   hardware
//	marvell-liquidsecurity  gateways' keys in Google     the request's own       hardware
//	                        Cloud HSM                    signature
//	witnessed               cards that cannot attest     challenge               witnessed
//
// Evidence of cards and HSMs holds no nonce and hardly ever ends: an attacker who
// copied it can show it for ever. Freshness comes from a [Challenge] alone, which
// the attested key signs. A TPM signs the challenge into its evidence besides.
//
// The last two and the TPM's are accepted only where they are asked for: see
// [AppraisalPolicy] and [Input]. Formats that could not be tested against hardware
// or real samples stay out: YubiHSM 2, Thales Luna (whose published EC sample does
// not verify), Android and Apple key stores, draft-ietf-rats-pkix-key-attestation.
//
// Never issue on claims: issue on a Result whose Tier is set. Never take the
// attributes that a PKCS#11 module shows for evidence: software sets them.
//
// All input is hostile. Sizes are bounded (limits.go), nothing panics, and
// nothing is fetched.
package attest
