// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"syscall"
	"testing"

	"valise/client"
	"valise/hsm"
	"valise/hsm/tpm"
	"valise/identity"
	"valise/internal/testenv"
)

// A tpmDevice is a device whose two keys are in a TPM.
type tpmDevice struct {
	*tpm.Token
	sign, seal hsm.Key
}

// Certify implements client.Prover.
func (d *tpmDevice) Certify(ctx context.Context, nonce []byte) (key, second [][]byte, err error) {
	if key, err = d.Token.Certify(ctx, d.sign, nonce); err != nil {
		return nil, nil, err
	}
	second, err = d.Token.Certify(ctx, d.seal, nonce)
	return key, second, err
}

// TestTPMRenews enrolls a device whose keys are in a TPM, at the daemon, through the
// client's own code; renews it, after a restart of the daemon as well; and has the
// renewal fail when the authority ceases to accept TPMs.
func TestTPMRenews(t *testing.T) {
	soft, token := testenv.TPM(t), testenv.SoftHSM(t)
	b := newBureau(t, token, token.PINFile)
	b.write("vendor.pem", string(soft.Roots))
	b.amend("[limits]", "[appraisal]\ntpm = true\n[limits]")
	b.must("init")
	b.must("roster", "import", "people.csv")
	b.start()
	root := b.root()

	device := &tpmDevice{}
	var err error
	if device.Token, err = tpm.Open(t.Context(), tpm.Config{
		Path: soft.Path, PIN: func(context.Context, hsm.PINRequest) (string, error) { return soft.PIN, nil },
	}); err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	for ref, key := range map[string]*hsm.Key{"9a": &device.sign, "9d": &device.seal} {
		if *key, err = device.Generate(t.Context(), ref, hsm.GenerateOptions{Agree: ref == "9d"}); err != nil {
			t.Fatal(err)
		}
	}
	account, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	enroll := func(inv *identity.Invitation) (*client.Enrolled, error) {
		n := client.Enrollment{URL: b.url, Root: sha256.Sum256(root.Raw), Invitation: inv, Account: account, Device: device.sign, Prover: device}
		return n.Do(t.Context())
	}
	inv := b.invite("alice")
	first, err := enroll(&inv)
	if err != nil {
		t.Fatal(err)
	}
	if first.Device.Tier != identity.TierHardware || first.Device.Address.String() != "alice@"+domain {
		t.Errorf("%+v", first.Device)
	}
	if err := b.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.start()
	second, err := enroll(nil)
	if err != nil {
		t.Fatalf("renewal: %v", err)
	}
	if bytes.Equal(first.Chain[0], second.Chain[0]) || second.Device.ID != first.Device.ID {
		t.Error("the renewal brought nothing new, or another device")
	}
	if err := b.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.amend("tpm = true", "tpm = false")
	b.start()
	if _, err := enroll(nil); err == nil {
		t.Error("renewed at an authority that accepts no TPMs any more")
	}
}
