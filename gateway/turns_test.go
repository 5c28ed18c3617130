// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := make(turns, 2)
		took := func() time.Duration {
			begin := time.Now()
			if _, ok := line.take(t.Context()); !ok {
				t.Error("no turn")
			}
			return time.Since(begin)
		}
		first, _ := line.take(t.Context())
		took()
		first()
		first() // once more does no harm
		if d := took(); d != 0 {
			t.Errorf("waited %v for a turn that was given back", d)
		}
		if d := took(); d != turnTime {
			t.Errorf("waited %v while two others did not give theirs back, want %v", d, turnTime)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		line := make(turns, 1)
		back, _ := line.take(t.Context())
		defer back()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, ok := line.take(ctx); ok {
			t.Error("a turn for a connection that has ended")
		}
	})
}

// A turn of stored mail lasts until the device has all that it brought.
func TestTurnLastsUntilAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := make(turns, 1)
		d := &delivery{s: &session{g: &Gateway{turns: line}}}
		held := func(want int, when string) {
			t.Helper()
			if len(line) != want {
				t.Errorf("%d turns are held %s, want %d", len(line), when, want)
			}
		}
		ack := func(number uint64) {
			if !d.acknowledge(number) {
				t.Errorf("%d was never sent", number)
			}
			if d.turnOver() {
				d.endTurn()
			}
		}
		if !d.takeTurn(t.Context()) {
			t.Fatal("no turn")
		}
		d.note(1, 100)
		ack(1)
		held(1, "while more may be written")
		d.note(2, 100)
		d.keepTurn()
		held(1, "with a delivery under way")
		ack(2)
		held(0, "when all has arrived")

		d.takeTurn(t.Context())
		d.note(3, 100)
		ack(3)
		d.keepTurn()
		held(0, "when all had arrived before")

		d.takeTurn(t.Context())
		d.note(4, 100)
		d.keepTurn()
		time.Sleep(turnTime)
		synctest.Wait()
		held(0, "by a device that does not acknowledge")
		d.takeTurn(t.Context())
		held(1, "by a device that goes on")
		d.endTurn()
		held(0, "when the connection has ended")
	})
}
