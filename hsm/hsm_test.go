// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestHintSurvivesWrapping(t *testing.T) {
	err := fmt.Errorf("piv: slot 9a: %w", fmt.Errorf("open: %w", ErrLocked))
	if !errors.Is(err, ErrLocked) {
		t.Fatalf("%v is not ErrLocked", err)
	}
	if got := Hint(err); !strings.Contains(got, "PUK") {
		t.Errorf("hint = %q", got)
	}
	if got := Hint(errors.New("plain")); got != "" {
		t.Errorf("hint of an error without one = %q", got)
	}
}

func TestPINErrorCounts(t *testing.T) {
	for retries, want := range map[int]string{
		-1: "wrong PIN", 1: "wrong PIN, 1 try left", 2: "wrong PIN, 2 tries left",
	} {
		err := &PINError{Retries: retries}
		if err.Error() != want {
			t.Errorf("retries %d: %q, want %q", retries, err, want)
		}
		if warns := strings.Contains(err.Hint(), "locks"); warns != (retries == 1) {
			t.Errorf("retries %d: hint %q", retries, err.Hint())
		}
	}
}

func TestAlgorithmOf(t *testing.T) {
	for _, want := range []Algorithm{P256, P384} {
		got, ok := AlgorithmOf(&ecdsa.PublicKey{Curve: want.Curve()})
		if !ok || got != want {
			t.Errorf("%v: got %v, %v", want, got, ok)
		}
	}
	if _, ok := AlgorithmOf(&ecdsa.PublicKey{Curve: elliptic.P521()}); ok {
		t.Error("P-521 accepted")
	}
	if _, ok := AlgorithmOf(&rsa.PublicKey{}); ok {
		t.Error("RSA accepted")
	}
}
