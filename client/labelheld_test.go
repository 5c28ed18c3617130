// SPDX-License-Identifier: Apache-2.0

package client

import (
	"testing"
	"time"

	"valise/bulletin"
)

// What waited for somebody whose clearance was lowered meanwhile is withheld at the
// gateway: he and its sender are told, and what is within the clearance arrives.
func TestWithheldMessageIsTold(t *testing.T) {
	c := newCabinet(t)
	state := c.enact(1, c.folder())
	alice, bob := c.device("alice").reachable().obeys(1), c.device("bob").reachable().obeys(1)
	conv := alice.with(t, bob)
	if err := alice.write(conv, "before", plans); err != nil {
		t.Fatal(err)
	}
	bob.gets("before")
	c.quiet()
	bob.kill()
	for text, label := range map[string]string{"the plans": plans, "the weather": "UNMARKED"} {
		if err := alice.write(conv, text, label); err != nil {
			t.Fatal(err)
		}
	}
	c.announce(state.Bundle.Hash, bulletin.PersonStanding{
		Address: bob.address, State: bulletin.Active, Since: time.Now().UTC().Truncate(time.Second), Ceiling: c.doctrine.UpTo("UNMARKED"),
	})
	bob.start()
	bob.gets("before", "the weather")
	bob.until("is told", func() bool { return bob.told(EventWithheld, "") })
	alice.until("is told", func() bool { return alice.told(EventForbidden, "") })
	if bob.told(EventExpired, "") || count(bob.texts(), "the plans") != 0 {
		t.Errorf("bob was shown %+v", bob.all())
	}
	for _, ev := range alice.all() {
		if ev.Kind == EventForbidden && (len(ev.Messages) != 1 || len(ev.Members) != 1 || ev.Members[0].Address != bob.address.String()) {
			t.Errorf("alice is told %+v", ev)
		}
	}
}
