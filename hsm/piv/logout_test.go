// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package piv

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	pivgo "github.com/go-piv/piv-go/v2/piv"

	"valise/hsm"
	"valise/internal/testcard"
	"valise/internal/testenv"
)

// The test program is also the second process: with helperEnv set it opens the
// only card, signs with 9a, says how that went, and waits for its end.
const helperEnv = "VALISE_PIV_TEST_HELPER" // "none", or the PIN

func TestMain(m *testing.M) {
	if pin, ok := os.LookupEnv(helperEnv); ok {
		fmt.Println(helperSign(pin))
		bufio.NewReader(os.Stdin).ReadString('\n')
		os.Exit(0) // without Close, as a crash would
	}
	os.Exit(m.Run())
}

func helperSign(pin string) string {
	cfg := Config{PIN: func(context.Context, hsm.PINRequest) (string, error) { return pin, nil }}
	if pin == "none" {
		cfg.PIN = nil
	}
	token, err := Open(context.Background(), cfg)
	if err != nil {
		return "open: " + err.Error() + " / " + hsm.Hint(err)
	}
	key, err := token.Key(context.Background(), "9a")
	if err != nil {
		return "key: " + err.Error()
	}
	switch _, err = sign(key); {
	case errors.Is(err, hsm.ErrNoPIN):
		return "needs a PIN"
	case err != nil:
		return "sign: " + err.Error()
	}
	return "signed"
}

// second runs a second process; end ends it, with SIGKILL if kill is set.
func second(t *testing.T, pin string, env ...string) (said string, end func(kill bool)) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), helperEnv+"="+pin), env...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("second process: %v\n%s", err, &stderr)
	}
	return strings.TrimSpace(line), func(kill bool) {
		if kill {
			cmd.Process.Kill()
		}
		stdin.Close()
		cmd.Wait()
	}
}

// without asks a second process to sign without knowing the PIN.
func without(t *testing.T) string {
	t.Helper()
	said, end := second(t, "none")
	end(true)
	return said
}

// The reason for all this: piv-go leaves a card that was shown its PIN open to
// every other process.
func TestPINStateOutlivesPlainClose(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, _ := openCard(t, card)
	generate(t, token, "9a", hsm.P256)
	token.Close()
	yk, err := pivgo.Open(card.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := yk.VerifyPIN(card.PIN); err != nil {
		t.Fatal(err)
	}
	yk.Close()
	if said := without(t); said != "signed" {
		t.Errorf("second process: %s", said)
	}
}

func TestSecondProcessNeedsPIN(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, pad := openCard(t, card)
	key := generate(t, token, "9a", hsm.P256)
	signs(t, key)
	signs(t, key)

	if err := token.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if said := without(t); said != "needs a PIN" {
		t.Errorf("after Logout, second process: %s", said)
	}
	signs(t, key) // the token opens the card again
	if n := pad.asked.Load(); n != 2 {
		t.Errorf("the PIN was asked %d times", n)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	if said := without(t); said != "needs a PIN" {
		t.Errorf("after Close, second process: %s", said)
	}

	for _, kill := range []bool{true, false} { // control: with the PIN it signs; then it dies
		said, end := second(t, card.PIN)
		end(kill)
		if said != "signed" {
			t.Errorf("second process with the PIN: %s", said)
		}
		if said := without(t); said != "needs a PIN" {
			t.Errorf("after the end of a process (killed: %v), the next: %s", kill, said)
		}
	}
}

// A reset that failed, because another program had the card, is made up for: a
// card that was shown its PIN is not taken for a fresh one when it is opened again.
func TestFailedResetIsMadeUpFor(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, pad := openCard(t, card)
	key := generate(t, token, "9a", hsm.P256)
	signs(t, key)
	token.mu.Lock() // what release leaves behind when the reset fails
	token.yk.Close()
	token.yk = nil
	token.mu.Unlock()
	signs(t, key)
	if n := pad.asked.Load(); n != 1 {
		t.Fatalf("the PIN was asked %d times: the card was reset", n)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	if said := without(t); said != "needs a PIN" {
		t.Errorf("second process: %s", said)
	}
}

// A Logout is no removal: nobody is told that the card is gone.
func TestLogoutIsNoRemoval(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, _ := openCard(t, card)
	key := generate(t, token, "9a", hsm.P256)
	for range 5 {
		signs(t, key)
		if err := token.Logout(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	signs(t, key)
	select {
	case <-token.Removed():
		t.Error("removed")
	default:
	}
}

func TestClosedTokenDoesNothing(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, _ := openCard(t, card)
	key := generate(t, token, "9a", hsm.P256)
	token.Close()
	if _, err := sign(key); !errors.Is(err, hsm.ErrClosed) {
		t.Errorf("sign: %v", err)
	}
	if err := token.Logout(t.Context()); !errors.Is(err, hsm.ErrClosed) {
		t.Errorf("logout: %v", err)
	}
	if err := token.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

func TestNoService(t *testing.T) {
	testenv.Card(t, testcard.Config{})
	said, end := second(t, "none", "PCSCLITE_CSOCK_NAME="+t.TempDir()+"/none")
	end(false)
	if !strings.Contains(said, hsm.ErrNoService.Error()) || !strings.Contains(said, hsm.Hint(hsm.ErrNoService)) {
		t.Errorf("without pcscd: %s", said)
	}
	if said := without(t); !strings.HasPrefix(said, "key: ") { // control: there is a card, and no key in it
		t.Errorf("with pcscd: %s", said)
	}
}
