// SPDX-License-Identifier: Apache-2.0

package client

import (
	"testing"
	"time"
)

// A bundle in force stays so when a date in it passes: a device that starts then, and one
// that comes new, have it. One that was past its dates when it came is refused.
func TestBundleOutlivesItsDates(t *testing.T) {
	c := newCabinet(t)
	start := time.Now()
	c.enact(1, c.doctrine.Until(c.folder(), start.Add(time.Hour)))
	alice := c.device("alice").reachable().obeys(1)
	alice.kill()
	later := func() time.Time { return time.Now().Add(2 * time.Hour) }
	alice.clock = later
	alice.start()
	if alice.version() != 1 {
		t.Fatalf("version %d is in force after its policy's last day", alice.version())
	}
	alice.reachable()
	c.deviceWith("bob", later).reachable().obeys(1)

	c.enact(2, c.doctrine.Until(c.folder(), start.Add(-time.Minute)))
	alice.until("refuses what is out of date", func() bool { return alice.told(EventPolicy, reasonBundleInvalid) })
	if alice.version() != 1 {
		t.Errorf("version %d is in force", alice.version())
	}
	c.enact(3, c.folder())
	alice.obeys(3)
}
