// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// hexBytes stand in vectors as hexadecimal digits.
type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// TestEvidenceVectors reads spec/vectors/evidence.json (spec/enrollment.md, Sections
// 5.2 and 5.3), which another implementation could use: objects as they are sent, and
// what comes of them.
func TestEvidenceVectors(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "spec", "vectors", "evidence.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Activation struct {
			Key              hexBytes `json:"key"`
			KeyAuthorization string   `json:"key_authorization"`
			EK               hexBytes `json:"ek_certificate"`
			AK               hexBytes `json:"ak"`
			AKName           hexBytes `json:"ak_name"`
			Secret           hexBytes `json:"secret"`
		}
		Objects []struct {
			Name   string
			At     time.Time
			Roots  string   // PEM
			Object hexBytes // CBOR
			SPKI   hexBytes // of the key that a certificate is asked for
			Reason Reason   // empty: accepted
			Tier   string
		}
	}
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	a := vectors.Activation
	ek, err := ParseEK(a.EK)
	if err != nil {
		t.Fatal(err)
	}
	if name, err := AKName(a.AK); err != nil || hex.EncodeToString(name) != hex.EncodeToString(a.AKName) {
		t.Errorf("name %x, %v", name, err)
	}
	if got := ActivationSecret(a.Key, []byte(a.KeyAuthorization), ek, a.AKName); hex.EncodeToString(got) != hex.EncodeToString(a.Secret) {
		t.Errorf("secret %x", got)
	}
	if len(vectors.Objects) < 4 {
		t.Fatalf("%d objects", len(vectors.Objects))
	}
	policy := &AppraisalPolicy{TPM: true, Witnessed: true}
	for _, v := range vectors.Objects {
		endorsements := new(Endorsements)
		if v.Roots != "" {
			if endorsements, err = Configured([]byte(v.Roots)); err != nil {
				t.Fatal(err)
			}
		}
		key, err := x509.ParsePKIXPublicKey(v.SPKI)
		if err != nil {
			t.Fatal(err)
		}
		if reason, tier := judge(v.Object, endorsements, policy, a.Key, []byte(a.KeyAuthorization), key.(*ecdsa.PublicKey), v.At); reason != v.Reason || tier != v.Tier {
			t.Errorf("%s: reason %q and tier %q, want %q and %q", v.Name, reason, tier, v.Reason, v.Tier)
		}
	}
}

// judge is what an authority does with an object.
func judge(object []byte, e *Endorsements, p *AppraisalPolicy, activationKey, keyAuthorization []byte, key *ecdsa.PublicKey, at time.Time) (Reason, string) {
	o, err := ParseAttestationObject(object)
	if err != nil {
		return ReasonOf(err), ""
	}
	challenge := o.Challenge(keyAuthorization)
	challenge.ActivationKey = activationKey
	claims, err := Verify(o.Evidence(), challenge, e, at)
	if err != nil {
		return ReasonOf(err), ""
	}
	r := p.Appraise(claims, Input{PublicKey: key, Now: at})
	return r.Reason(), r.Tier
}
