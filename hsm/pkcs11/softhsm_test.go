// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"context"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"valise/hsm"
	"valise/internal/testenv"
)

const testPIN = "481516"

// library is SoftHSM's library.
func library(t testing.TB) string {
	t.Helper()
	return testenv.Need(t, "/usr/lib*/softhsm/libsofthsm2.so", "softhsm2")
}

// softHSM makes tokens with these labels in a SoftHSM of the test's own.
func softHSM(t testing.TB, labels ...string) {
	t.Helper()
	testenv.SoftHSM(t) // sets SOFTHSM2_CONF; its own token is one more that must not be taken
	for _, label := range labels {
		out, err := exec.Command("softhsm2-util", "--init-token", "--free",
			"--label", label, "--pin", testPIN, "--so-pin", "87654321").CombinedOutput()
		if err != nil {
			t.Fatalf("softhsm2-util: %v\n%s", err, out)
		}
	}
}

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

func rightPIN(context.Context, hsm.PINRequest) (string, error) { return testPIN, nil }

// openSoft opens a token of softHSM's.
func openSoft(t testing.TB, label string) *Token {
	t.Helper()
	return openConfig(t, Config{Module: library(t), Label: label, PIN: rightPIN})
}

func openConfig(t testing.TB, c Config) *Token {
	t.Helper()
	token, err := Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { token.Close() })
	return token
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(45 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited too long for %s", what)
		}
	}
}
