// SPDX-License-Identifier: Apache-2.0

package client

import (
	"slices"
	"testing"
)

// hide has the gateway's copy of the record be behind, or not.
func (s *shelf) hide(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// Messages that were labelled under the next bundle reach a device that does not have it
// yet: it cannot judge them, does not refuse them, and asks for them again when it can.
func TestUnknownBundleIsWaitedFor(t *testing.T) {
	c := newCabinet(t)
	c.enact(1, c.folder())
	alice, bob := c.device("alice").reachable().obeys(1), c.device("bob").reachable().obeys(1)
	conv := alice.with(t, bob)
	if err := alice.write(conv, "before", plans); err != nil {
		t.Fatal(err)
	}
	bob.gets("before")
	c.quiet()
	bob.kill()
	c.enact(2, c.folder())
	alice.obeys(2)
	want := []string{"before", "one", "two", "three"}
	for _, text := range want[1:] {
		if err := alice.write(conv, text, plans); err != nil {
			t.Fatal(err)
		}
	}
	c.shelf.hide(true) // bob is not shown that the officers' signatures are on record
	bob.start()
	c.quiet()
	if got := bob.texts(); bob.version() != 1 || !slices.Equal(got, want[:1]) || !c.reported(reasonLabelBundle) {
		t.Fatalf("under version %d bob has %q, and reported %q", bob.version(), got, c.reports)
	}
	bob.restart() // what he owes himself outlives that
	c.shelf.hide(false)
	bob.obeys(2).gets(want...)
	if got := bob.texts(); !slices.Equal(got, want) {
		t.Errorf("in another order: %q", got)
	}
	c.quiet()
	for _, ev := range bob.all() {
		if ev.Kind == EventRefused || ev.Kind == EventLost {
			t.Errorf("%+v", ev)
		}
	}
	if err := alice.write(conv, "after", plans); err != nil {
		t.Fatal(err)
	}
	bob.gets(append(want, "after")...)
}
