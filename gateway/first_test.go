// SPDX-License-Identifier: Apache-2.0

package gateway

import "testing"

// Two devices, one group, text both ways, one of them away part of the time.
func TestTextBothWays(t *testing.T) { overBoth(t, testTextBothWays) }

func testTextBothWays(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, bob, ga, gb := pair(t, gw)

	alice.must(alice.sealed(ga, "good morning"))
	if got := bob.read(gb); got != "good morning" {
		t.Fatalf("bob read %q", got)
	}
	bob.must(bob.sealed(gb, "good evening"))
	if got := alice.read(ga); got != "good evening" {
		t.Fatalf("alice read %q", got)
	}

	// Bob goes away; what is sent meanwhile waits for him.
	_ = bob.link.conn.CloseWithError(0, "")
	alice.must(alice.sealed(ga, "one"))
	alice.must(alice.sealed(ga, "two"))
	bob.connect(false, 2)
	bob.listen(2)
	if a, b := bob.read(gb), bob.read(gb); a != "one" || b != "two" {
		t.Fatalf("bob read %q, %q", a, b)
	}
}
