// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"context"
	"testing"
	"time"

	"valise/hsm"
	"valise/hsm/tpm"
	"valise/internal/testenv"
)

// A testTPM is a TPM that a test has open.
type testTPM struct {
	*tpm.Token
	t testing.TB
}

func openTPM(t testing.TB, soft *testenv.SoftTPM) *testTPM {
	t.Helper()
	token, err := tpm.Open(t.Context(), tpm.Config{
		Path: soft.Path, PIN: func(context.Context, hsm.PINRequest) (string, error) { return soft.PIN, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { token.Close() })
	return &testTPM{token, t}
}

func (x *testTPM) generate(ref string, agree bool) hsm.Key {
	x.t.Helper()
	key, err := x.Generate(x.t.Context(), ref, hsm.GenerateOptions{Agree: agree})
	if err != nil {
		x.t.Fatal(err)
	}
	return key
}

func (x *testTPM) certify(key hsm.Key, keyAuthorization []byte) [][]byte {
	x.t.Helper()
	parts, err := x.Certify(x.t.Context(), key, CertificationNonce(keyAuthorization))
	if err != nil {
		x.t.Fatal(err)
	}
	return parts
}

// TestTPMReal has a TPM in software do what a real one does, from endorsement to
// certification, and its word verified.
func TestTPMReal(t *testing.T) {
	soft := testenv.TPM(t)
	endorsements, err := Configured(soft.Roots)
	if err != nil {
		t.Fatal(err)
	}
	token := openTPM(t, soft)
	ka := []byte("token.thumbprint")
	secretKey := []byte("the verifier's own")
	key, second := token.generate("9a", false), token.generate("9d", true)

	chain, ak, err := token.Endorsement(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ek, err := ParseEK(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	name, err := AKName(ak)
	if err != nil {
		t.Fatal(err)
	}
	want := ActivationSecret(secretKey, ka, ek, name)
	blob, encrypted, err := NewCredential(ek, name, want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := token.Activate(t.Context(), blob, encrypted)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("another secret, %v", err)
	}
	ev := Evidence{Format: FormatTPM, Chain: append(append(token.certify(key, ka), ak), chain...), KeyManagement: token.certify(second, ka)}
	reply := answer(t, key, ka)
	reply.Activation, reply.ActivationKey = got, secretKey
	claims, err := Verify(ev, reply, endorsements, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	policy := &AppraisalPolicy{TPM: true}
	r := policy.Appraise(claims, Input{PublicKey: key.Public(), Now: time.Now()})
	if !r.Accepted() || r.Tier != TierHardware || claims.SerialOf() == "" {
		t.Fatalf("%s %+v", r.Verdict, r.Reasons)
	}

	// Another TPM of the same maker cannot open what this one was sent, and its
	// certification under this one's certificate is worth nothing.
	other := openTPM(t, soft.Another(t))
	if _, err := other.Activate(t.Context(), blob, encrypted); err == nil {
		t.Error("another TPM activated this one's credential")
	}
	foreign := other.generate("9a", false)
	_, otherAK, err := other.Endorsement(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mixed := Evidence{Format: FormatTPM, Chain: append(append(other.certify(foreign, ka), otherAK), chain...)}
	reply = answer(t, foreign, ka)
	reply.Activation, reply.ActivationKey = got, secretKey
	claims, err = Verify(mixed, reply, endorsements, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	policy.KeyManagement = KeyManagementOptional
	if r := policy.Appraise(claims, Input{PublicKey: foreign.Public(), Now: time.Now()}); r.Reason() != ReasonActivation {
		t.Errorf("another TPM's AK: %s %s", r.Verdict, r.Reason())
	}
}
