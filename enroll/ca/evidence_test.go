// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"testing"

	"valise/attest"
	"valise/enroll/enrolltest"
	"valise/identity"
)

// A gateway's key in an HSM that says so gets tier "hardware"; without the HSM's
// word it is "witnessed", and with a word that is not accepted there is nothing.
func TestIssueGatewayOnEvidence(t *testing.T) {
	o := newOffice(t, elliptic.P256())
	h, loose := enrolltest.NewHSM(t, false), enrolltest.NewHSM(t, true)
	var err error
	o.ca.cfg.Appraiser.Endorsements, err = attest.Configured(append(append([]byte{}, h.Roots...), loose.Roots...))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"gateway.interieur.example"}
	trust := identity.NewTrust(identity.Authority{Domain: domain, Roots: []*x509.Certificate{o.ca.Root()}})
	for want, evidence := range map[identity.Tier]*attest.Evidence{identity.TierHardware: h.Evidence(), identity.TierWitnessed: nil} {
		i, err := o.ca.IssueGatewayOn(t.Context(), enrolltest.CSR(t, h.Key), names, evidence)
		if err != nil {
			t.Fatal(err)
		}
		gateway, err := trust.Gateway(append([][]byte{i.Certificate}, o.ca.Chain()...), names[0], o.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := tierIn(t, gateway); got != want {
			t.Errorf("tier %q, want %q", got, want)
		}
	}
	leaves := o.leaves(t)
	card := &enrolltest.NewVendor(t).Card(t, enrolltest.CardConfig{}).Evidence
	for name, test := range map[string]struct {
		key      *enrolltest.HSM
		evidence *attest.Evidence
		want     attest.Reason
	}{
		"a key that can leave":        {loose, loose.Evidence(), attest.ReasonExtractable},
		"the evidence of another key": {h, loose.Evidence(), attest.ReasonExtractable},
		"a request for another key":   {loose, h.Evidence(), attest.ReasonKeyMismatch},
		"an unknown HSM":              {h, enrolltest.NewHSM(t, false).Evidence(), attest.ReasonUnknownRoot},
		"a card's evidence":           {h, card, attest.ReasonUnknownRoot},
	} {
		_, err := o.ca.IssueGatewayOn(t.Context(), enrolltest.CSR(t, test.key.Key), names, test.evidence)
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Reason != string(test.want) {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
	if o.leaves(t) != leaves {
		t.Errorf("%d leaves for what was refused", o.leaves(t)-leaves)
	}
}

// tierIn reads a certificate's extension with the appraisal's result.
func tierIn(t *testing.T, cert *x509.Certificate) identity.Tier {
	t.Helper()
	for _, ext := range cert.Extensions {
		if ext.Id.Equal(identity.OIDAppraisal) {
			result, err := identity.ParseAppraisal(ext.Value)
			if err != nil {
				t.Fatal(err)
			}
			return result.Tier
		}
	}
	t.Fatal("no appraisal in the certificate")
	return ""
}
