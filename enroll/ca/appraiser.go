// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"time"

	"valise/attest"
	"valise/identity"
)

// An Appraiser judges evidence: first when it arrives, and again from the stored
// bytes when the certificate is built, so that a row in the database that says
// "accepted" is worth nothing by itself.
type Appraiser struct {
	Endorsements *attest.Endorsements
	Policy       *attest.AppraisalPolicy

	// ActivationKey is what TPMs' activation secrets are derived from; without one
	// no TPM's key is accepted. It never stands in the database: who could read it
	// there could pretend to be any TPM.
	ActivationKey []byte

	// Observe, if set, is told how long each appraisal took and whether it was passed.
	Observe func(took time.Duration, passed bool)

	remembers *memory // of the CA that it works for; nil: everything is verified each time
}

// Appraise judges an attestation object as the answer to a key authorization (RFC
// 8555, Section 8.1) for the key whose device id is given.
func (a *Appraiser) Appraise(object []byte, keyAuthorization string, device identity.DeviceID, now time.Time) *attest.Result {
	_, result := a.Examine(object, keyAuthorization, device, now)
	return result
}

// Examine is Appraise with what the evidence says; the claims are nil if they could
// not be verified.
func (a *Appraiser) Examine(object []byte, keyAuthorization string, device identity.DeviceID, now time.Time) (claims *attest.Claims, result *attest.Result) {
	if a.Observe != nil {
		began := time.Now()
		defer func() { a.Observe(time.Since(began), result.Accepted()) }()
	}
	o, err := attest.ParseAttestationObject(object)
	if err != nil {
		return nil, refusedFor(err)
	}
	challenge := o.Challenge([]byte(keyAuthorization))
	challenge.ActivationKey = a.ActivationKey
	key := memoryKey(object, keyAuthorization, a.ActivationKey)
	claims = a.remembers.recall(key, a.Endorsements, now)
	if claims == nil {
		if claims, err = attest.Verify(o.Evidence(), challenge, a.Endorsements, now); err != nil {
			return nil, refusedFor(err)
		}
		a.remembers.keep(key, verified{claims, a.Endorsements, now})
	}
	// The identifier commits to the key. Evidence for any other key is given to the
	// policy with no key at all, which refuses it as key_mismatch.
	var want crypto.PublicKey
	if id, err := identity.DeviceIDOf(claims.Key.PublicKey); err == nil && id == device {
		want = claims.Key.PublicKey
	}
	return claims, a.Policy.Appraise(claims, attest.Input{PublicKey: want, Now: now})
}

// AppraiseGateway judges evidence for a gateway's key, whose CSR has been checked.
func (a *Appraiser) AppraiseGateway(ev attest.Evidence, key crypto.PublicKey, now time.Time) *attest.Result {
	_, result := a.examineGateway(ev, key, now)
	return result
}

func (a *Appraiser) examineGateway(ev attest.Evidence, key crypto.PublicKey, now time.Time) (*attest.Claims, *attest.Result) {
	claims, err := attest.Verify(ev, nil, a.Endorsements, now)
	if err != nil {
		return nil, refusedFor(err)
	}
	return claims, a.Policy.Appraise(claims, attest.Input{PublicKey: key, Gateway: true, Now: now})
}

func refusedFor(err error) *attest.Result {
	reason := attest.ReasonOf(err)
	if reason == "" {
		reason = attest.ReasonMalformed
	}
	return &attest.Result{
		Verdict: attest.Refused,
		Reasons: []attest.Rule{{Name: "evidence", Reason: reason, Detail: err.Error()}},
	}
}
