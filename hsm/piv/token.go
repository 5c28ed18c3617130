// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package piv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	pivgo "github.com/go-piv/piv-go/v2/piv"

	"valise/hsm"
)

// Config says which card to open. The zero value opens the only card.
type Config struct {
	Serial string // the card's serial number, in decimal
	Reader string // part of the reader's name, in any case

	// PIN is asked when the card wants a PIN. Nil: ErrNoPIN is returned then.
	PIN hsm.PINFunc
}

// A Token is one card in a reader.
type Token struct {
	place  place
	info   hsm.TokenInfo
	serial uint32
	pin    hsm.PINFunc

	life    context.Context // ends with Close or removal
	end     context.CancelFunc
	removed chan struct{}
	watch   *service

	// mu owns the card and everything below. It is held while the card works
	// and while a person enters a PIN; interrupt ends the latter.
	mu     sync.Mutex
	yk     *pivgo.YubiKey // nil after Logout, until the next use
	shown  bool           // a PIN was accepted since the card was last reset
	closed bool

	prompts   sync.Mutex // guards interrupt; taken last
	interrupt context.CancelFunc
}

var (
	_ hsm.Token            = (*Token)(nil)
	_ hsm.CertificateStore = (*Token)(nil)
)

// Open opens the one card that fits c. It waits a moment for other programs
// to let go of it.
func Open(ctx context.Context, c Config) (*Token, error) {
	places, err := present(c.Reader)
	if err != nil {
		return nil, fmt.Errorf("piv: %w", err)
	}
	cards, err := probeAll(ctx, places)
	if err != nil {
		return nil, fmt.Errorf("piv: %w", err)
	}
	if c.Serial == "" && len(cards) > 1 {
		return nil, fmt.Errorf("piv: %w: %s", hsm.ErrManyCards, readerNames(cards))
	}
	var busy error
	for _, card := range cards {
		t, err := openPlace(ctx, card, c)
		if err == nil && (c.Serial == "" || c.Serial == t.info.Serial) {
			return t, nil
		}
		if err == nil {
			t.Close()
			continue
		}
		if c.Serial == "" {
			return nil, fmt.Errorf("piv: %w", err)
		}
		if errors.Is(err, hsm.ErrBusy) {
			busy = err
		}
	}
	if busy != nil {
		return nil, fmt.Errorf("piv: %w", busy)
	}
	if c.Serial != "" && len(cards) > 0 {
		return nil, fmt.Errorf("piv: serial %s is not among the %d inserted: %w", c.Serial, len(cards), hsm.ErrOtherCard)
	}
	return nil, fmt.Errorf("piv: %w", hsm.ErrNoCard)
}

// probeAll drops the cards that are not PIV. A busy one stays: it may be.
func probeAll(ctx context.Context, places []place) ([]place, error) {
	var cards []place
	var last error
	for _, p := range places {
		err := patiently(ctx, func() error { return probe(p.reader) })
		if err == nil || errors.Is(err, hsm.ErrBusy) {
			cards = append(cards, p)
			continue
		}
		last = err
	}
	if len(cards) == 0 && last != nil {
		return nil, last
	}
	return cards, nil
}

func readerNames(places []place) string {
	names := make([]string, len(places))
	for i, p := range places {
		names[i] = fmt.Sprintf("%q", p.reader)
	}
	return strings.Join(names, ", ")
}

func openPlace(ctx context.Context, p place, c Config) (*Token, error) {
	t := &Token{place: p, pin: c.PIN, removed: make(chan struct{})}
	err := patiently(ctx, func() error {
		if err := probe(p.reader); err != nil {
			return err
		}
		yk, err := open(p.reader)
		t.yk = yk
		return err
	})
	if err != nil {
		return nil, err
	}
	serial, err := t.yk.Serial()
	if err != nil {
		t.yk.Close()
		return nil, fmt.Errorf("reading the serial number: %w", err)
	}
	v := t.yk.Version()
	t.serial = serial
	t.info = hsm.TokenInfo{
		Kind: "piv", Label: p.reader, Serial: fmt.Sprint(serial), Model: "PIV card",
		Firmware: fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch),
	}
	if t.watch, err = connectService(); err != nil {
		t.yk.Close()
		return nil, err
	}
	t.life, t.end = context.WithCancel(context.Background())
	go t.watchCard()
	return t, nil
}

// Info describes the card.
func (t *Token) Info() hsm.TokenInfo { return t.info }

// Removed is closed when the card left its reader, or pcscd ended.
func (t *Token) Removed() <-chan struct{} { return t.removed }

// watchCard closes t.removed when the card leaves. It runs until then, or
// until Close, and owns t.watch.
func (t *Token) watchCard() {
	defer t.watch.close()
	for e := event(0); t.life.Err() == nil; {
		now, err := t.watch.wait(t.place.reader, e, watchPeriod)
		if t.life.Err() != nil {
			return
		}
		if err != nil || !now.same(t.place.since) {
			close(t.removed)
			t.end()
			t.letGo()
			return
		}
		e = now
	}
}

// letGo disconnects from a card that left, so that pcscd can give the reader
// to whoever opens the next one.
func (t *Token) letGo() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.yk != nil {
		t.yk.Close()
		t.yk = nil
	}
}

// gone tells whether the card left, without waiting for the watcher.
func (t *Token) gone() bool {
	select {
	case <-t.removed:
		return true
	default:
	}
	s, err := connectService()
	if err != nil {
		return true
	}
	defer s.close()
	now, err := s.wait(t.place.reader, 0, 0)
	return err != nil || !now.same(t.place.since)
}

// use runs f with the card, which it opens again if it was given free. What
// piv-go panics over comes from the card, and is an error.
func (t *Token) use(ctx context.Context, f func(ctx context.Context, yk *pivgo.YubiKey) error) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.ready(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.life, cancel)()
	t.setInterrupt(cancel)
	defer t.setInterrupt(nil)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w from the card: %v", errUnexpected, r)
		}
	}()
	return t.explain(f(ctx, t.yk))
}

// ready makes sure that t.yk is the card that was opened. Callers hold t.mu.
func (t *Token) ready(ctx context.Context) error {
	if t.closed {
		return hsm.ErrClosed
	}
	select {
	case <-t.removed:
		return hsm.ErrRemoved
	default:
	}
	if t.yk != nil {
		return nil
	}
	return t.reopen(ctx)
}

func (t *Token) reopen(ctx context.Context) error {
	var yk *pivgo.YubiKey
	err := patiently(ctx, func() (err error) {
		if err = probe(t.place.reader); err != nil {
			return err
		}
		yk, err = open(t.place.reader)
		return err
	})
	if err != nil {
		return t.explain(err)
	}
	serial, err := yk.Serial()
	if err != nil || serial != t.serial {
		yk.Close()
		return fmt.Errorf("%w: another card is in its place (%v)", hsm.ErrRemoved, err)
	}
	t.yk = yk // shown stays: true after a reset that failed
	return nil
}

func (t *Token) setInterrupt(cancel context.CancelFunc) {
	t.prompts.Lock()
	defer t.prompts.Unlock()
	t.interrupt = cancel
}

// stopPrompt ends a wait for a PIN, if there is one.
func (t *Token) stopPrompt() {
	t.prompts.Lock()
	defer t.prompts.Unlock()
	if t.interrupt != nil {
		t.interrupt()
	}
}

// Logout clears the card's PIN state and gives the card free for other
// programs. The next use opens it again.
func (t *Token) Logout(ctx context.Context) error {
	t.stopPrompt()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return hsm.ErrClosed
	}
	if err := t.release(ctx); err != nil {
		return fmt.Errorf("piv: logout: %w", t.explain(err))
	}
	return nil
}

// release gives the card free, without PIN state. Callers hold t.mu.
//
// Closing leaves the card as it is, and the reset comes a moment later.
// Selecting another application in between (which FormFactor does) ends PIV's
// security status while the card is still ours: SP 800-73-4, Part 2,
// Section 3.1.1.
func (t *Token) release(ctx context.Context) error {
	if t.yk != nil {
		if t.shown {
			_, _ = t.yk.FormFactor()
		}
		t.yk.Close()
		t.yk = nil
	}
	if !t.shown || t.gone() {
		return nil
	}
	err := patiently(ctx, func() error { return reset(t.place.reader) })
	if err == nil {
		t.shown = false
	}
	return err
}

// Close clears the card's PIN state if it was set here, and gives the card
// free.
func (t *Token) Close() error {
	t.end()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	t.watch.cancel()
	if err := t.release(context.Background()); err != nil {
		return fmt.Errorf("piv: close: %w", err)
	}
	return nil
}
