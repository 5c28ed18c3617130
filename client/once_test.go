// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

// crashAt makes a device's engine stop at the nth time that it reaches a point.
func crashAt(point string, nth int) func(string) error {
	var mu sync.Mutex
	return func(at string) error {
		mu.Lock()
		defer mu.Unlock()
		if at == point {
			if nth--; nth == 0 {
				return errKilled
			}
		}
		return nil
	}
}

// survive restarts a device as often as its engine stops at a crash point, until stop
// is closed.
func (d *device) crashes(point string, nth int) {
	d.crash = crashAt(point, nth)
	d.restart()
	d.crash = nil
}

// Whatever instant the power goes at, each message arrives once: after the vault
// committed and before the bytes left, after they left, after the answer, after a
// delivery was stored and before its Ack.
func TestCrashAtEachPoint(t *testing.T) {
	for _, point := range []string{"sealed", "submit", "answered", "stored"} {
		for nth := 1; nth <= 3; nth++ {
			t.Run(fmt.Sprint(point, nth), func(t *testing.T) {
				w := newWorld(t)
				alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
				victim := alice
				if point == "stored" {
					victim = bob
				}
				victim.crashes(point, nth)
				conv := alice.with(t, bob)
				var want []string
				for i := range 4 {
					text := fmt.Sprintf("message %d", i)
					if _, err := alice.Send(context.Background(), Draft{Conversation: conv, Text: text}); err != nil {
						t.Fatal(err)
					}
					want = append(want, text)
				}
				if err := <-victim.ended; err == nil {
					t.Fatal("the engine did not stop at " + point)
				}
				victim.ended <- errKilled
				victim.restart()
				bob.gets(want...)
				bob.says(bob.with(t, alice), "all there")
				alice.gets("all there")
				if have := bob.texts(); len(have) != len(want) {
					t.Fatalf("bob has %q", have)
				}
			})
		}
	}
}

// Both engines and the gateway are stopped and started while messages flow.
func TestRestartsUnderLoad(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "start")
	bob.gets("start")
	var fromAlice, fromBob []string
	for round := range 4 {
		for i := range 5 {
			a, b := fmt.Sprintf("a%d.%d", round, i), fmt.Sprintf("b%d.%d", round, i)
			if _, err := alice.Send(context.Background(), Draft{Conversation: conv, Text: a}); err != nil {
				t.Fatal(err)
			}
			if _, err := bob.Send(context.Background(), Draft{Conversation: conv, Text: b}); err != nil {
				t.Fatal(err)
			}
			fromAlice, fromBob = append(fromAlice, a), append(fromBob, b)
		}
		switch round {
		case 0:
			alice.restart()
		case 1:
			bob.restart()
		case 2:
			w.stop()
			w.start()
		}
	}
	bob.gets(fromAlice...)
	alice.gets(fromBob...)
}

// The same id twice is one message, whether it was sent already or not.
func TestSameIDTwice(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	id := NewMessageID()
	for range 3 {
		if _, err := alice.Send(context.Background(), Draft{ID: id, Conversation: conv, Text: "once"}); err != nil {
			t.Fatal(err)
		}
		if err := alice.Wait(context.Background(), id); err != nil {
			t.Fatal(err)
		}
	}
	alice.says(conv, "end")
	bob.gets("once", "end")
}
