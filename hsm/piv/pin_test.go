// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package piv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"valise/hsm"
	"valise/internal/testcard"
	"valise/internal/testenv"
)

// A wrong PIN costs one try for one request, never more.
func TestWrongPINCountsDownAndLocks(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, pad := openCard(t, card)
	key := generate(t, token, "9a", hsm.P256)
	pad.pin = "000000"
	for left := 2; left > 0; left-- {
		_, err := sign(key)
		var wrong *hsm.PINError
		if !errors.As(err, &wrong) || wrong.Retries != left {
			t.Fatalf("err = %v, want %d tries left", err, left)
		}
		if n, r := pad.asked.Load(), pad.last.Load().Retries; int(n) != 3-left || r != left+1 {
			t.Errorf("asked %d times; was told of %d tries", n, r)
		}
	}
	if _, err := sign(key); !errors.Is(err, hsm.ErrLocked) || !strings.Contains(hsm.Hint(err), "PUK") {
		t.Fatalf("the last try: %v", err)
	}
	pad.pin = card.PIN
	if _, err := sign(key); !errors.Is(err, hsm.ErrLocked) {
		t.Fatalf("the right PIN on a locked card: %v", err)
	}
	if n := pad.asked.Load(); n != 3 {
		t.Errorf("the PIN was asked %d times: a locked card needs none", n)
	}
}

func TestRightPINRestoresTries(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, pad := openCard(t, card)
	key := generate(t, token, "9c", hsm.P256)
	for range 4 {
		pad.pin = "000000"
		var wrong *hsm.PINError
		if _, err := sign(key); !errors.As(err, &wrong) || wrong.Retries != 2 {
			t.Fatalf("wrong PIN: %v", err)
		}
		pad.pin = card.PIN
		signs(t, key)
	}
}

// What cannot be a PIN is not sent: SP 800-73-4, Part 2, Section 2.4.3.
func TestImpossiblePINCostsNoTry(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, pad := openCard(t, card)
	key := generate(t, token, "9a", hsm.P256)
	for _, pin := range []string{"", "12345", "123456789"} {
		pad.pin = pin
		if _, err := sign(key); !errors.Is(err, hsm.ErrPINFormat) {
			t.Errorf("%q: %v", pin, err)
		}
	}
	pad.pin = card.PIN
	signs(t, key)
	if r := pad.last.Load().Retries; r != 3 {
		t.Errorf("%d tries are left", r)
	}
}

func TestNobodyToAskForPIN(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, err := Open(t.Context(), Config{Serial: fmt.Sprint(card.Serial)})
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	key := generate(t, token, "9a", hsm.P256)
	if _, err := sign(key); !errors.Is(err, hsm.ErrNoPIN) || hsm.Hint(err) == "" {
		t.Errorf("err = %v", err)
	}
}

// A person who says no is heard, and the reason comes through.
func TestPINRefusedByPerson(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	errNo := errors.New("cancelled")
	token, err := Open(t.Context(), Config{
		Serial: fmt.Sprint(card.Serial),
		PIN:    func(context.Context, hsm.PINRequest) (string, error) { return "", errNo },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	key := generate(t, token, "9a", hsm.P256)
	if _, err := sign(key); !errors.Is(err, errNo) {
		t.Errorf("err = %v", err)
	}
}

// Logout and removal end a prompt that waits.
func TestPromptEndsWithLogoutAndRemoval(t *testing.T) {
	for _, how := range []string{"logout", "removal", "close"} {
		t.Run(how, func(t *testing.T) {
			card := testenv.Card(t, testcard.Config{})
			waiting := make(chan struct{})
			token, err := Open(t.Context(), Config{
				Serial: fmt.Sprint(card.Serial),
				PIN: func(ctx context.Context, _ hsm.PINRequest) (string, error) {
					close(waiting)
					<-ctx.Done()
					return "", ctx.Err()
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer token.Close()
			key := generate(t, token, "9a", hsm.P256)
			result := make(chan error)
			go func() { _, err := sign(key); result <- err }()
			<-waiting
			switch how {
			case "logout":
				err = token.Logout(t.Context())
			case "removal":
				card.Eject(t)
			case "close":
				err = token.Close()
			}
			if err != nil {
				t.Error(err)
			}
			err = <-result
			if how == "removal" && !errors.Is(err, hsm.ErrRemoved) || how != "removal" && !errors.Is(err, context.Canceled) {
				t.Errorf("err = %v", err)
			}
		})
	}
}
