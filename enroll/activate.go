// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"

	"valise/attest"
	"valise/enroll/acme"
	"valise/internal/store/authority"
)

// Activate implements acme.Activator. It decides nothing: the secret counts only
// with evidence that is accepted, for this authorization, TPM and key. What would
// be refused then is refused now already, where that can be told.
func (a *Authority) Activate(ctx context.Context, account authority.Account, id string, chain [][]byte, attestationKey []byte) (credential, secret []byte, err error) {
	appraiser := a.cfg.CA.Appraisers()[0] // of the record, where there are officers
	if !appraiser.Policy.TPM || len(appraiser.ActivationKey) == 0 {
		return nil, nil, acme.Refuse(acme.Reason(attest.ReasonFormat), "this authority accepts no keys in TPMs")
	}
	_, authz, err := a.Authorization(ctx, account, id)
	if err != nil {
		return nil, nil, err
	}
	if err := openChallenge(&authz, a.cfg.Now()); err != nil {
		return nil, nil, err
	}
	ek, err := attest.VerifyEK(chain, appraiser.Endorsements, a.cfg.Now())
	if err != nil {
		return nil, nil, refusedEvidence(err)
	}
	name, err := attest.AKName(attestationKey)
	if err != nil {
		return nil, nil, refusedEvidence(err)
	}
	want := attest.ActivationSecret(appraiser.ActivationKey, []byte(authz.Token+"."+account.Thumbprint), ek, name)
	return attest.NewCredential(ek, name, want)
}

// refusedEvidence turns attest's reason into a refusal.
func refusedEvidence(err error) error {
	if reason := attest.ReasonOf(err); reason != "" {
		return acme.Refuse(acme.Reason(reason), err.Error())
	}
	return err
}
