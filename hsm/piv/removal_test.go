// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package piv

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	pivgo "github.com/go-piv/piv-go/v2/piv"

	"valise/hsm"
	"valise/internal/testcard"
	"valise/internal/testenv"
)

// awaitRemoved fails unless the token says so soon.
func awaitRemoved(t *testing.T, token *Token) {
	t.Helper()
	select {
	case <-token.Removed():
	case <-time.After(20 * time.Second):
		t.Fatal("the removal went unnoticed")
	}
}

func TestPulledCard(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, _ := openCard(t, card)
	key := generate(t, token, "9a", hsm.P256)
	signs(t, key)
	select {
	case <-token.Removed():
		t.Fatal("removed while it is in the reader")
	default:
	}

	card.Eject(t)
	if _, err := sign(key); !errors.Is(err, hsm.ErrRemoved) || hsm.Hint(err) == "" {
		t.Errorf("sign: %v", err)
	}
	awaitRemoved(t, token)
	if _, err := token.Key(t.Context(), "9a"); !errors.Is(err, hsm.ErrRemoved) {
		t.Errorf("key: %v", err)
	}
	if _, err := Open(t.Context(), Config{}); !errors.Is(err, hsm.ErrNoCard) || hsm.Hint(err) == "" {
		t.Errorf("open: %v", err)
	}

	card.Insert(t)
	if _, err := sign(key); !errors.Is(err, hsm.ErrRemoved) {
		t.Errorf("the old key after insertion: %v", err)
	}
	again, _ := openCard(t, card) // control, while the old token is not even closed
	found, err := again.Key(t.Context(), "9a")
	if err != nil {
		t.Fatal(err)
	}
	signs(t, found)
}

// Pulled and inserted between two operations, faster than anybody looks.
func TestSwappedCardIsNoticed(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	token, _ := openCard(t, card)
	key := generate(t, token, "9a", hsm.P256)
	signs(t, key)
	card.Eject(t)
	card.Insert(t)
	if _, err := sign(key); !errors.Is(err, hsm.ErrRemoved) {
		t.Errorf("sign: %v", err)
	}
	awaitRemoved(t, token)
}

// Whatever pcscd shows at the moment, a count of insertions and removals that
// moved means another card, or the same one without its PIN state.
func TestSameCard(t *testing.T) {
	const present, empty, mute, inUse = 0x20, 0x10, 0x200, 0x100
	inserted := event(7<<16 | present)
	for seen, want := range map[event]bool{
		inserted:                true,
		7<<16 | present | inUse: true,
		7<<16 | empty:           false,
		7<<16 | present | mute:  false,
		9<<16 | present:         false,
		8<<16 | empty:           false,
	} {
		if got := seen.same(inserted); got != want {
			t.Errorf("%08x after %08x: same = %v", uint32(seen), uint32(inserted), got)
		}
	}
}

// A process that owns the card for months: it is pulled at any moment, also
// while it is being opened, and works again after each insertion.
func TestRemovalsInOneProcess(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	first, _ := openCard(t, card)
	generate(t, first, "9a", hsm.P256)
	first.Close()
	before := len(serviceSockets())
	for round := range 20 {
		token, _ := openCard(t, card)
		key, err := token.Key(t.Context(), "9a")
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		signs(t, key)
		busy := make(chan struct{})
		go func() {
			defer close(busy)
			if round%2 == 0 { // pulled while it works
				for {
					if _, err := sign(key); err != nil {
						return
					}
				}
			}
			token.Close() // pulled while it is opened
			for {
				other, err := Open(t.Context(), Config{})
				if errors.Is(err, hsm.ErrNoCard) {
					return
				}
				if err == nil {
					other.Close()
				}
			}
		}()
		<-time.After(time.Duration(rand.IntN(3000)) * time.Microsecond)
		card.Eject(t)
		<-busy
		card.Insert(t)
	}
	token, _ := openCard(t, card)
	key, err := token.Key(t.Context(), "9a")
	if err != nil {
		t.Fatal(err)
	}
	signs(t, key)
	token.Close()
	t.Logf("sockets to pcscd: %d before, %d after", before, len(serviceSockets()))
}

// piv.Open leaks when the card leaves in the midst of it: later opening fails
// for good. open must not. The card is pulled while it is opened without a
// pause, until that has happened at least three times.
func TestOpenDoesNotLeak(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	late := 0
	for round := 0; late < 3; round++ {
		if round == 60 {
			t.Fatalf("only %d late failures in %d rounds", late, round)
		}
		failures := make(chan error)
		go func() {
			for {
				yk, err := open(card.Reader)
				if err != nil {
					failures <- err
					return
				}
				yk.Close()
			}
		}()
		card.Eject(t)
		err := <-failures
		if !strings.Contains(err.Error(), "connecting to smart card") {
			late++
			t.Logf("round %d: %v", round, err)
		}
		card.Insert(t)
		err = patiently(t.Context(), func() error {
			if err := probe(card.Reader); err != nil {
				return err
			}
			yk, err := open(card.Reader)
			if err == nil {
				yk.Close()
			}
			return err
		})
		if err != nil {
			t.Fatalf("round %d: the card cannot be opened any more: %v", round, err)
		}
	}
}

func TestRestartOfPCSCD(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	var key hsm.Key
	for round := range 4 {
		token, _ := openCard(t, card)
		var err error
		if round == 0 {
			key = generate(t, token, "9a", hsm.P256)
		} else if key, err = token.Key(t.Context(), "9a"); err != nil {
			t.Fatal(err)
		}
		signs(t, key)
		card.RestartPCSCD(t)
		awaitRemoved(t, token)
		if _, err := sign(key); !errors.Is(err, hsm.ErrRemoved) {
			t.Errorf("sign: %v", err)
		}
	}
	token, _ := openCard(t, card)
	if key, err := token.Key(t.Context(), "9a"); err != nil {
		t.Error(err)
	} else {
		signs(t, key)
	}
}

func TestNoCardAndTwoCards(t *testing.T) {
	one := testenv.Card(t, testcard.Config{})
	open := func(c Config) error {
		token, err := Open(t.Context(), c)
		if err == nil {
			token.Close()
		}
		return err
	}
	if err := open(Config{}); err != nil {
		t.Fatalf("one card: %v", err)
	}
	two := testenv.Card(t, testcard.Config{})
	if err := open(Config{}); !errors.Is(err, hsm.ErrManyCards) || hsm.Hint(err) == "" {
		t.Errorf("two cards: %v", err)
	}
	for _, card := range []*testenv.CardReader{one, two} {
		token, err := Open(t.Context(), Config{Serial: fmt.Sprint(card.Serial)})
		if err != nil {
			t.Fatal(err)
		}
		if token.Info().Serial != fmt.Sprint(card.Serial) {
			t.Errorf("asked for %d, got %s", card.Serial, token.Info().Serial)
		}
		token.Close()
		if err := open(Config{Reader: strings.ToUpper(card.Reader)}); err != nil {
			t.Errorf("by reader: %v", err)
		}
	}
	if err := open(Config{Serial: "1"}); !errors.Is(err, hsm.ErrNoCard) || !errors.Is(err, hsm.ErrOtherCard) {
		t.Errorf("unknown serial: %v", err)
	}
	if err := open(Config{Reader: "no such reader"}); !errors.Is(err, hsm.ErrNoCard) {
		t.Errorf("unknown reader: %v", err)
	}
	one.Eject(t)
	if err := open(Config{}); err != nil {
		t.Errorf("one left: %v", err)
	}
	two.Eject(t)
	if err := open(Config{}); !errors.Is(err, hsm.ErrNoCard) || hsm.Hint(err) == "" {
		t.Errorf("none left: %v", err)
	}
}

func TestBusyCard(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	other, err := pivgo.Open(card.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []Config{{}, {Serial: fmt.Sprint(card.Serial)}} {
		if _, err := Open(t.Context(), c); !errors.Is(err, hsm.ErrBusy) || hsm.Hint(err) == "" {
			t.Errorf("%+v: %v", c, err)
		}
	}
	// Given free meanwhile, it is opened after all.
	time.AfterFunc(100*time.Millisecond, func() { other.Close() })
	openCard(t, card)
}
