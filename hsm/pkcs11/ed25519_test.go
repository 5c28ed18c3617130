// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"errors"
	"sync"
	"testing"

	"valise/hsm"
	"valise/internal/testenv"
)

var text = []byte("interieur.example/valise\n17\n")

// signsWhole has an Ed25519 key sign a message, as RFC 8032 wants it: unhashed.
func signsWhole(t testing.TB, key hsm.Key) {
	t.Helper()
	sig, err := key.Sign(nil, text, crypto.Hash(0))
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(key.Public().(ed25519.PublicKey), text, sig) {
		t.Fatal("the signature does not verify")
	}
}

// An Ed25519 key goes through the same restart of the device as all others.
func TestEd25519SurvivesARestart(t *testing.T) {
	server := testenv.SoftHSMServer(t)
	token := openConfig(t, Config{Module: server.Module, Label: server.Label, PIN: (&pinPad{pin: server.PIN}).enter})
	key, other := generate(t, token, "ledger", hsm.Ed25519), generate(t, token, "issuing", hsm.P384)
	signsWhole(t, key)
	server.Kill(t)
	if _, err := key.Sign(nil, text, crypto.Hash(0)); !errors.Is(err, hsm.ErrDevice) || hsm.Hint(err) == "" {
		t.Fatalf("sign without a device: %v", err)
	}
	server.Start(t)
	until(t, "recovery", func() bool { return token.Health().OK })
	signsWhole(t, key)
	signs(t, other)
	signsWhole(t, mustKey(t, token, "ledger"))
}

// Nor is a key that took its place used in its stead.
func TestReplacedEd25519KeyIsRefused(t *testing.T) {
	softHSM(t, "ca")
	token := openSoft(t, "ca")
	generate(t, token, "ledger", hsm.Ed25519)
	old := mustKey(t, token, "ledger")
	signsWhole(t, old)
	destroy(t, token, "ledger")
	generate(t, token, "ledger", hsm.Ed25519)
	if err := token.module.ctx.CloseAllSessions(token.slot); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Sign(nil, text, crypto.Hash(0)); !errors.Is(err, hsm.ErrNoKey) {
		t.Errorf("sign: %v", err)
	}
	signsWhole(t, mustKey(t, token, "ledger")) // control
}

// Keys of both kinds work side by side in a pool smaller than the number of signers.
func TestEd25519SharesThePool(t *testing.T) {
	softHSM(t, "ca")
	token := openConfig(t, Config{Module: library(t), Label: "ca", PIN: rightPIN, Sessions: 2})
	whole, digests := generate(t, token, "ledger", hsm.Ed25519), generate(t, token, "issuing", hsm.P256)
	var group sync.WaitGroup
	for n := range 8 {
		group.Go(func() {
			for range 10 {
				if n%2 == 0 {
					if sig, err := whole.Sign(nil, text, crypto.Hash(0)); err != nil || !ed25519.Verify(whole.Public().(ed25519.PublicKey), text, sig) {
						t.Errorf("Ed25519: %v", err)
					}
				} else if sig, err := sign(digests); err != nil || !ecdsa.VerifyASN1(digests.Public().(*ecdsa.PublicKey), digest[:], sig) {
					t.Errorf("P-256: %v", err)
				}
			}
		})
	}
	group.Wait()
}

// What it signs may have any length; the modes of RFC 8032 that hash first, and
// digests, are refused.
func TestEd25519SignsMessagesOnly(t *testing.T) {
	softHSM(t, "ca")
	token := openSoft(t, "ca")
	key := generate(t, token, "ledger", hsm.Ed25519)
	for _, message := range [][]byte{{0}, make([]byte, 100_000)} {
		sig, err := key.Sign(nil, message, crypto.Hash(0))
		if err != nil || !ed25519.Verify(key.Public().(ed25519.PublicKey), message, sig) {
			t.Errorf("%d bytes: %v", len(message), err)
		}
	}
	for name, o := range map[string]crypto.SignerOpts{
		"SHA-256": crypto.SHA256, "Ed25519ph": crypto.SHA512, "Ed25519ctx": &ed25519.Options{Context: "x"},
	} {
		if _, err := key.Sign(nil, make([]byte, 64), o); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
	if _, err := key.Evidence(context.Background()); !errors.Is(err, hsm.ErrNoEvidence) {
		t.Errorf("evidence: %v", err)
	}
	if _, err := token.Generate(context.Background(), "ledger", hsm.GenerateOptions{Algorithm: hsm.Ed25519}); !errors.Is(err, hsm.ErrOccupied) {
		t.Errorf("generate over it: %v", err)
	}
	if _, err := token.Generate(context.Background(), "agrees", hsm.GenerateOptions{Algorithm: hsm.Ed25519, Agree: true}); !errors.Is(err, hsm.ErrAlgorithm) {
		t.Errorf("an Ed25519 key that is to agree on secrets: %v", err)
	}
}
