// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

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

// TestTPMEndorsementKeys finds every kind of endorsement key, kept in the TPM or
// made anew from its template, and opens a credential with it.
func TestTPMEndorsementKeys(t *testing.T) {
	soft := testenv.TPM(t)
	endorsements, err := Configured(soft.Roots)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := linuxudstpm.Open(soft.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	forget := func(handle tpm2.TPMHandle) {
		t.Helper()
		rsp, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(conn)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tpm2.EvictControl{
			Auth: tpm2.TPMRHOwner, ObjectHandle: tpm2.NamedHandle{Handle: handle, Name: rsp.Name}, PersistentHandle: handle,
		}.Execute(conn)
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name, kind string
		before     func()
	}{
		{"H-3, kept", "P-384", func() {}},
		{"H-3, made anew", "P-384", func() { forget(0x81010016) }},
		{"L-1, kept", "RSA-2048", func() {
			rsp, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(0x01c00016)}.Execute(conn)
			if err != nil {
				t.Fatal(err)
			}
			_, err = tpm2.NVUndefineSpace{
				AuthHandle: tpm2.TPMRHPlatform, NVIndex: tpm2.NamedHandle{Handle: 0x01c00016, Name: rsp.NVName},
			}.Execute(conn)
			if err != nil {
				t.Fatal(err)
			}
		}},
		{"L-1, made anew", "RSA-2048", func() { forget(0x81010001) }},
	} {
		step.before()
		token := openTPM(t, soft)
		chain, ak, err := token.Endorsement(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		ek, err := VerifyEK(chain, endorsements, time.Now())
		if err != nil || algorithmOf(ek.PublicKey) != step.kind {
			t.Fatalf("%s: %s, %v", step.name, algorithmOf(ek.PublicKey), err)
		}
		name, err := AKName(ak)
		if err != nil {
			t.Fatal(err)
		}
		blob, secret, err := NewCredential(ek, name, []byte("what is sent"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := token.Activate(t.Context(), blob, secret); err != nil || string(got) != "what is sent" {
			t.Errorf("%s: %q, %v", step.name, got, err)
		}
		if _, err := token.Activate(t.Context(), flip(blob), secret); err == nil {
			t.Errorf("%s: an altered credential was opened", step.name)
		}
		token.Close()
	}
	rsp, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(0x01c00002)}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.NVUndefineSpace{AuthHandle: tpm2.TPMRHPlatform, NVIndex: tpm2.NamedHandle{Handle: 0x01c00002, Name: rsp.NVName}}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := openTPM(t, soft).Endorsement(t.Context()); !errors.Is(err, hsm.ErrNoEvidence) {
		t.Errorf("without a certificate: %v", err)
	}
}
