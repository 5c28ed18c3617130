// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/elliptic"
	"testing"
)

// The first message: two engines, a real gateway, real QUIC, both ways.
func TestTextBothWays(t *testing.T) {
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384()} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			alice, bob := w.deviceOn("alice", curve).reachable(), w.deviceOn("bob", curve).reachable()
			conv := alice.with(t, bob)
			alice.says(conv, "hello bob")
			bob.gets("hello bob")
			back := bob.with(t, alice)
			if back != conv {
				t.Fatalf("bob would answer in conversation %s, not in %s", back, conv)
			}
			bob.says(back, "hello alice")
			alice.gets("hello alice")
		})
	}
}
