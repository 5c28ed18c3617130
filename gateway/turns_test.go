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
