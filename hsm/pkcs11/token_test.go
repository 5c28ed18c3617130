// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"

	"valise/hsm"
)

func TestTokenIsNamedByLabelOrSerial(t *testing.T) {
	softHSM(t, "ca", "twin", "twin")
	token := openSoft(t, "ca")
	info := token.Info()
	if info.Kind != "pkcs11" || info.Label != "ca" || info.Serial == "" || info.Model != "SoftHSM v2" {
		t.Errorf("info = %+v", info)
	}
	for _, c := range []struct {
		name string
		cfg  Config
		want error
	}{
		{"label", Config{Label: "ca"}, nil},
		{"padded label", Config{Label: "ca  \x00"}, nil},
		{"serial", Config{Serial: info.Serial}, nil},
		{"both", Config{Label: "ca", Serial: info.Serial, Model: "SoftHSM v2"}, nil},
		{"empty label", Config{}, hsm.ErrEmptyLabel},
		{"blank label", Config{Label: "  \x00"}, hsm.ErrEmptyLabel},
		{"unknown label", Config{Label: "cA"}, hsm.ErrNoToken},
		{"unknown serial", Config{Serial: "0"}, hsm.ErrNoToken},
		{"other model", Config{Label: "ca", Model: "Luna"}, hsm.ErrNoToken},
		{"two tokens", Config{Label: "twin"}, hsm.ErrManyTokens},
	} {
		t.Run(c.name, func(t *testing.T) {
			pad := &pinPad{pin: testPIN}
			c.cfg.Module, c.cfg.PIN = library(t), pad.enter
			got, err := Open(context.Background(), c.cfg)
			if !errors.Is(err, c.want) {
				t.Fatalf("err = %v, want %v", err, c.want)
			}
			if err == nil {
				got.Close()
				return
			}
			if hsm.Hint(err) == "" {
				t.Errorf("%v carries no hint", err)
			}
			if n := pad.asked.Load(); n != 0 {
				t.Errorf("the PIN was asked %d times for a token that was not found", n)
			}
		})
	}
}

// A token that comes a moment later is found: it is made when Open has begun to
// look, and making one takes longer than looking.
func TestTokenThatComesLate(t *testing.T) {
	softHSM(t)
	begun, result := make(chan struct{}), make(chan error)
	go func() {
		c := Config{Module: library(t), Label: "late", PIN: rightPIN}
		close(begun)
		token, err := Open(context.Background(), c)
		if err == nil {
			err = token.Close()
		}
		result <- err
	}()
	<-begun
	out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "late", "--pin", testPIN, "--so-pin", "87654321").CombinedOutput()
	if err != nil {
		t.Errorf("softhsm2-util: %v\n%s", err, out)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestModuleIsMissing(t *testing.T) {
	softHSM(t, "ca")
	for _, path := range []string{"", "/nonexistent.so", filepath.Join(t.TempDir(), "..")} {
		_, err := Open(context.Background(), Config{Module: path, Label: "ca", PIN: rightPIN})
		if !errors.Is(err, hsm.ErrNoModule) || hsm.Hint(err) == "" {
			t.Errorf("module %q: err = %v", path, err)
		}
	}
	openSoft(t, "ca") // control
}

func TestWrongPINIsSentOnce(t *testing.T) {
	softHSM(t, "ca")
	wrong := &pinPad{pin: testPIN + "0"}
	_, err := Open(context.Background(), Config{Module: library(t), Label: "ca", PIN: wrong.enter})
	var pin *hsm.PINError
	if !errors.As(err, &pin) || hsm.Hint(err) == "" {
		t.Fatalf("err = %v", err)
	}
	if n := wrong.asked.Load(); n != 1 {
		t.Errorf("the PIN was asked %d times", n)
	}
	if r := wrong.last.Load(); r.Token != "ca" || r.Serial == "" {
		t.Errorf("request = %+v", r)
	}
	_, err = Open(context.Background(), Config{Module: library(t), Label: "ca"})
	if !errors.Is(err, hsm.ErrNoPIN) {
		t.Errorf("without a PIN: err = %v", err)
	}
	openSoft(t, "ca") // control: the right one works
}

// A login is the process's (PKCS#11, Section 5.6): a second token object needs
// no PIN, and closing it does not end the first one's login.
func TestLoggedInAlready(t *testing.T) {
	softHSM(t, "ca")
	first := openSoft(t, "ca")
	generate(t, first, "k", hsm.P256)
	pad := &pinPad{pin: testPIN}
	second := openConfig(t, Config{Module: library(t), Label: "ca", PIN: pad.enter})
	signs(t, mustKey(t, second, "k"))
	second.Close()
	signs(t, mustKey(t, first, "k"))
}

func TestLogoutNeedsThePINAgain(t *testing.T) {
	softHSM(t, "ca")
	pad := &pinPad{pin: testPIN}
	token := openConfig(t, Config{Module: library(t), Label: "ca", PIN: pad.enter})
	key := generate(t, token, "k", hsm.P256)
	signs(t, key)
	if n := pad.asked.Load(); n != 1 {
		t.Fatalf("the PIN was asked %d times before the logout", n)
	}
	if err := token.Logout(context.Background()); err != nil {
		t.Fatal(err)
	}
	pad.pin = "000000"
	var pin *hsm.PINError
	if _, err := sign(key); !errors.As(err, &pin) {
		t.Fatalf("signing after the logout with a wrong PIN: %v", err)
	}
	if _, err := sign(key); !errors.As(err, &pin) {
		t.Fatalf("the second time: %v", err)
	}
	if n := pad.asked.Load(); n != 2 {
		t.Errorf("a refused PIN was asked for again by itself: %d times", n)
	}
}

func TestClosedTokenDoesNothing(t *testing.T) {
	softHSM(t, "ca")
	token := openSoft(t, "ca")
	key := generate(t, token, "k", hsm.P256)
	signs(t, key)
	token.Close()
	if _, err := sign(key); !errors.Is(err, hsm.ErrClosed) {
		t.Errorf("sign: %v", err)
	}
	if _, err := token.Key(context.Background(), "k"); !errors.Is(err, hsm.ErrClosed) {
		t.Errorf("find: %v", err)
	}
	if err := token.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}
