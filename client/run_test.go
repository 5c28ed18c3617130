// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"
)

// The pause doubles while attempts fail at once, up to a bound, and starts again after
// a connection that held: a gateway that was restarted twenty times in a minute is
// found as fast as one that was restarted once.
func TestPauseBetweenConnections(t *testing.T) {
	pause := time.Duration(0)
	for range 20 {
		was := pause
		if pause = pauseAfter(pause, 0); pause < was || pause < firstBackoff || pause > lastBackoff {
			t.Fatalf("%v comes after %v", pause, was)
		}
	}
	if pause != lastBackoff {
		t.Errorf("after 20 failures the pause is %v, not %v", pause, lastBackoff)
	}
	for range 20 {
		if pause = pauseAfter(pause, lastBackoff+time.Second); pause != firstBackoff {
			t.Fatalf("the pause is %v after a connection that held", pause)
		}
	}
	if pause = pauseAfter(2*time.Second, time.Second); pause != 4*time.Second {
		t.Errorf("a connection shorter than the pause before it is followed by a pause of %v, not twice as long", pause)
	}
}

// pulledCard is a signer that fails as long as it is out.
type pulledCard struct {
	crypto.Signer
	out    atomic.Bool
	failed atomic.Int32
}

func (c *pulledCard) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if c.out.Load() {
		c.failed.Add(1)
		return nil, errors.New("the card is out")
	}
	return c.Signer.Sign(rand, digest, opts)
}

// A card that does not sign is no verdict on the message: it stays queued, and leaves
// when the card is back.
func TestMessageOutlivesPulledCard(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "before")
	bob.gets("before")

	c := &pulledCard{Signer: alice.key}
	c.out.Store(true)
	alice.mu.Lock()
	alice.cfg.Signer = card{c}
	clear(alice.groups) // which hold the signer with which they were loaded
	alice.mu.Unlock()
	id, err := alice.Send(context.Background(), Draft{Conversation: conv, Text: "while it was out"})
	if err != nil {
		t.Fatal(err)
	}
	alice.until("asks the card", func() bool { return c.failed.Load() > 0 })
	if o, err := alice.Outcome(context.Background(), id); err != nil || o.State != OutcomeQueued {
		t.Fatalf("the message is %+v, %v", o, err)
	}
	c.out.Store(false)
	bob.gets("while it was out")
	if err := alice.Wait(context.Background(), id); err != nil {
		t.Error(err)
	}
	if n := count(bob.texts(), "while it was out"); n != 1 {
		t.Errorf("it came %d times", n)
	}
}
