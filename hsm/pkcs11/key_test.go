// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"sync"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"valise/hsm"
)

func generate(t testing.TB, token *Token, label string, a hsm.Algorithm) hsm.Key {
	t.Helper()
	key, err := token.Generate(context.Background(), label, hsm.GenerateOptions{Algorithm: a})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func mustKey(t testing.TB, token *Token, label string) hsm.Key {
	t.Helper()
	key, err := token.Key(context.Background(), label)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var digest = sha256.Sum256([]byte("diplomatic bag"))

func sign(key crypto.Signer) ([]byte, error) { return key.Sign(rand.Reader, digest[:], crypto.SHA256) }

func signs(t testing.TB, key hsm.Key) {
	t.Helper()
	sig, err := sign(key)
	if err != nil {
		t.Fatal(err)
	}
	if !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest[:], sig) {
		t.Fatal("the signature does not verify")
	}
}

func TestGenerateFindSign(t *testing.T) {
	softHSM(t, "ca")
	for _, a := range []hsm.Algorithm{hsm.P256, hsm.P384} {
		t.Run(a.String(), func(t *testing.T) {
			token := openSoft(t, "ca")
			made := generate(t, token, a.String(), a)
			if got, _ := hsm.AlgorithmOf(made.Public()); got != a {
				t.Errorf("algorithm = %v", got)
			}
			token.Close()

			found := mustKey(t, openSoft(t, "ca"), a.String())
			if !found.Public().(*ecdsa.PublicKey).Equal(made.Public()) {
				t.Fatal("another key was found")
			}
			for range 32 { // r and s with leading zeros and high bits come up
				signs(t, found)
			}
			long := sha512.Sum512([]byte("longer than either order"))
			sig, err := found.Sign(nil, long[:], crypto.SHA512)
			if err != nil || !ecdsa.VerifyASN1(found.Public().(*ecdsa.PublicKey), long[:], sig) {
				t.Errorf("SHA-512: %v", err)
			}
			if _, err := found.Sign(nil, long[:20], crypto.SHA512); err == nil {
				t.Error("a cut digest was signed")
			}
			if _, err := found.Evidence(context.Background()); !errors.Is(err, hsm.ErrNoEvidence) {
				t.Errorf("evidence: %v", err)
			}
		})
	}
}

func TestEd25519(t *testing.T) {
	softHSM(t, "ca")
	token := openSoft(t, "ca")
	key := generate(t, token, "ledger", hsm.Ed25519)
	message := []byte("signed whole")
	sig, err := key.Sign(nil, message, crypto.Hash(0))
	if err != nil || !ed25519.Verify(key.Public().(ed25519.PublicKey), message, sig) {
		t.Fatalf("sign: %v", err)
	}
	if _, err := sign(key); err == nil {
		t.Error("a digest was signed")
	}
	found := mustKey(t, token, "ledger")
	if !found.Public().(ed25519.PublicKey).Equal(key.Public()) {
		t.Error("another key was found")
	}
}

func TestNoSuchKey(t *testing.T) {
	softHSM(t, "ca")
	token := openSoft(t, "ca")
	generate(t, token, "k", hsm.P256)
	for label, want := range map[string]error{"k": nil, "K": hsm.ErrNoKey, "": hsm.ErrEmptyLabel} {
		_, err := token.Key(context.Background(), label)
		if !errors.Is(err, want) || (err != nil && hsm.Hint(err) == "") {
			t.Errorf("label %q: %v", label, err)
		}
	}
}

func TestGenerateRefusesOccupiedLabel(t *testing.T) {
	softHSM(t, "ca")
	token := openSoft(t, "ca")
	first := generate(t, token, "k", hsm.P256)
	for _, o := range []hsm.GenerateOptions{
		{Algorithm: hsm.P384}, {Algorithm: hsm.P256, Overwrite: "k"},
	} {
		if _, err := token.Generate(context.Background(), "k", o); !errors.Is(err, hsm.ErrOccupied) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if !mustKey(t, token, "k").Public().(*ecdsa.PublicKey).Equal(first.Public()) {
		t.Error("the key changed")
	}
	generate(t, token, "k2", hsm.P384) // control
	if _, err := token.Generate(context.Background(), "", hsm.GenerateOptions{}); !errors.Is(err, hsm.ErrEmptyLabel) {
		t.Errorf("empty label: %v", err)
	}
}

// Labels that others made ambiguous are refused; an id decides.
func TestTwoKeysWithOneLabel(t *testing.T) {
	softHSM(t, "ca")
	token := openSoft(t, "ca")
	params, mechanism, err := marshalParams(hsm.P256)
	if err != nil {
		t.Fatal(err)
	}
	for id := range 2 {
		err := token.useWritable(context.Background(), func(s p11.SessionHandle) error {
			o := hsm.GenerateOptions{}
			_, _, err := token.module.ctx.GenerateKeyPair(s, []*p11.Mechanism{p11.NewMechanism(mechanism, nil)},
				publicTemplate("k", []byte{byte(id)}, params, o), privateTemplate("k", []byte{byte(id)}, o))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := token.Key(context.Background(), "k"); !errors.Is(err, hsm.ErrManyKeys) {
		t.Errorf("by label: %v", err)
	}
	key, err := token.Find(context.Background(), "k", []byte{1})
	if err != nil {
		t.Fatal(err)
	}
	signs(t, key)
}

func TestECDH(t *testing.T) {
	softHSM(t, "ca")
	token := openSoft(t, "ca")
	for _, c := range []struct {
		a            hsm.Algorithm
		curve, other ecdh.Curve
	}{{hsm.P256, ecdh.P256(), ecdh.P384()}, {hsm.P384, ecdh.P384(), ecdh.P256()}} {
		key, err := token.Generate(context.Background(), c.a.String(), hsm.GenerateOptions{Algorithm: c.a, Agree: true})
		if err != nil {
			t.Fatal(err)
		}
		ours, ok := key.(ecdh.KeyExchanger)
		if !ok {
			t.Fatalf("%v: the key cannot agree", c.a)
		}
		for range 8 {
			peer, err := c.curve.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ours.ECDH(peer.PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			want, err := peer.ECDH(ours.PublicKey())
			if err != nil || string(got) != string(want) {
				t.Fatalf("%v: secrets differ (%v)", c.a, err)
			}
		}
		stranger, _ := c.other.GenerateKey(rand.Reader)
		if _, err := ours.ECDH(stranger.PublicKey()); !errors.Is(err, hsm.ErrPoint) {
			t.Errorf("%v with another curve: %v", c.a, err)
		}
		signs(t, key)
	}
	if _, ok := generate(t, token, "signs only", hsm.P256).(ecdh.KeyExchanger); ok {
		t.Error("a key that was made for signing agrees")
	}
}

// Sixteen signers share two sessions (and the anchor).
func TestPoolIsBounded(t *testing.T) {
	softHSM(t, "ca")
	token := openConfig(t, Config{Module: library(t), Label: "ca", PIN: rightPIN, Sessions: 2})
	key := generate(t, token, "k", hsm.P256)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for range 20 {
				if _, err := sign(key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	token.pool.Lock()
	defer token.pool.Unlock()
	if n := len(token.idle); n < 1 || n > 2 {
		t.Errorf("%d sessions are open", n)
	}
}
