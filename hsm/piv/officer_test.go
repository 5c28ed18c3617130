// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package piv

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"testing"

	pivgo "github.com/go-piv/piv-go/v2/piv"

	"valise/attest"
	"valise/hsm"
	"valise/internal/testcard"
	"valise/internal/testenv"
)

// An officer's key asks for the PIN at each signature, however often, and what the
// card attests of it says so.
func TestOfficersKeyAsksEveryTime(t *testing.T) {
	root, err := testcard.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	card := testenv.Card(t, testcard.Config{Root: root})
	token, pad := openCard(t, card)
	key := generate(t, token, "9c", hsm.P384)
	other := generate(t, token, "9a", hsm.P384)
	for n := int32(1); n <= 5; n++ {
		signs(t, key)
		if got := pad.asked.Load(); got != n {
			t.Fatalf("after %d signatures the PIN was asked %d times", n, got)
		}
	}
	signs(t, other) // the PIN of the last signature serves it: the card is logged in
	if got := pad.asked.Load(); got != 5 {
		t.Errorf("the key in 9a asked as well: %d", got)
	}
	pad.pin = "000000"
	var wrong *hsm.PINError
	if _, err := sign(key); !errors.As(err, &wrong) {
		t.Errorf("a signature with a wrong PIN, behind five with the right one: %v", err)
	}
	claims := attested(t, key, root)
	if claims.Slot.Value != "9c" || claims.PINPolicy.Value != attest.PINAlways || claims.TouchPolicy.Value != attest.TouchNever {
		t.Errorf("claims = %+v", claims)
	}
}

func attested(t *testing.T, key hsm.Key, root *testcard.Root) attest.KeyClaims {
	t.Helper()
	evidence, err := key.Evidence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	endorsements, err := attest.Configured(root.PEM())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(evidence.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	claims, err := attest.Verify(attest.Evidence{Format: evidence.Format, Chain: evidence.Chain}, nil, endorsements, leaf.NotBefore)
	if err != nil {
		t.Fatal(err)
	}
	return claims.Key
}

// A key in 9c that others made to ask once, or never, is refused, where the card's
// metadata tells and where only its attestation does.
func TestKeyInSlot9cThatDoesNotAsk(t *testing.T) {
	old, err := testcard.ParseVersion("5.2.7")
	if err != nil {
		t.Fatal(err)
	}
	for name, firmware := range map[string]testcard.Version{"metadata": {}, "attestation": old} {
		t.Run(name, func(t *testing.T) {
			card := testenv.Card(t, testcard.Config{Firmware: firmware})
			for _, c := range []struct {
				policy pivgo.PINPolicy
				want   error
			}{
				{pivgo.PINPolicyNever, hsm.ErrPINPolicy}, {pivgo.PINPolicyOnce, hsm.ErrPINPolicy}, {pivgo.PINPolicyAlways, nil},
			} {
				with(t, card, func(yk *pivgo.YubiKey) error {
					_, err := yk.GenerateKey(pivgo.DefaultManagementKey, pivgo.SlotSignature,
						pivgo.Key{Algorithm: pivgo.AlgorithmEC256, PINPolicy: c.policy, TouchPolicy: pivgo.TouchPolicyNever})
					return err
				})
				token, _ := openCard(t, card)
				key, err := token.Key(t.Context(), "9c")
				if !errors.Is(err, c.want) || err != nil && hsm.Hint(err) == "" {
					t.Errorf("PIN policy %d: %v", c.policy, err)
				}
				if err == nil {
					signs(t, key)
				}
				if _, err := token.Generate(t.Context(), "9c", hsm.GenerateOptions{}); !errors.Is(err, hsm.ErrOccupied) {
					t.Errorf("generate over it: %v", err)
				}
				token.Close()
			}
		})
	}
}

// Old firmware does not tell the policy of a key that was imported: that counts as
// one that does not ask. Elsewhere than in 9c such a key serves.
func TestImportedKeyInSlot9cOfOldFirmware(t *testing.T) {
	firmware, err := testcard.ParseVersion("5.2.7")
	if err != nil {
		t.Fatal(err)
	}
	card := testenv.Card(t, testcard.Config{Firmware: firmware})
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range []pivgo.Slot{pivgo.SlotSignature, pivgo.SlotAuthentication} {
		with(t, card, func(yk *pivgo.YubiKey) error {
			if err := yk.SetPrivateKeyInsecure(pivgo.DefaultManagementKey, slot, private,
				pivgo.Key{Algorithm: pivgo.AlgorithmEC256, PINPolicy: pivgo.PINPolicyAlways, TouchPolicy: pivgo.TouchPolicyNever}); err != nil {
				return err
			}
			template := &x509.Certificate{SerialNumber: big.NewInt(1)}
			der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
			if err != nil {
				return err
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return err
			}
			return yk.SetCertificate(pivgo.DefaultManagementKey, slot, cert)
		})
	}
	token, _ := openCard(t, card)
	if _, err := token.Key(t.Context(), "9c"); !errors.Is(err, hsm.ErrPINPolicy) {
		t.Errorf("9c: %v", err)
	}
	if _, err := token.Key(t.Context(), "9a"); err != nil { // control
		t.Errorf("9a: %v", err)
	}
}

// Touch is asked for, where the card has a sensor; where it has none, a key that
// must have it is not made, and one that would like to have it is made without.
func TestTouchAsTheCardOffers(t *testing.T) {
	root, err := testcard.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		noSensor bool
		o        hsm.GenerateOptions
		want     attest.TouchPolicy // zero: refused
	}{
		{"not asked for", false, hsm.GenerateOptions{}, attest.TouchNever},
		{"asked for", false, hsm.GenerateOptions{Touch: true}, attest.TouchAlways},
		{"if offered", false, hsm.GenerateOptions{TouchOffered: true}, attest.TouchAlways},
		{"asked for, no sensor", true, hsm.GenerateOptions{Touch: true}, 0},
		{"asked for and if offered, no sensor", true, hsm.GenerateOptions{Touch: true, TouchOffered: true}, 0},
		{"if offered, no sensor", true, hsm.GenerateOptions{TouchOffered: true}, attest.TouchNever},
	} {
		t.Run(c.name, func(t *testing.T) {
			card := testenv.Card(t, testcard.Config{Root: root, NoSensor: c.noSensor})
			token, _ := openCard(t, card)
			key, err := token.Generate(t.Context(), "9c", c.o)
			if (err != nil) != (c.want == 0) {
				t.Fatal(err)
			}
			if err != nil {
				return
			}
			if got := attested(t, key, root).TouchPolicy.Value; got != c.want {
				t.Errorf("touch policy %v, want %v", got, c.want)
			}
			signs(t, key)
		})
	}
}

// with uses the card behind the package's back.
func with(t *testing.T, card *testenv.CardReader, f func(*pivgo.YubiKey) error) {
	t.Helper()
	var yk *pivgo.YubiKey
	err := patiently(context.Background(), func() (err error) {
		if err = probe(card.Reader); err == nil {
			yk, err = open(card.Reader)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer yk.Close()
	if err := f(yk); err != nil {
		t.Fatal(err)
	}
}
