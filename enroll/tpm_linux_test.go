// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"context"
	"crypto"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"valise/attest"
	"valise/enroll/enrolltest"
	"valise/hsm"
	"valise/hsm/tpm"
	"valise/identity"
	"valise/internal/testenv"
)

// An applicant enrolls keys of a TPM by hand, so that a test can get any single
// step wrong.
type applicant struct {
	*enrolltest.Client
	t             testing.TB
	token, certTo *tpm.Token // whose endorsement is shown; whose AK certifies
	key, second   hsm.Key
	order         *enrolltest.Order
	chain         [][]byte
	ak            []byte
	nonce         []byte // nil: the honest one
	activation    []byte // nil: what the TPM gives out
	signer        crypto.Signer
}

func openTPM(t testing.TB, soft *testenv.SoftTPM) *tpm.Token {
	t.Helper()
	token, err := tpm.Open(t.Context(), tpm.Config{
		Path: soft.Path, PIN: func(context.Context, hsm.PINRequest) (string, error) { return soft.PIN, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = token.Close() })
	return token
}

// tpmKey returns the key in a place, or makes it.
func tpmKey(t testing.TB, token *tpm.Token, ref string, agree bool) hsm.Key {
	t.Helper()
	key, err := token.Key(t.Context(), ref)
	if err != nil {
		key, err = token.Generate(t.Context(), ref, hsm.GenerateOptions{Agree: agree})
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (s *site) applicant(t testing.TB, token *tpm.Token) *applicant {
	t.Helper()
	a := &applicant{Client: s.registered("alice"), t: t, token: token, certTo: token}
	a.key, a.second = tpmKey(t, token, "9a", false), tpmKey(t, token, "9d", true)
	return a
}

// begin makes an order for a key, and takes the certificates of the TPM.
func (a *applicant) begin(key hsm.Key) {
	a.t.Helper()
	id, err := identity.DeviceIDOf(key.Public())
	if err != nil {
		a.t.Fatal(err)
	}
	var r *enrolltest.Response
	if a.order, r = a.NewOrder(id.String()); a.order == nil {
		a.t.Fatalf("order: %d %s", r.Status, r.Body)
	}
	if a.chain, _, err = a.token.Endorsement(a.t.Context()); err != nil {
		a.t.Fatal(err)
	}
	if _, a.ak, err = a.certTo.Endorsement(a.t.Context()); err != nil {
		a.t.Fatal(err)
	}
	a.signer = key
}

// credential asks the authority for what the TPM must open.
func (a *applicant) credential() (blob, secret []byte, r *enrolltest.Response) {
	a.t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	var x5c []string
	for _, der := range a.chain {
		x5c = append(x5c, encode(der))
	}
	r = a.Post(a.Base+"/acme/tpm", map[string]any{"authorization": a.order.Authorizations[0], "x5c": x5c, "ak": encode(a.ak)})
	if r.Status != http.StatusOK {
		return nil, nil, r
	}
	var got struct{ Credential, Secret string }
	r.Into(a.t, &got)
	var err error
	if blob, err = base64.RawURLEncoding.DecodeString(got.Credential); err != nil {
		a.t.Fatal(err)
	}
	if secret, err = base64.RawURLEncoding.DecodeString(got.Secret); err != nil {
		a.t.Fatal(err)
	}
	return blob, secret, r
}

// answer shows the evidence, and returns the challenge as it stands afterwards.
func (a *applicant) answer() *enrolltest.Challenge {
	a.t.Helper()
	ka := []byte(a.KeyAuthorization(a.order))
	if a.activation == nil {
		blob, secret, r := a.credential()
		if blob == nil {
			a.t.Fatalf("credential: %d %s", r.Status, r.Body)
		}
		var err error
		if a.activation, err = a.token.Activate(a.t.Context(), blob, secret); err != nil {
			a.t.Fatal(err)
		}
	}
	if a.nonce == nil {
		a.nonce = attest.CertificationNonce(ka)
	}
	certify := func(key hsm.Key) [][]byte {
		parts, err := a.certTo.Certify(a.t.Context(), key, a.nonce)
		if err != nil {
			a.t.Fatal(err)
		}
		return parts
	}
	reply, err := attest.Answer(a.signer, ka)
	if err != nil {
		a.t.Fatal(err)
	}
	reply.Activation = a.activation
	ev := attest.Evidence{
		Format: attest.FormatTPM, Chain: append(append(certify(a.key), a.ak), a.chain...), KeyManagement: certify(a.second),
	}
	object, err := attest.MarshalAttestationObject(attest.NewAttestationObject(ev, reply))
	if err != nil {
		a.t.Fatal(err)
	}
	challenge, r := a.Attest(a.order, object)
	if challenge == nil {
		a.t.Fatalf("attest: %d %s", r.Status, r.Body)
	}
	return challenge
}

// tpmSite is an authority that accepts keys in TPMs of this maker.
func tpmSite(t testing.TB, soft *testenv.SoftTPM) *site {
	t.Helper()
	endorsed, err := attest.Configured(soft.Roots)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, options{endorsed: endorsed})
	s.policy.TPM = true
	return s
}

// TestEnrollTPM enrolls the keys of a TPM at the authority's front: credential,
// activation, certification, certificate.
func TestEnrollTPM(t *testing.T) {
	soft := testenv.TPM(t)
	s := tpmSite(t, soft)
	a := s.applicant(t, openTPM(t, soft))
	a.begin(a.key)
	if challenge := a.answer(); challenge.Status != "valid" {
		t.Fatalf("%+v", challenge)
	}
	done, r := a.Finish(a.order, enrolltest.CSR(t, a.key))
	if done == nil || done.Status != "valid" {
		t.Fatalf("finalize: %d %s", r.Status, r.Body)
	}
	device := s.check(a.Fetch(done), "alice")
	if device.Tier != identity.TierHardware {
		t.Errorf("tier %q", device.Tier)
	}

	// A renewal is a new challenge: what was shown before does not answer it.
	again := &applicant{Client: a.Client, t: t, token: a.token, certTo: a.token, key: a.key, second: a.second, activation: a.activation, nonce: a.nonce}
	again.begin(a.key)
	if challenge := again.answer(); challenge.Status != "invalid" || challenge.Error.Reason != "challenge_mismatch" && challenge.Error.Reason != "activation" {
		t.Errorf("evidence shown again: %+v", challenge)
	}
}

// TestEnrollTPMRefuses gets one step wrong at a time, with real TPMs; TestEnrollTPM
// is the control.
func TestEnrollTPMRefuses(t *testing.T) {
	soft := testenv.TPM(t)
	s := tpmSite(t, soft)
	token := openTPM(t, soft)
	loose(t, soft, 0x81000200)
	sibling := openTPM(t, soft.Another(t))
	for name, test := range map[string]struct {
		change func(*applicant)
		want   string
	}{
		"nothing": {func(*applicant) {}, ""},
		"wrong secret": {func(a *applicant) {
			a.begin(a.key)
			a.activation = make([]byte, 32)
		}, "activation"},
		"AK of another TPM": {func(a *applicant) {
			a.certTo = sibling
			a.key, a.second = tpmKey(t, sibling, "9a", false), tpmKey(t, sibling, "9d", true)
			a.begin(a.key)
			blob, secret, r := a.credential()
			if blob == nil {
				t.Fatalf("credential: %d %s", r.Status, r.Body)
			}
			if _, err := a.token.Activate(t.Context(), blob, secret); err == nil {
				t.Error("a TPM activated a credential for another one's key")
			}
			if _, err := sibling.Activate(t.Context(), blob, secret); err == nil {
				t.Error("a TPM activated a credential under another one's certificate")
			}
			a.activation = secret[:32] // nothing better is to be had
		}, "activation"},
		"certified over another nonce": {func(a *applicant) {
			a.begin(a.key)
			a.nonce = attest.CertificationNonce([]byte(a.order.Token + ".somebody"))
		}, "challenge_mismatch"},
		"key that can be duplicated": {func(a *applicant) {
			a.key = tpmKey(t, token, "81000200", false)
			a.begin(a.key)
		}, "extractable"},
		"order for another key": {func(a *applicant) {
			a.begin(tpmKey(t, token, "82", false))
			a.signer = a.key
		}, "key_mismatch"},
		"challenge signed by another key": {func(a *applicant) {
			a.begin(a.key)
			a.signer = tpmKey(t, token, "82", false)
		}, "challenge_mismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.applicant(t, token)
			a.t = t
			test.change(a)
			if a.order == nil {
				a.begin(a.key)
			}
			challenge := a.answer()
			switch {
			case test.want == "" && challenge.Status != "valid":
				t.Errorf("control: %+v", challenge.Error)
			case test.want != "" && (challenge.Error == nil || challenge.Error.Reason != test.want):
				t.Errorf("%s, want %s: %+v", challenge.Status, test.want, challenge.Error)
			}
		})
	}
}

// A TPM of an unknown maker gets no credential, and its evidence no certificate.
func TestEnrollTPMUnknownMaker(t *testing.T) {
	s := tpmSite(t, testenv.TPM(t))
	a := s.applicant(t, openTPM(t, testenv.TPM(t)))
	a.begin(a.key)
	if blob, _, r := a.credential(); blob != nil || r.Reason != "unknown_root" {
		t.Errorf("credential: %d %s", r.Status, r.Body)
	}
	a.activation = make([]byte, 32)
	if challenge := a.answer(); challenge.Error == nil || challenge.Error.Reason != "unknown_root" {
		t.Errorf("%+v", challenge)
	}
}

// The credential is for one's own open challenge, and for TPMs where they are wanted.
func TestCredentialRefuses(t *testing.T) {
	soft := testenv.TPM(t)
	s := tpmSite(t, soft)
	a := s.applicant(t, openTPM(t, soft))
	a.begin(a.key)
	if blob, _, r := a.credential(); blob == nil {
		t.Fatalf("control: %d %s", r.Status, r.Body)
	}
	refused := func(what, want string) {
		t.Helper()
		if blob, _, r := a.credential(); blob != nil || r.Reason != want {
			t.Errorf("%s: %d %s", what, r.Status, r.Body)
		}
	}
	honest := a.ak
	a.ak = append([]byte{}, a.ak...)
	a.ak[5] ^= 1 // its attributes: one that signs for anybody
	refused("a key that is not restricted", "malformed_evidence")
	a.ak = honest

	s.policy.TPM = false
	refused("an authority that wants no TPMs", "format")
	s.policy.TPM = true

	mine := a.order
	stranger := s.registered("bob")
	theirs, _ := stranger.NewOrder(strings.Repeat("ab", 32))
	a.order = theirs
	refused("somebody else's authorization", "not_found")
	a.order = mine
	if challenge := a.answer(); challenge.Status != "valid" {
		t.Fatalf("%+v", challenge)
	}
	refused("a challenge that is answered", "challenge_reused")
}

// loose puts a key into a TPM that can be duplicated: all of it is as it should be,
// but that it may leave.
func loose(t testing.TB, soft *testenv.SoftTPM, at tpm2.TPMHandle) {
	t.Helper()
	conn, err := linuxudstpm.Open(soft.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	made, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner,
		InSensitive:   tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte(soft.PIN)}}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true},
			Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
		}),
	}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(conn)
	_, err = tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}, PersistentHandle: at,
	}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
}
