// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package piv

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	pivgo "github.com/go-piv/piv-go/v2/piv"

	"valise/hsm"
	"valise/internal/testcard"
	"valise/internal/testenv"
)

// A pinPad gives a PIN and counts how often it was asked.
type pinPad struct {
	pin   string
	asked atomic.Int32
	last  atomic.Pointer[hsm.PINRequest]
}

func (p *pinPad) enter(_ context.Context, r hsm.PINRequest) (string, error) {
	p.asked.Add(1)
	p.last.Store(&r)
	return p.pin, nil
}

// open opens the card with its right PIN.
func openCard(t *testing.T, card *testenv.CardReader) (*Token, *pinPad) {
	t.Helper()
	pad := &pinPad{pin: card.PIN}
	token, err := Open(t.Context(), Config{Serial: fmt.Sprint(card.Serial), PIN: pad.enter})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { token.Close() })
	return token, pad
}

func generate(t *testing.T, token *Token, slot string, a hsm.Algorithm) hsm.Key {
	t.Helper()
	key, err := token.Generate(t.Context(), slot, hsm.GenerateOptions{Algorithm: a})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var digest = sha256.Sum256([]byte("diplomatic bag"))

func sign(key crypto.Signer) ([]byte, error) { return key.Sign(rand.Reader, digest[:], crypto.SHA256) }

func signs(t *testing.T, key hsm.Key) {
	t.Helper()
	signature, err := sign(key)
	if err != nil {
		t.Fatal(err)
	}
	if !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest[:], signature) {
		t.Fatal("the signature does not verify")
	}
}

func TestGenerateSignAgree(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, pad := openCard(t, card)
	if i := token.Info(); i.Kind != "piv" || i.Serial != fmt.Sprint(card.Serial) || i.Firmware != "5.4.3" || i.Label != card.Reader {
		t.Errorf("info = %+v", i)
	}
	for _, c := range []struct {
		slot string
		a    hsm.Algorithm
	}{
		{"9a", hsm.P384}, {"9c", hsm.P256}, {"9d", hsm.P384}, {"9e", hsm.P256}, {"82", hsm.P384}, {"95", hsm.P256},
	} {
		slot, a := c.slot, c.a
		made := generate(t, token, slot, a)
		if got, _ := hsm.AlgorithmOf(made.Public()); got != a {
			t.Errorf("slot %s: algorithm %v", slot, got)
		}
		found, err := token.Key(t.Context(), slot)
		if err != nil {
			t.Fatal(err)
		}
		if !found.Public().(*ecdsa.PublicKey).Equal(made.Public()) {
			t.Fatalf("slot %s: another key was found", slot)
		}
		signs(t, made)
		signs(t, found)
		agrees(t, found.(ecdh.KeyExchanger))
	}
	if n := pad.asked.Load(); n != 4 { // 9c three times, all others together once
		t.Errorf("the PIN was asked %d times", n)
	}
}

func agrees(t *testing.T, ours ecdh.KeyExchanger) {
	t.Helper()
	peer, err := ours.Curve().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ours.ECDH(peer.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	if want, err := peer.ECDH(ours.PublicKey()); err != nil || string(got) != string(want) {
		t.Fatalf("secrets differ (%v)", err)
	}
	other := ecdh.P256()
	if ours.Curve() == other {
		other = ecdh.P384()
	}
	stranger, _ := other.GenerateKey(rand.Reader)
	if _, err := ours.ECDH(stranger.PublicKey()); !errors.Is(err, hsm.ErrPoint) {
		t.Errorf("another curve: %v", err)
	}
}

// SP 800-73-4, Part 1, Table 2: the signature key wants the PIN every time.
func TestPINPolicy(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	for slot, want := range map[string]int32{"9a": 1, "9d": 1, "9c": 3} {
		t.Run(slot, func(t *testing.T) {
			token, pad := openCard(t, card)
			key := generate(t, token, slot, hsm.P256)
			for range 3 {
				signs(t, key)
			}
			if n := pad.asked.Load(); n != want {
				t.Errorf("the PIN was asked %d times, want %d", n, want)
			}
			token.Close()
		})
	}
}

func TestEvidence(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, _ := openCard(t, card)
	key := generate(t, token, "9a", hsm.P384)
	evidence, err := key.Evidence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if evidence.Format != "yubico-piv" || len(evidence.Chain) != 2 {
		t.Fatalf("evidence = %s with %d certificates", evidence.Format, len(evidence.Chain))
	}
	leaf, err := x509.ParseCertificate(evidence.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	f9, err := x509.ParseCertificate(evidence.Chain[1])
	if err != nil {
		t.Fatal(err)
	}
	if !key.Public().(*ecdsa.PublicKey).Equal(leaf.PublicKey) {
		t.Error("the evidence is for another key")
	}
	if err := f9.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature); err != nil {
		t.Errorf("f9 did not sign it: %v", err)
	}
}

// An imported key may exist elsewhere: the card attests none.
func TestNoEvidenceForImportedKey(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	yk, err := pivgo.Open(card.Reader)
	if err != nil {
		t.Fatal(err)
	}
	err = yk.SetPrivateKeyInsecure(pivgo.DefaultManagementKey, pivgo.SlotAuthentication, private,
		pivgo.Key{Algorithm: pivgo.AlgorithmEC256, PINPolicy: pivgo.PINPolicyOnce, TouchPolicy: pivgo.TouchPolicyNever})
	yk.Close()
	if err != nil {
		t.Fatal(err)
	}
	token, _ := openCard(t, card)
	key, err := token.Key(t.Context(), "9a")
	if err != nil {
		t.Fatal(err)
	}
	signs(t, key)
	if _, err := key.Evidence(t.Context()); !errors.Is(err, hsm.ErrNoEvidence) || hsm.Hint(err) == "" {
		t.Errorf("evidence: %v", err)
	}
	if _, err := token.Generate(t.Context(), "9a", hsm.GenerateOptions{}); !errors.Is(err, hsm.ErrOccupied) {
		t.Errorf("generate over it: %v", err)
	}
}

// Firmware before 5.3 has no metadata: public key and policy come from
// attestation.
func TestOldFirmware(t *testing.T) {
	firmware, err := testcard.ParseVersion("5.2.7")
	if err != nil {
		t.Fatal(err)
	}
	card := testenv.Card(t, testcard.Config{Firmware: firmware})
	token, pad := openCard(t, card)
	for slot, want := range map[string]int32{"9a": 1, "9c": 2} {
		if _, err := token.Key(t.Context(), slot); !errors.Is(err, hsm.ErrNoKey) {
			t.Fatalf("slot %s before: %v", slot, err)
		}
		generate(t, token, slot, hsm.P256)
		if err := token.Logout(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := pad.asked.Load()
		key, err := token.Key(t.Context(), slot)
		if err != nil {
			t.Fatal(err)
		}
		signs(t, key)
		signs(t, key)
		if n := pad.asked.Load() - before; n != want {
			t.Errorf("slot %s: the PIN was asked %d times, want %d", slot, n, want)
		}
		if _, err := token.Generate(t.Context(), slot, hsm.GenerateOptions{}); !errors.Is(err, hsm.ErrOccupied) {
			t.Errorf("slot %s again: %v", slot, err)
		}
	}
}

// A certificate without a key counts as occupied.
func TestCertificateAloneOccupiesSlot(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, _ := openCard(t, card)
	cert, err := x509.ParseCertificate(selfSigned(t, generate(t, token, "9a", hsm.P256)))
	if err != nil {
		t.Fatal(err)
	}
	err = token.use(t.Context(), func(_ context.Context, yk *pivgo.YubiKey) error {
		return yk.SetCertificate(pivgo.DefaultManagementKey, pivgo.SlotKeyManagement, cert)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Generate(t.Context(), "9d", hsm.GenerateOptions{}); !errors.Is(err, hsm.ErrOccupied) {
		t.Errorf("9d: %v", err)
	}
	generate(t, token, "9e", hsm.P256) // control
}

// Generation never destroys a key, or a certificate, that is not named.
func TestOccupiedSlot(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, _ := openCard(t, card)
	first := generate(t, token, "9a", hsm.P256)
	for _, o := range []hsm.GenerateOptions{{}, {Overwrite: "9d"}, {Overwrite: "9"}} {
		_, err := token.Generate(t.Context(), "9a", o)
		if !errors.Is(err, hsm.ErrOccupied) || hsm.Hint(err) == "" {
			t.Errorf("%+v: %v", o, err)
		}
	}
	key, err := token.Key(t.Context(), "9a")
	if err != nil || !key.Public().(*ecdsa.PublicKey).Equal(first.Public()) {
		t.Fatalf("the key changed (%v)", err)
	}
	generate(t, token, "9d", hsm.P256) // control: a free slot
	second, err := token.Generate(t.Context(), "9a", hsm.GenerateOptions{Overwrite: "9A"})
	if err != nil {
		t.Fatalf("named: %v", err)
	}
	if second.Public().(*ecdsa.PublicKey).Equal(first.Public()) {
		t.Error("no key was made")
	}
}

func TestManagementKey(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, _ := openCard(t, card)
	for name, management := range map[string][]byte{"wrong": make([]byte, 24), "short": make([]byte, 5), "empty": {}} {
		_, err := token.Generate(t.Context(), "9a", hsm.GenerateOptions{ManagementKey: management})
		if !errors.Is(err, hsm.ErrManagementKey) || hsm.Hint(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	generate(t, token, "9a", hsm.P256) // control
}

func TestSlotNames(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, _ := openCard(t, card)
	for _, slot := range []string{"", "9b", "f9", "81", "96", "082", "9a ", "+9", "80", "9f"} {
		if _, err := token.Key(t.Context(), slot); !errors.Is(err, hsm.ErrSlot) {
			t.Errorf("key %q: %v", slot, err)
		}
		if _, err := token.Generate(t.Context(), slot, hsm.GenerateOptions{}); !errors.Is(err, hsm.ErrSlot) {
			t.Errorf("generate %q: %v", slot, err)
		}
	}
	if _, err := token.Key(t.Context(), "9a"); !errors.Is(err, hsm.ErrNoKey) || hsm.Hint(err) == "" {
		t.Errorf("empty slot: %v", err)
	}
	if _, err := token.Generate(t.Context(), "9a", hsm.GenerateOptions{Algorithm: hsm.Ed25519}); !errors.Is(err, hsm.ErrAlgorithm) {
		t.Errorf("Ed25519: %v", err)
	}
}

func TestCertificate(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, _ := openCard(t, card)
	key, other := generate(t, token, "9a", hsm.P256), generate(t, token, "9d", hsm.P256)
	if _, err := token.Certificate(t.Context(), "9a"); !errors.Is(err, hsm.ErrNoCertificate) {
		t.Fatalf("before: %v", err)
	}
	der := selfSigned(t, key)
	if err := token.StoreCertificate(t.Context(), "9a", der, nil); err != nil {
		t.Fatal(err)
	}
	got, err := token.Certificate(t.Context(), "9a")
	if err != nil || string(got) != string(der) {
		t.Errorf("after: %d bytes, %v", len(got), err)
	}
	for name, bad := range map[string][]byte{
		"another key's": selfSigned(t, other), "malformed": der[:40], "huge": make([]byte, maxCertificate+1),
	} {
		if err := token.StoreCertificate(t.Context(), "9a", bad, nil); err == nil {
			t.Errorf("%s certificate was stored", name)
		}
	}
	if err := token.StoreCertificate(t.Context(), "9a", der, make([]byte, 24)); !errors.Is(err, hsm.ErrManagementKey) {
		t.Errorf("wrong management key: %v", err)
	}
}

func selfSigned(t *testing.T, key hsm.Key) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
