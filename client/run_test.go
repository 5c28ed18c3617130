// SPDX-License-Identifier: Apache-2.0

package client

import (
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
