// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"valise/hsm"
	"valise/internal/testenv"
)

// The HSM goes and comes back. Keys that were open go on working.
func TestDeviceRestart(t *testing.T) {
	server := testenv.SoftHSMServer(t)
	pad := &pinPad{pin: server.PIN}
	token := openConfig(t, Config{Module: server.Module, Label: server.Label, PIN: pad.enter})
	key := generate(t, token, "k", hsm.P256)
	signs(t, key)
	if h := token.Health(); !h.OK || h.Restarts != 0 {
		t.Fatalf("health before: %+v", h)
	}

	server.Kill(t)
	if _, err := sign(key); !errors.Is(err, hsm.ErrDevice) || hsm.Hint(err) == "" {
		t.Fatalf("sign without a device: %v", err)
	}
	if h := token.Health(); h.OK || h.Err == nil || h.Attempts < 1 {
		t.Fatalf("health meanwhile: %+v", h)
	}
	if _, err := token.Key(context.Background(), "k"); !errors.Is(err, hsm.ErrDevice) {
		t.Fatalf("find without a device: %v", err)
	}

	server.Start(t)
	until(t, "recovery", func() bool { return token.Health().OK })
	signs(t, key)
	signs(t, mustKey(t, token, "k"))
	if h := token.Health(); h.Restarts != 1 || h.Err != nil {
		t.Errorf("health after: %+v", h)
	}
	if n := pad.asked.Load(); n != 2 {
		t.Errorf("the PIN was asked %d times, not once for each login", n)
	}
}

// A restart that is over when the next operation comes goes unnoticed by the
// caller, time after time.
func TestDeviceRestartBetweenOperations(t *testing.T) {
	server := testenv.SoftHSMServer(t)
	token := openConfig(t, Config{Module: server.Module, Label: server.Label, PIN: (&pinPad{pin: server.PIN}).enter})
	key := generate(t, token, "k", hsm.P256)
	for range 5 {
		signs(t, key)
		server.Kill(t)
		server.Start(t)
	}
	signs(t, key)
	if h := token.Health(); !h.OK || h.Restarts != 5 {
		t.Errorf("health: %+v", h)
	}
}

// Signers that are busy while the device restarts get ErrDevice or a good
// signature, and all sign again afterwards.
func TestDeviceRestartUnderLoad(t *testing.T) {
	server := testenv.SoftHSMServer(t)
	token := openConfig(t, Config{Module: server.Module, Label: server.Label, PIN: (&pinPad{pin: server.PIN}).enter})
	key := generate(t, token, "k", hsm.P256)
	var group sync.WaitGroup
	var stop atomic.Bool
	var signed atomic.Int32
	for range 4 {
		group.Go(func() {
			for !stop.Load() {
				switch _, err := sign(key); {
				case err == nil:
					signed.Add(1)
				case !errors.Is(err, hsm.ErrDevice):
					t.Errorf("sign: %v", err)
					return
				}
			}
		})
	}
	for range 3 {
		before := signed.Load()
		until(t, "signatures", func() bool { return signed.Load() > before+20 })
		server.Kill(t)
		server.Start(t)
	}
	before := signed.Load()
	until(t, "signatures after the last restart", func() bool { return signed.Load() > before+20 })
	stop.Store(true)
	group.Wait()
}

// A call that hangs in the library cannot be ended. Everything else goes on:
// operations fail at once, health says why, closing returns.
func TestCallThatNeverReturns(t *testing.T) {
	server := testenv.SoftHSMServer(t)
	token := openConfig(t, Config{Module: server.Module, Label: server.Label, PIN: (&pinPad{pin: server.PIN}).enter})
	key := generate(t, token, "k", hsm.P256)
	signs(t, key)
	token.module.mu.RLock() // as such a call does
	server.Kill(t)
	if _, err := sign(key); !errors.Is(err, hsm.ErrDevice) {
		t.Errorf("sign: %v", err)
	}
	server.Start(t)
	until(t, "the diagnosis", func() bool { return errors.Is(token.Health().Err, errStuck) })
	if _, err := sign(key); !errors.Is(err, errStuck) {
		t.Errorf("sign: %v", err)
	}
	// Control: it returns after all.
	token.module.mu.RUnlock()
	until(t, "recovery", func() bool { return token.Health().OK })
	signs(t, key)
}

// After a restart a PIN that is no longer right is sent once, and not again
// until somebody opens the token anew.
func TestRecoveryDoesNotRepeatWrongPIN(t *testing.T) {
	server := testenv.SoftHSMServer(t)
	pad := &pinPad{pin: server.PIN}
	token := openConfig(t, Config{Module: server.Module, Label: server.Label, PIN: pad.enter})
	key := generate(t, token, "k", hsm.P256)
	signs(t, key)
	pad.pin = "000000"
	server.Kill(t)
	server.Start(t)
	var pin *hsm.PINError
	for range 3 {
		if _, err := sign(key); !errors.As(err, &pin) {
			t.Fatalf("sign: %v", err)
		}
	}
	if n := pad.asked.Load(); n != 2 {
		t.Errorf("the PIN was asked %d times", n)
	}
	if h := token.Health(); h.OK || !errors.As(h.Err, &pin) {
		t.Errorf("health: %+v", h)
	}
	token.Close()
	again := openConfig(t, Config{Module: server.Module, Label: server.Label, PIN: (&pinPad{pin: server.PIN}).enter}) // control
	signs(t, mustKey(t, again, "k"))
}

// Sessions that the token dropped, and a login that it forgot, are renewed
// without starting the module again.
func TestSessionLost(t *testing.T) {
	softHSM(t, "ca")
	pad := &pinPad{pin: testPIN}
	token := openConfig(t, Config{Module: library(t), Label: "ca", PIN: pad.enter})
	key := generate(t, token, "k", hsm.P256)
	signs(t, key)
	if err := token.module.ctx.CloseAllSessions(token.slot); err != nil {
		t.Fatal(err)
	}
	signs(t, key)
	if err := token.module.ctx.Logout(token.anchor); err != nil {
		t.Fatal(err)
	}
	signs(t, key)
	if n := pad.asked.Load(); n != 3 {
		t.Errorf("the PIN was asked %d times", n)
	}
	if h := token.Health(); !h.OK || h.Restarts != 0 {
		t.Errorf("health: %+v", h)
	}
}

// A key that was replaced while the device was away is not used in its stead.
func TestReplacedKeyIsRefused(t *testing.T) {
	softHSM(t, "ca")
	token := openSoft(t, "ca")
	generate(t, token, "k", hsm.P256)
	old := mustKey(t, token, "k") // by label alone
	signs(t, old)
	destroy(t, token, "k")
	generate(t, token, "k", hsm.P256)
	if err := token.module.ctx.CloseAllSessions(token.slot); err != nil {
		t.Fatal(err)
	}
	if _, err := sign(old); !errors.Is(err, hsm.ErrNoKey) {
		t.Errorf("sign: %v", err)
	}
	signs(t, mustKey(t, token, "k")) // control
}

func TestCheckNoticesALostDevice(t *testing.T) {
	server := testenv.SoftHSMServer(t)
	token := openConfig(t, Config{Module: server.Module, Label: server.Label, PIN: (&pinPad{pin: server.PIN}).enter})
	if err := token.Check(context.Background()); err != nil {
		t.Fatal(err)
	}
	server.Kill(t)
	if err := token.Check(context.Background()); !errors.Is(err, hsm.ErrDevice) {
		t.Errorf("check: %v", err)
	}
}

func destroy(t *testing.T, token *Token, label string) {
	t.Helper()
	err := token.useWritable(context.Background(), func(s p11.SessionHandle) error {
		objects, err := find(token.module.ctx, s, p11.NewAttribute(p11.CKA_LABEL, label))
		for _, o := range objects {
			err = errors.Join(err, token.module.ctx.DestroyObject(s, o))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
