// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tpm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"path/filepath"
	"testing"

	"valise/hsm"
	"valise/hsm/tpm"
	"valise/internal/testenv"
)

func pin(p string) hsm.PINFunc {
	return func(context.Context, hsm.PINRequest) (string, error) { return p, nil }
}

func open(t testing.TB, s *testenv.SoftTPM, ask hsm.PINFunc) *tpm.Token {
	t.Helper()
	token, err := tpm.Open(t.Context(), tpm.Config{Path: s.Path, PIN: ask})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { token.Close() })
	return token
}

// A key signs what Go verifies, is there again when the TPM is opened anew, and is
// not overwritten unless it is named for that.
func TestSign(t *testing.T) {
	soft := testenv.TPM(t)
	token := open(t, soft, pin(soft.PIN))
	if info := token.Info(); info.Kind != "tpm" || info.Model == "" || info.Firmware == "" {
		t.Errorf("info %+v", info)
	}
	for ref, o := range map[string]hsm.GenerateOptions{"9a": {Algorithm: hsm.P384}, "81000100": {Algorithm: hsm.P256}} {
		if _, err := token.Key(t.Context(), ref); !errors.Is(err, hsm.ErrNoKey) {
			t.Errorf("%s before: %v", ref, err)
		}
		made, err := token.Generate(t.Context(), ref, o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := token.Generate(t.Context(), ref, o); !errors.Is(err, hsm.ErrOccupied) {
			t.Errorf("%s again: %v", ref, err)
		}
		again, err := open(t, soft, pin(soft.PIN)).Key(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		pub := made.Public().(*ecdsa.PublicKey)
		if !pub.Equal(again.Public()) || pub.Curve != o.Algorithm.Curve() {
			t.Errorf("%s: another key", ref)
		}
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			h := hash.New()
			h.Write([]byte("message"))
			digest := h.Sum(nil)
			signature, err := again.Sign(rand.Reader, digest, hash)
			if err != nil {
				t.Fatalf("%s, %v: %v", ref, hash, err)
			}
			if !ecdsa.VerifyASN1(pub, digest, signature) {
				t.Errorf("%s, %v: wrong signature", ref, hash)
			}
		}
		if _, err := again.Sign(rand.Reader, make([]byte, 31), crypto.SHA256); err == nil {
			t.Error("a digest of 31 bytes was signed")
		}
		if _, ok := again.(ecdh.KeyExchanger); ok {
			t.Error("a key for signatures agrees on secrets")
		}
		o.Overwrite = ref
		other, err := token.Generate(t.Context(), ref, o)
		if err != nil || pub.Equal(other.Public()) {
			t.Errorf("%s overwritten: %v", ref, err)
		}
	}
}

// A key for the vault agrees with Go's.
func TestAgree(t *testing.T) {
	soft := testenv.TPM(t)
	token := open(t, soft, pin(soft.PIN))
	for ref, alg := range map[string]hsm.Algorithm{"9d": hsm.P384, "82": hsm.P256} {
		made, err := token.Generate(t.Context(), ref, hsm.GenerateOptions{Algorithm: alg, Agree: true})
		if err != nil {
			t.Fatal(err)
		}
		kx, ok := made.(ecdh.KeyExchanger)
		if !ok {
			t.Fatal("it does not agree on secrets")
		}
		for range 5 {
			peer, err := kx.Curve().GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			got, err := kx.ECDH(peer.PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			want, err := peer.ECDH(kx.PublicKey())
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: other secrets, %v", ref, err)
			}
		}
		stranger, err := ecdh.P521().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kx.ECDH(stranger.PublicKey()); !errors.Is(err, hsm.ErrPoint) {
			t.Errorf("a point on another curve: %v", err)
		}
		sum := sha512.Sum384([]byte("message"))
		if _, err := made.Sign(rand.Reader, sum[:], crypto.SHA384); err != nil {
			t.Errorf("%s does not sign: %v", ref, err)
		}
	}
}

// A wrong PIN is said to be one, is not tried again by itself, and locks the TPM in
// the end. The right one is asked for once, until Logout.
func TestPIN(t *testing.T) {
	soft := testenv.TPM(t)
	asked := 0
	token := open(t, soft, func(context.Context, hsm.PINRequest) (string, error) { asked++; return soft.PIN, nil })
	key, err := token.Generate(t.Context(), "9a", hsm.GenerateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("message"))
	sign := func(k hsm.Key) error { _, err := k.Sign(rand.Reader, sum[:], crypto.SHA256); return err }
	for range 3 {
		if err := sign(key); err != nil {
			t.Fatal(err)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	if err := token.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := sign(key); err != nil || asked != 2 {
		t.Errorf("after logout: %v, asked %d times", err, asked)
	}
	for name, test := range map[string]struct {
		ask  hsm.PINFunc
		want error
	}{
		"nobody to ask": {nil, hsm.ErrNoPIN},
		"too short":     {pin("123"), hsm.ErrPINFormat},
		"too long":      {pin("123456789012345678901234567890123"), hsm.ErrPINFormat},
	} {
		k, err := open(t, soft, test.ask).Key(t.Context(), "9a")
		if err != nil {
			t.Fatal(err)
		}
		if err := sign(k); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wrong, err := open(t, soft, pin("999999")).Key(t.Context(), "9a")
	if err != nil {
		t.Fatal(err)
	}
	var refused *hsm.PINError
	if err := sign(wrong); !errors.As(err, &refused) {
		t.Fatalf("wrong PIN: %v", err)
	}
	if err := sign(key); err != nil {
		t.Fatalf("the right one after a wrong one: %v", err)
	}
	for range 10 {
		if err = sign(wrong); !errors.As(err, &refused) {
			break
		}
	}
	if !errors.Is(err, tpm.ErrLockout) || !errors.Is(err, hsm.ErrLocked) || hsm.Hint(err) == hsm.Hint(hsm.ErrLocked) {
		t.Errorf("after ten wrong ones: %v (%s)", err, hsm.Hint(err))
	}
	if err := sign(key); !errors.Is(err, tpm.ErrLockout) {
		t.Errorf("the right one in a locked TPM: %v", err)
	}
}

func TestRefuses(t *testing.T) {
	soft := testenv.TPM(t)
	if _, err := tpm.Open(t.Context(), tpm.Config{Path: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, hsm.ErrNoService) || hsm.Hint(err) == "" {
		t.Errorf("no TPM: %v", err)
	}
	if _, err := tpm.Open(t.Context(), tpm.Config{Path: soft.PINFile}); !errors.Is(err, hsm.ErrNoService) {
		t.Errorf("a file: %v", err)
	}
	token := open(t, soft, pin(soft.PIN))
	for _, ref := range []string{"", "9", "9A", "zz", "8100010", "01c00002", "81800000", "80ffffff"} {
		if _, err := token.Key(t.Context(), ref); !errors.Is(err, hsm.ErrSlot) {
			t.Errorf("%q: %v", ref, err)
		}
	}
	if _, err := token.Generate(t.Context(), "9a", hsm.GenerateOptions{Algorithm: hsm.Ed25519}); !errors.Is(err, hsm.ErrAlgorithm) {
		t.Errorf("Ed25519: %v", err)
	}
	if _, err := token.Generate(t.Context(), "9a", hsm.GenerateOptions{Touch: true}); err == nil {
		t.Error("a TPM that wants to be touched")
	}
	if _, err := token.Generate(t.Context(), "9a", hsm.GenerateOptions{ManagementKey: []byte("wrong")}); !errors.Is(err, hsm.ErrManagementKey) {
		t.Errorf("a wrong owner's password: %v", err)
	}
	// An endorsement key is no key of ours: RSA it is, and then it does not sign.
	if _, err := token.Key(t.Context(), "81010001"); !errors.Is(err, hsm.ErrAlgorithm) {
		t.Errorf("the endorsement key: %v", err)
	}
	key, err := token.Generate(t.Context(), "9a", hsm.GenerateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.Evidence(t.Context()); !errors.Is(err, hsm.ErrNoEvidence) {
		t.Errorf("evidence without a challenge: %v", err)
	}
	elsewhere := open(t, soft, pin(soft.PIN))
	if _, err := elsewhere.Certify(t.Context(), key, make([]byte, 32)); !errors.Is(err, hsm.ErrNoKey) {
		t.Errorf("another token's key: %v", err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(nil)
	if _, err := key.Sign(rand.Reader, sum[:], crypto.SHA256); !errors.Is(err, hsm.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
